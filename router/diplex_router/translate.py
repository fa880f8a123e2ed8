"""Between the wire's messages and the core's words. Milliseconds and protos stay on this side."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import grpc

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2, worker_pb2
from diplex.wire.grants import Keys
from diplex.wire.status import Problem
from diplex_core import events
from diplex_core.events import Refusal, Why
from diplex_core.words import Claim, EndReason, Pattern, packed

CODES: Final[Mapping[Why, grpc.StatusCode]] = MappingProxyType(
    {
        Why.UNKNOWN_MODEL: grpc.StatusCode.NOT_FOUND,
        Why.UNKNOWN_TIER: grpc.StatusCode.INVALID_ARGUMENT,
        Why.UNKNOWN_KEY: grpc.StatusCode.UNAUTHENTICATED,
        Why.TIER_NOT_ALLOWED: grpc.StatusCode.PERMISSION_DENIED,
        Why.REQUEST_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
        Why.REQUEST_TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
        Why.NO_WORKER: grpc.StatusCode.UNAVAILABLE,
        Why.NOT_PLACEABLE: grpc.StatusCode.FAILED_PRECONDITION,
        Why.QUEUE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Why.QUEUED_TOO_LONG: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Why.TOO_LATE: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Why.DEADLINE_PASSED: grpc.StatusCode.DEADLINE_EXCEEDED,
        Why.REFUSED_TOO_OFTEN: grpc.StatusCode.UNAVAILABLE,
        Why.NEVER_STARTED: grpc.StatusCode.ABORTED,
        Why.QUOTA_EXCEEDED: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Why.QUOTA_TOO_SMALL: grpc.StatusCode.INVALID_ARGUMENT,
        Why.GAVE_WAY: grpc.StatusCode.ABORTED,
    }
)

# Which request field a refusal is about, so that clients can point at it.
FIELDS: Final[Mapping[Why, str]] = MappingProxyType(
    {
        Why.UNKNOWN_MODEL: "model",
        Why.UNKNOWN_TIER: "tier",
        Why.REQUEST_INVALID: "prompt",
        Why.REQUEST_TOO_LARGE: "prompt",
        Why.NOT_PLACEABLE: "tier",
    }
)

_REASON_ON_WIRE: Final[Mapping[EndReason, pb.EndReason.ValueType]] = MappingProxyType(
    {reason: pb.EndReason.Value(f"END_REASON_{reason.value}") for reason in EndReason}
)
_REASON_IN_CORE: Final[Mapping[int, EndReason]] = MappingProxyType(
    {number: reason for reason, number in _REASON_ON_WIRE.items()}
)


def problem_of(refusal: Refusal) -> Problem:
    """The status that tells a client of a refusal."""
    return Problem(
        CODES[refusal.why],
        refusal.message,
        refusal.why.value,
        retry_after=refusal.retry_after,
        metadata=refusal.numbers,
        field=FIELDS.get(refusal.why, ""),
    )


def claim_on_wire(claim: Claim) -> pb.Claim:
    return pb.Claim(lease_id=claim.lease_id, attempt=claim.attempt)


def claim_in_core(claim: pb.Claim) -> Claim:
    return Claim(claim.lease_id, claim.attempt)


def reason_in_core(reason: int) -> EndReason:
    """A reason that this version does not know counts as a failure."""
    return _REASON_IN_CORE.get(reason, EndReason.FAILED)


def ask_in_core(ask: router_pb2.Ask, api_key: str) -> events.Ask:
    """An ask in the core's words.

    Args:
        api_key: what the stream's metadata says; the ask's own key goes first.
    """
    again = None
    if ask.HasField("again"):
        again = events.Again(
            claim_in_core(ask.again.claim),
            reason_in_core(ask.again.reason),
            ask.again.worker,
            ask.again.produced_tokens,
            ask.again.needed_blocks,
        )
    return events.Ask(
        request_id=ask.request_id,
        model=ask.model,
        tier=ask.tier,
        api_key=ask.api_key or api_key,
        prompt_tokens=ask.prompt_tokens,
        exact=ask.exact,
        block_hashes=packed(ask.block_hashes),
        hash_block_tokens=ask.hash_block_tokens,
        max_tokens=ask.max_tokens,
        choices=ask.n or 1,
        timeout=ask.timeout_ms / 1000 if ask.timeout_ms else None,
        age=ask.age_ms / 1000,
        again=again,
    )


def granted_on_wire(granted: events.Granted, router: str, epoch: int, keys: Keys) -> router_pb2.Granted:
    """The grant, signed, and beside it where its worker is."""
    worker = granted.worker
    grant = pb.Grant(
        claim=claim_on_wire(granted.claim),
        request_id=granted.request_id,
        router=router,
        epoch=epoch,
        worker=worker.name,
        boot=worker.boot,
        blocks=granted.blocks,
        slots=granted.slots,
        max_tokens=granted.max_tokens,
        tier=granted.tier,
        tenant=granted.tenant,
        priority=granted.priority,
        start_by_ms=max(0, round(granted.start_by * 1000)),
        choices=granted.choices,
        grows=granted.grows,
        cached_blocks=granted.cached,
        prefix_salt=granted.salt,
    )
    return router_pb2.Granted(
        ask_id=granted.key.ask_id,
        grant=keys.sign(grant),
        address=worker.address,
        pattern=worker.pattern,
        package=worker.package,
        engine=worker.engine,
        simulated=worker.simulated,
        queue_ms=granted.queued * 1000,
        can_resume=worker.can_resume,
        predicted_ttft_ms=_milliseconds(granted.predicted_ttft),
        predicted_tpot_ms=_milliseconds(granted.predicted_tpot),
        degraded_from=granted.degraded_from,
    )


def _milliseconds(seconds: float | None) -> float | None:
    """What is unknown stays absent."""
    return None if seconds is None else seconds * 1000


def stop_on_wire(stop: events.StopClaim) -> worker_pb2.Stop:
    return worker_pb2.Stop(
        claim=claim_on_wire(stop.claim),
        reason=_REASON_ON_WIRE[stop.reason],
        status=problem_of(stop.refusal).to_bytes(),
    )


def raise_on_wire(order: events.RaiseClaim) -> worker_pb2.Raise:
    return worker_pb2.Raise(claim=claim_on_wire(order.claim), blocks=order.blocks, id=order.number)


def facts_in_core(info: pb.WorkerInfo) -> events.WorkerFacts:
    """What a worker says of itself.

    Raises:
        ValueError: its pattern is none that this version knows.
    """
    return events.WorkerFacts(
        name=info.name,
        package=info.package,
        pattern=Pattern(info.pattern),
        models=frozenset(model.name for model in info.models),
        boot=info.boot,
        address=info.address,
        block_tokens=info.block_tokens,
        capacity_blocks=info.capacity_blocks,
        capacity_slots=info.capacity_slots,
        guard_blocks=info.guard_blocks,
        context=info.context,
        can_resume=info.can_resume,
        can_grow=info.can_grow,
        reports_residency=info.reports_residency,
        tiers=frozenset(info.tiers),
        engine=info.engine,
        simulated=info.simulated,
        calibration=info.calibration,
        time_scale=info.time_scale or 1.0,
        prefill_budget=info.prefill_budget_tokens,
        draft_tokens=info.draft_tokens,
        gpu=info.gpu,
        profile=info.profile,
        weights=info.weights,
        kv_cache=info.kv_cache,
    )


def report_in_core(report: worker_pb2.WorkerLinkResponse) -> events.Report:
    """A report in the core's words.

    Raises:
        ValueError: as `facts_in_core`.
    """
    return events.Report(
        number=report.number,
        full=report.full,
        uptime=report.uptime_ms / 1000,
        used_blocks=report.used_blocks,
        used_slots=report.used_slots,
        foreign_blocks=report.foreign_blocks,
        foreign_slots=report.foreign_slots,
        held=tuple(
            events.HeldClaim(
                claim_in_core(held.claim),
                held.blocks,
                held.slots,
                held.prefilled,
                held.output_tokens,
                held.prompt_tokens,
                held.tier,
                held.tenant,
                held.request_id,
                held.model,
                held.priority,
                held.grows,
                held.answers_raise,
            )
            for held in report.held
        ),
        ended=tuple(
            events.EndedClaim(
                claim_in_core(ended.claim),
                reason_in_core(ended.reason),
                ended.usage.prompt_tokens,
                ended.usage.completion_tokens,
                ended.timing.first_token_ms / 1000 if ended.timing.HasField("first_token_ms") else None,
                ended.timing.total_ms / 1000 if ended.timing.HasField("total_ms") else None,
            )
            for ended in report.ended
        ),
        wants=tuple(
            events.WantedClaim(claim_in_core(wanted.claim), wanted.blocks) for wanted in report.wants
        ),
        facts=facts_in_core(report.info) if report.HasField("info") else None,
        observed_blocks=report.observed_blocks if report.HasField("observed_blocks") else None,
        draining=report.draining,
        engine_problem="" if report.engine_ready else report.engine_problem or "its engine does not answer",
        engine_alarm=report.engine_alarm,
        peak_blocks=report.peak_blocks,
        peak_slots=report.peak_slots,
        prefill_tokens=report.prefill_tokens,
        foreign_prefill_tokens=report.foreign_prefill_tokens,
        pinned_blocks=report.pinned_blocks,
        stored=tuple(report.stored_blocks),
        removed=tuple(report.removed_blocks),
        residency_problem=report.residency_problem,
    )
