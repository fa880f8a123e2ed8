"""`Explain` over real gRPC: what would become of a request, and what became of one."""

from dataclasses import replace
from typing import Any

import grpc
import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2
from diplex.wire.status import Problem
from diplex_core.words import Rules, Tenant

ACME, GLOBEX = Tenant("acme", "sesame"), Tenant("globex", "poppy", packages=frozenset({"pkg9"}))


async def explained(stub: Any, **fields: Any) -> router_pb2.RouterExplainResponse:
    answer: router_pb2.RouterExplainResponse = await stub.Explain(router_pb2.RouterExplainRequest(**fields))
    return answer


async def refused(stub: Any, **fields: Any) -> tuple[grpc.StatusCode, Problem]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await explained(stub, **fields)
    return caught.value.code(), Problem.from_rpc(caught.value)


async def served(stub: Any, request_id: str, **fields: Any) -> None:
    request = router_pb2.RouterGenerateRequest(
        request_id=request_id, prompt=pb.Prompt(text="to be or not to be"), max_tokens=2, **fields
    )
    assert [message async for message in stub.Generate(request)][-1].done.reason == pb.END_REASON_LENGTH


async def test_a_request_that_would_be_granted_is_explained_with_weights_and_totals(
    worker: Any, new_router: Any
):
    async with new_router(worker) as stub:
        answer = await explained(stub, prompt_tokens=64, max_tokens=8)
    assert (answer.outcome, answer.picked, answer.reason) == ("granted", "w1", "")
    assert (answer.model, answer.tier, answer.tenant, answer.prompt_tokens) == (
        "m",
        "standard",
        "default",
        64,
    )
    assert not answer.HasField("age_s")
    said = answer.workers["w1"]
    assert dict(said.filters) == {}
    assert said.scores.keys() == answer.weights.keys()
    assert said.total == pytest.approx(
        sum(answer.weights[name] * score for name, score in said.scores.items())
    )


async def test_a_request_that_would_wait_is_explained_with_the_filters_that_object(
    serve: Any, new_worker: Any, new_router: Any
):
    full = new_worker("w1", slots=1, answer=False)
    async with serve(full), new_router(full) as stub:
        running = stub.Generate(
            router_pb2.RouterGenerateRequest(prompt=pb.Prompt(text="hello"), max_tokens=2)
        )
        assert (await running.read()).HasField("serving")
        answer = await explained(stub, prompt_tokens=64, max_tokens=8)
        running.cancel()
    assert (answer.outcome, answer.picked) == ("queued", "")
    assert answer.reason
    assert answer.workers["w1"].filters["slot_free"] == "needs 1 sequence slots, 0 are free"


async def test_a_request_that_would_be_refused_is_explained_in_the_refusals_words(
    worker: Any, new_router: Any
):
    async with new_router(worker) as stub:
        large = await explained(stub, prompt_tokens=100_000, max_tokens=8)
        gold = await explained(stub, tier="gold", prompt_tokens=64)
    assert (large.outcome, large.picked) == ("refused", "")
    assert large.reason.startswith("the request fits no pool")
    assert "needs a context of" in large.workers["w1"].filters["context_fits"]
    assert (gold.outcome, gold.reason) == ("refused", "unknown tier 'gold'; known: standard, bulk")
    assert (gold.tier, gold.prompt_tokens, len(gold.workers)) == ("gold", 64, 0)


async def test_a_request_of_the_past_is_explained_by_its_id(worker: Any, new_router: Any):
    async with new_router(worker) as stub:
        await served(stub, "req-1", tier="bulk")
        answer = await explained(stub, request_id="req-1")
    assert (answer.request_id, answer.outcome, answer.picked) == ("req-1", "granted", "w1")
    assert (answer.model, answer.tier, answer.tenant) == ("m", "bulk", "default")
    assert answer.prompt_tokens > 0
    assert answer.age_s >= 0
    assert answer.workers["w1"].total > 0
    assert answer.ended == "it ended LENGTH with 2 output tokens"


async def test_a_request_that_waits_is_explained_by_its_id_and_so_is_how_it_ended(
    serve: Any, new_worker: Any, new_router: Any
):
    full = new_worker("w1", blocks=3, answer=False)
    prompt = pb.Prompt(text="to be or not to be")
    async with serve(full), new_router(full) as stub:
        running = stub.Generate(router_pb2.RouterGenerateRequest(prompt=prompt, max_tokens=32))
        assert (await running.read()).HasField("serving")
        waiting = stub.Generate(
            router_pb2.RouterGenerateRequest(request_id="req-2", prompt=prompt, max_tokens=64)
        )
        while True:  # until the ask has arrived
            try:
                now = await explained(stub, request_id="req-2")
                break
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.NOT_FOUND
        waiting.cancel()
        while not (after := await explained(stub, request_id="req-2")).ended:
            pass
        running.cancel()
    assert (now.outcome, now.wait.ahead, now.wait.queued, now.wait.worker) == ("queued", 0, 1, "w1")
    assert now.wait.needed_blocks > now.wait.free_blocks
    assert now.reason.startswith(f"it needs {now.wait.needed_blocks} KV")
    assert not after.HasField("wait")
    assert after.ended == "the client withdrew it"
    assert after.ended_age_s >= 0


async def test_a_request_that_nobody_remembers_is_not_found(worker: Any, new_router: Any):
    async with new_router(worker) as stub:
        code, problem = await refused(stub, request_id="req-9")
    assert (code, problem.reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_REQUEST")
    assert problem.message.startswith("no request req-9 is remembered. Mend: ")


async def test_a_tenant_learns_nothing_of_anothers_requests(worker: Any, new_router: Any, rules: Rules):
    async with new_router(worker, rules=replace(rules, tenants=(ACME, GLOBEX))) as stub:
        await served(stub, "req-1", api_key="sesame")
        mine = await explained(stub, request_id="req-1", api_key="sesame")
        of_another = await refused(stub, request_id="req-1", api_key="poppy")
        of_nobody = await refused(stub, request_id="req-2", api_key="poppy")
    assert (mine.outcome, mine.tenant) == ("granted", "acme")
    assert of_another[0] is grpc.StatusCode.NOT_FOUND
    assert of_another[1].message == of_nobody[1].message.replace("req-2", "req-1")


async def test_with_tenants_a_question_needs_a_key_as_a_request_does(
    worker: Any, new_router: Any, rules: Rules
):
    async with new_router(worker, rules=replace(rules, tenants=(ACME, GLOBEX))) as stub:
        for key in ("", "stranger"):
            code, problem = await refused(stub, prompt_tokens=64, api_key=key)
            assert (code, problem.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNKNOWN_KEY")
        bound = await explained(stub, prompt_tokens=64, api_key="poppy")
        by_header = await stub.Explain(
            router_pb2.RouterExplainRequest(prompt_tokens=64), metadata=[("authorization", "Bearer sesame")]
        )
    assert (bound.outcome, bound.workers["w1"].filters["tenant"]) == (
        "refused",
        "tenant globex is bound to pkg9",
    )
    assert (by_header.outcome, by_header.tenant) == ("granted", "acme")
