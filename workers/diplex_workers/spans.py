"""A request's spans on the worker, children of its client's span: `prefill` and `decode`.

They are written when the request is over, from the moments that the sequence kept: nothing is opened or
closed on the token path.
"""

import time
from typing import Final

from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from diplex.wire import telemetry as words
from diplex.wire.context import parent_of
from diplex_core.words import EndReason, Seconds
from diplex_workers.sequence import Sequence, Verdict
from diplex_workers.settings import WorkerSettings

_BAD: Final = frozenset({EndReason.FAILED, EndReason.REFUSED, EndReason.REVOKED})


class SpanWriter:
    """An observer of ended sequences. `provider` None: the process's own."""

    def __init__(self, settings: WorkerSettings, provider: trace.TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("diplex.worker", tracer_provider=provider)
        self._placement = {
            words.WORKER: settings.name,
            words.PACKAGE: settings.package,
            words.PATTERN: settings.pattern,
        }

    def __call__(self, sequence: Sequence, verdict: Verdict) -> None:
        if sequence.ended is None:
            return
        ended, now_ns = sequence.ended, time.time_ns()

        def wall(moment: Seconds) -> int:
            return now_ns - round((ended - moment) * 1e9)

        first = sequence.first_token
        read = ended if first is None else first
        parent = parent_of(sequence.traceparent, sequence.tracestate)
        common: dict[str, str | int | float] = {
            **self._placement,
            words.OPERATION: words.operation_of(sequence.prompt),
            words.PROVIDER: words.DIPLEX,
            words.MODEL: sequence.model,
            words.REQUEST_ID: sequence.request_id,
            words.TIER: sequence.tier,
            words.ATTEMPT: sequence.claim.attempt,
        }
        prefill = self._tracer.start_span(
            "prefill", parent, SpanKind.SERVER, common, start_time=wall(sequence.arrived)
        )
        prefill.set_attribute(words.INPUT_TOKENS, sequence.prompt_tokens)
        prefill.set_attribute(words.CACHED_TOKENS, sequence.cached_tokens)
        if sequence.prefill_began is not None:
            # Before that it was counted, and waited for the engine.
            prefill.add_event("reading", timestamp=wall(sequence.prefill_began))
        if first is None:
            _close(prefill, verdict, wall(read))
            return
        prefill.set_attribute(words.TTFT_MS, (first - sequence.arrived) * 1000)
        prefill.end(wall(read))
        decode = self._tracer.start_span("decode", parent, SpanKind.SERVER, common, start_time=wall(first))
        decode.set_attribute(words.OUTPUT_TOKENS, sequence.produced)
        if (tpot := sequence.tpot) is not None:
            decode.set_attribute(words.TPOT_MS, tpot * 1000)
            decode.set_attribute(words.TOKENS_PER_SECOND, 1 / tpot)
        _close(decode, verdict, wall(ended))


def _close(span: trace.Span, verdict: Verdict, when: int) -> None:
    span.set_attribute(words.FINISH_REASONS, [verdict.reason.value.lower()])
    if verdict.reason in _BAD:
        problem = verdict.problem
        span.set_attribute(words.ERROR_TYPE, problem.reason if problem is not None else verdict.reason.value)
        span.set_status(StatusCode.ERROR, problem.message if problem is not None else verdict.reason.value)
    span.end(when)
