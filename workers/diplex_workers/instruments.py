"""What a worker measures by OpenTelemetry's GenAI conventions for model servers.

For those who collect metrics over OTLP; `/metrics` has the same figures. Without an SDK they go nowhere.
"""

from typing import Final

from opentelemetry import metrics

from diplex.wire import telemetry as words
from diplex_core.words import EndReason
from diplex_workers.sequence import Sequence, Verdict
from diplex_workers.settings import WorkerSettings

_WELL: Final = frozenset({EndReason.STOP, EndReason.LENGTH})


class Instruments:
    """An observer of ended sequences. `provider` None: the process's own."""

    def __init__(self, settings: WorkerSettings, provider: metrics.MeterProvider | None = None) -> None:
        meter = metrics.get_meter("diplex.worker", meter_provider=provider)
        self._ttft = meter.create_histogram(
            "gen_ai.server.time_to_first_token",
            "s",
            "From a start's arrival to its first token",
            explicit_bucket_boundaries_advisory=words.TTFT_BOUNDS,
        )
        self._tpot = meter.create_histogram(
            "gen_ai.server.time_per_output_token",
            "s",
            "Mean time per output token after the first",
            explicit_bucket_boundaries_advisory=words.TPOT_BOUNDS,
        )
        self._duration = meter.create_histogram(
            "gen_ai.server.request.duration",
            "s",
            "From a start's arrival to its last token",
            explicit_bucket_boundaries_advisory=words.DURATION_BOUNDS,
        )
        self._placement = {words.WORKER: settings.name, words.PATTERN: settings.pattern}

    def __call__(self, sequence: Sequence, verdict: Verdict) -> None:
        if sequence.ended is None:
            return
        attributes: dict[str, str | int] = {
            words.OPERATION: words.operation_of(sequence.prompt),
            words.PROVIDER: words.DIPLEX,
            words.MODEL: sequence.model,
            words.TIER: sequence.tier,
            **self._placement,
        }
        if verdict.reason in _WELL:
            # The conventions ask for these of successful responses only.
            if sequence.first_token is not None and sequence.resume is None:
                self._ttft.record(sequence.first_token - sequence.arrived, attributes)
            if (tpot := sequence.tpot) is not None:
                self._tpot.record(tpot, attributes)
        else:
            attributes[words.ERROR_TYPE] = verdict.reason.value
        self._duration.record(sequence.ended - sequence.arrived, attributes)
