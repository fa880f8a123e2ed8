"""A request's spans in the router: `admit`, and inside it `queue` and `place`; children of whoever asked.

    client's span
    └ admit    from the ask to the answer: granted, refused, or neither
      ├ queue  from the ask to the step of the core that found room, or said that there is none
      └ place  that step: filters, scorers, the charge in the ledger

They are written when the request is over, from the moments that were noted: so `admit` also tells what became
of the grant, as the ledger saw it. A request that is asked for again has one `admit` for each time. Where no
OpenTelemetry SDK records, nothing is kept.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, StatusCode

from diplex.v1 import router_pb2
from diplex.wire import telemetry as words
from diplex.wire.context import parent_of, recording
from diplex_core.events import AskKey, Decision, Granted, Refusal, Refused, Revoked, Served
from diplex_core.words import EndReason, Seconds
from diplex_router.driver import Driver
from diplex_router.translate import reason_in_core

Attributes: TypeAlias = Mapping[str, str | bool | int | float | Sequence[str]]

_BAD: Final = frozenset({EndReason.FAILED, EndReason.REFUSED, EndReason.REVOKED})


@dataclass(slots=True)
class _Admission:
    """One ask, and what is known of it so far. Moments are on the driver's clock."""

    parent: Context
    kind: SpanKind
    request_id: str
    model: str
    tier: str
    asked: Seconds
    granted: Granted | None = None
    found: Seconds = 0.0  # when the step began that granted it
    answered: Seconds = 0.0


class AdmitSpans:
    """Hears of every ask and every decision, and writes the spans of those that are over.

    Args:
        clock: the driver's.
        provider: `None`: the process's own.
    """

    def __init__(
        self, driver: Driver, clock: Callable[[], Seconds], provider: trace.TracerProvider | None = None
    ) -> None:
        self._core = driver.admission
        self._clock = clock
        self._tracer = trace.get_tracer("diplex.router", tracer_provider=provider)
        self._open: dict[AskKey, _Admission] = {}
        self._key_of: dict[int, AskKey] = {}  # by lease, once granted
        if recording(provider):
            driver.on_ask.append(self._asked)
            driver.on_decision.append(self._decided)
            driver.on_tick.append(self._look_through)

    def _asked(self, key: AskKey, ask: router_pb2.Ask, proxied: bool) -> None:
        if ask.HasField("again"):
            lease, reason = ask.again.claim.lease_id, reason_in_core(ask.again.reason)
            self._over(self._key_of.get(lease, key), {words.FINISH_REASONS: [reason.value.lower()]})
        else:
            self._over(key)  # its session broke while it waited, and it asks anew
        self._open[key] = _Admission(
            parent_of(ask.traceparent, ask.tracestate),
            SpanKind.INTERNAL if proxied else SpanKind.SERVER,
            ask.request_id,
            ask.model,
            ask.tier,
            self._clock(),
        )

    def _decided(self, decision: Decision, now: Seconds) -> None:
        match decision:
            case Granted():
                if (admission := self._open.get(decision.key)) is not None:
                    admission.granted, admission.found = decision, now
                    admission.answered = self._clock()
                    self._key_of[decision.claim.lease_id] = decision.key
            case Refused() | Revoked():
                self._over(decision.key, refusal=decision.refusal)
            case Served():
                key = self._key_of.get(decision.claim.lease_id) if decision.claim is not None else None
                if key is not None:
                    self._over(key, _figures(decision), ended=decision.reason)
            case _:
                pass  # the rest is between the router and its workers

    def _look_through(self) -> None:
        """What ended without a word of the core's: its client withdrew it or left, or its worker was lost."""
        leases, workers = self._core.leases, self._core.workers
        for key, admission in list(self._open.items()):
            granted = admission.granted
            if granted is None:
                lease, lost = leases.at(key), False
            else:
                worker = workers[granted.worker.name]
                lease = leases.get(granted.claim.lease_id)
                lost = worker.given_up or worker.facts.boot != granted.worker.boot
            if lease is None and lost:
                self._over(key, ended=EndReason.FAILED)
            elif lease is None:
                self._over(key, {words.FINISH_REASONS: ["cancelled"]})

    def _over(
        self,
        key: AskKey,
        about: Attributes | None = None,
        *,
        refusal: Refusal | None = None,
        ended: EndReason | None = None,
    ) -> None:
        admission = self._open.pop(key, None)
        if admission is None:
            return
        granted = admission.granted
        if granted is not None:
            self._key_of.pop(granted.claim.lease_id, None)
        now, now_ns = self._clock(), time.time_ns()

        def wall(moment: Seconds) -> int:
            return now_ns - round((now - moment) * 1e9)

        asked = wall(admission.asked)
        found, answered = (wall(admission.found), wall(admission.answered)) if granted else (now_ns, now_ns)
        attributes: dict[str, str | bool | int | float | Sequence[str]] = {
            words.REQUEST_ID: admission.request_id,
            words.MODEL: admission.model,
            **({words.TIER: admission.tier} if admission.tier else {}),
            **(_placement(granted) if granted else {}),
            **(about or {}),
        }
        admit = self._tracer.start_span(
            "admit", admission.parent, admission.kind, attributes, start_time=asked
        )
        if admit.is_recording():
            inside = trace.set_span_in_context(admit, Context())
            self._tracer.start_span("queue", inside, start_time=asked).end(max(asked, found))
            if granted is not None:
                self._tracer.start_span("place", inside, start_time=found).end(answered)
            if refusal is not None:
                admit.set_attribute(words.ERROR_TYPE, refusal.why.value)
                admit.set_status(StatusCode.ERROR, refusal.message)
            elif ended in _BAD:
                admit.set_attribute(words.ERROR_TYPE, ended.value)
                admit.set_status(StatusCode.ERROR, f"the request ended {ended.value}")
        admit.end(answered)


def _placement(granted: Granted) -> Attributes:
    """Where it was placed, and what was promised."""
    about: dict[str, str | bool | int | float] = {
        words.WORKER: granted.worker.name,
        words.PACKAGE: granted.worker.package,
        words.PATTERN: granted.worker.pattern.value,
        words.ENGINE: granted.worker.engine,
        words.SIMULATED: granted.worker.simulated,
        words.TIER: granted.tier,
        words.TENANT: granted.tenant,
        words.BLOCKS: granted.blocks,
        words.ATTEMPT: granted.claim.attempt,
        words.QUEUE_MS: granted.queued * 1000,
    }
    if granted.predicted_ttft is not None:
        about[words.PREDICTED_TTFT_MS] = granted.predicted_ttft * 1000
    if granted.degraded_from:
        about[words.DEGRADED_FROM] = granted.degraded_from
    return about


def _figures(served: Served) -> Attributes:
    """What became of the promise."""
    about: dict[str, str | bool | int | float | Sequence[str]] = {
        words.INPUT_TOKENS: served.prompt_tokens,
        words.OUTPUT_TOKENS: served.output_tokens,
        words.FINISH_REASONS: [served.reason.value.lower()],
        words.SLO_MET: served.met,
    }
    if served.ttft is not None:
        about[words.TTFT_MS] = served.ttft * 1000
        if served.predicted_ttft is not None:
            about[words.TTFT_ERROR] = served.ttft - served.predicted_ttft
    if served.tpot is not None:
        about[words.TPOT_MS] = served.tpot * 1000
        if served.tpot > 0:
            about[words.TOKENS_PER_SECOND] = 1 / served.tpot
    return about
