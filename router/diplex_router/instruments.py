"""What only the router can measure, for those who collect metrics over OTLP; without an SDK it goes nowhere.

`/metrics` has the same figures, and more. What OpenTelemetry's conventions ask of a model server, the workers
measure.
"""

from opentelemetry import metrics

from diplex.wire import telemetry as words
from diplex_core.events import Served


class Instruments:
    """Hears of every request that ran. `provider` None: the process's own."""

    def __init__(self, provider: metrics.MeterProvider | None = None) -> None:
        meter = metrics.get_meter("diplex.router", meter_provider=provider)
        self._queue = meter.create_histogram(
            "diplex.queue.duration",
            "s",
            "From ask to grant",
            explicit_bucket_boundaries_advisory=words.TTFT_BOUNDS,
        )
        self._error = meter.create_histogram(
            words.TTFT_ERROR,
            "s",
            "How far TTFT was from what was predicted at the grant",
            explicit_bucket_boundaries_advisory=words.TTFT_BOUNDS,
        )

    def __call__(self, served: Served) -> None:
        attributes: dict[str, str] = {
            words.MODEL: served.model,
            words.TIER: served.degraded_from or served.tier,
            words.WORKER: served.worker.name,
            words.PATTERN: served.worker.pattern.value,
        }
        self._queue.record(served.queued, attributes)
        if served.ttft is not None and served.predicted_ttft is not None:
            error = served.ttft - served.predicted_ttft
            # OpenTelemetry's histograms take nothing below zero.
            self._error.record(abs(error), {**attributes, "diplex.prediction.late": error > 0})
