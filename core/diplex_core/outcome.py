"""What became of a lease's promise, once its worker has said its last word on it."""

from typing import Final

from diplex_core.events import EndedClaim, Served, WorkerFacts
from diplex_core.lease import Lease
from diplex_core.words import EndReason, Seconds

_WHOLE: Final = frozenset({EndReason.STOP, EndReason.LENGTH})


def outcome_of(lease: Lease, worker: WorkerFacts, ended: EndedClaim, now: Seconds) -> Served | None:
    """What became of a lease's promise; `None` for an adopted one, whose ask an earlier life heard."""
    if lease.ask is None or lease.wish is None:
        return None
    wish, first = lease.wish, lease.first_token
    if first is None and ended.first_token is not None and ended.total is not None:
        first = now - (ended.total - ended.first_token)  # it was over before a report could say so
    e2e = now - lease.arrived
    ttft = first - lease.arrived if first is not None else None
    tpot = ended.tpot(wish.choices, wish.produced)
    whole = ended.reason in _WHOLE and not wish.degraded_from
    kept = ttft is not None and wish.tier.kept(
        wish.model, prompt=ended.prompt_tokens, ttft=ttft, tpot=tpot, e2e=e2e
    )
    return Served(
        claim=lease.claim,
        request_id=lease.ask.request_id,
        model=wish.model,
        tier=wish.tier.name,
        tenant=wish.tenant.name,
        worker=worker,
        reason=ended.reason,
        prompt_tokens=ended.prompt_tokens,
        output_tokens=ended.output_tokens,
        queued=lease.queued,
        ttft=ttft,
        tpot=tpot,
        e2e=e2e,
        met=whole and kept,
        predicted_ttft=lease.predicted_ttft,
        degraded_from=wish.degraded_from,
    )
