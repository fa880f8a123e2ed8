"""A request's spans on the worker, children of its client's span: `prefill` and `decode`.

They are written when the request is over, from the moments that the sequence kept: nothing is opened or
closed on the token path.
"""

import time
from typing import Final

from opentelemetry import trace

from diplex.wire.context import parent_of
from diplex_core.words import EndReason, Seconds
from diplex_workers.sequence import Sequence, Verdict
from diplex_workers.settings import WorkerSettings

_BAD: Final = frozenset({EndReason.FAILED, EndReason.REFUSED})


class SpanWriter:
    """An observer of ended sequences. `provider` None: the process's own."""

    def __init__(self, settings: WorkerSettings, provider: trace.TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("diplex.worker", tracer_provider=provider)
        self._placement = {
            "diplex.worker": settings.name,
            "diplex.package": settings.package,
            "diplex.pattern": settings.pattern,
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
            "gen_ai.request.model": sequence.model,
            "diplex.request_id": sequence.request_id,
            "diplex.tier": sequence.tier,
        }
        prefill = self._tracer.start_span(
            "prefill", parent, start_time=wall(sequence.arrived), attributes=common
        )
        prefill.set_attribute("gen_ai.usage.input_tokens", sequence.prompt_tokens)
        prefill.set_attribute("diplex.ttft_ms", (read - sequence.arrived) * 1000)
        if first is None:
            _close(prefill, verdict, wall(read))
            return
        prefill.end(wall(read))
        decode = self._tracer.start_span("decode", parent, start_time=wall(first), attributes=common)
        decode.set_attribute("gen_ai.usage.output_tokens", sequence.produced)
        later = max(index - sequence.from_index for index in sequence.index) - 1
        if later > 0 and ended > first:
            decode.set_attribute("diplex.tpot_ms", (ended - first) / later * 1000)
            decode.set_attribute("diplex.tokens_per_second", later / (ended - first))
        _close(decode, verdict, wall(ended))


def _close(span: trace.Span, verdict: Verdict, when: int) -> None:
    span.set_attribute("gen_ai.response.finish_reasons", [verdict.reason.value])
    if verdict.reason in _BAD:
        message = verdict.problem.message if verdict.problem is not None else verdict.reason.value
        span.set_status(trace.StatusCode.ERROR, message)
    span.end(when)
