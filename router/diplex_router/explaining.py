"""Answers why: what would become of a request now, or what was decided on one of the last."""

import grpc

from diplex.v1 import router_pb2
from diplex.wire.status import Problem
from diplex_core.admission import Admission
from diplex_core.events import Ask, Refusal, Why
from diplex_core.past import REMEMBERED, Explanation
from diplex_core.placement.place import Explained
from diplex_core.wishes import wish_of
from diplex_core.words import Seconds
from diplex_router.translate import problem_of


def explain(
    admission: Admission, request: router_pb2.RouterExplainRequest, api_key: str, now: Seconds
) -> router_pb2.RouterExplainResponse:
    """The answer to a question by whoever has this key.

    Raises:
        Problem: the key is nobody's, or no such request of its owner is remembered.
    """
    ask = Ask(
        request_id=request.request_id,
        model=request.model,
        tier=request.tier,
        api_key=api_key,
        prompt_tokens=request.prompt_tokens or 1,
        max_tokens=request.max_tokens,
        choices=request.n or 1,
    )
    wish = wish_of(ask, admission.rules)
    if isinstance(wish, Refusal) and wish.why is Why.UNKNOWN_KEY:
        raise problem_of(wish)
    if not request.request_id:
        answer = _answer(admission.explain(ask, now), admission)
        # Refused for what it is: no wish came of it, but this was asked.
        answer.model, answer.tier = answer.model or ask.model, answer.tier or ask.tier
        answer.prompt_tokens = answer.prompt_tokens or ask.prompt_tokens
        return answer
    past = admission.explain_request(request.request_id, now)
    tenant = admission.rules.tenant_of(api_key)
    # What another tenant asked for is not this one's business, not even that it did.
    if past is None or past.wish is None or tenant is None or past.wish.tenant.name != tenant.name:
        raise Problem(
            grpc.StatusCode.NOT_FOUND,
            f"no request {request.request_id} is remembered. Mend: the id of one of the last {REMEMBERED} "
            "that this router decided on, as in x-request-id",
            "UNKNOWN_REQUEST",
            field="request_id",
        )
    answer = _answer(past, admission)
    answer.age_s = now - past.at
    if (ending := past.ending) is not None:
        answer.ended, answer.ended_age_s = ending.words, now - ending.at
    return answer


def _answer(explanation: Explanation, admission: Admission) -> router_pb2.RouterExplainResponse:
    answer = router_pb2.RouterExplainResponse(
        request_id=explanation.request_id,
        outcome=explanation.outcome,
        reason=explanation.reason,
        picked=explanation.picked,
        workers={name: _said(words) for name, words in explanation.words.items()},
    )
    if (wait := explanation.wait) is not None:
        answer.wait.CopyFrom(
            router_pb2.ExplainedWait(
                waited_s=wait.waited,
                ahead=wait.ahead,
                queued=wait.queued,
                needed_blocks=wait.needed,
                free_blocks=wait.free,
                worker=wait.worker,
            )
        )
    if (wish := explanation.wish) is not None:
        answer.model, answer.tier, answer.tenant = wish.model, wish.tier.name, wish.tenant.name
        answer.prompt_tokens = wish.prompt
        answer.picker = wish.tier.picker
        answer.weights.update(admission.weights_of(wish.tier))
    return answer


def _said(words: Explained) -> router_pb2.ExplainedWorker:
    said = router_pb2.ExplainedWorker(
        filters=words.objections, scores=words.scores, total=words.total, failed=words.failed
    )
    if words.ttft is not None:
        said.predicted_ttft_ms = words.ttft * 1000
    if words.tpot is not None:
        said.predicted_tpot_ms = words.tpot * 1000
    return said
