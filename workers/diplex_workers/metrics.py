"""The worker in Prometheus' text form: read from the account when asked, not counted twice."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from diplex.wire.telemetry import TPOT_BUCKETS, TTFT_BUCKETS
from diplex_workers.account import Account
from diplex_workers.engines.judge import KINDS, remarks_of
from diplex_workers.sequence import Sequence, Verdict


class WorkerMetrics:
    """All metrics of one worker; `text` makes the page."""

    def __init__(self, account: Account) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_AccountReader(account))
        self._ttft = Histogram(
            "diplex_ttft_seconds",
            "From a start's arrival at the worker to its first token",
            ("model", "tier"),
            buckets=TTFT_BUCKETS,
            registry=self._registry,
        )
        self._tpot = Histogram(
            "diplex_tpot_seconds",
            "Mean time per output token after the first, at the worker",
            ("model", "tier"),
            buckets=TPOT_BUCKETS,
            registry=self._registry,
        )
        account.observers.append(self._over)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def _over(self, sequence: Sequence, verdict: Verdict) -> None:
        if sequence.first_token is None:
            return
        labels = (sequence.model, sequence.tier)
        self._ttft.labels(*labels).observe(sequence.first_token - sequence.arrived)
        if (tpot := sequence.tpot) is not None:
            self._tpot.labels(*labels).observe(tpot)


class _AccountReader(Collector):
    def __init__(self, account: Account) -> None:
        self._account = account

    def collect(self) -> Iterator[Metric]:
        yield from self._gauges()
        yield from self._counters()
        info = self._account.info()
        yield InfoMetricFamily(
            "diplex_worker",
            "What the worker is",
            value={
                "worker": info.name,
                "package": info.package,
                "pattern": info.pattern,
                "engine": info.engine,
                "simulated": str(info.simulated).lower(),
                "calibration": info.calibration,
            },
        )

    def _gauges(self) -> Iterator[Metric]:
        account, pool = self._account, self._account.pool
        blocks = GaugeMetricFamily("diplex_kv_blocks", "KV blocks of the pool", labels=("state",))
        blocks.add_metric(("capacity",), pool.capacity)
        blocks.add_metric(("guard",), pool.guard)
        blocks.add_metric(("reserved",), pool.used_blocks)
        blocks.add_metric(("pinned",), pool.resident.pinned)
        blocks.add_metric(("cached",), pool.resident.cached)
        blocks.add_metric(("peak",), pool.peak_blocks)
        # A figure that the engine does not tell is absent, never zero.
        if (observed := account.engine.observed_blocks()) is not None:
            blocks.add_metric(("observed",), observed)
        yield blocks
        slots = GaugeMetricFamily("diplex_slots", "Sequences that may run at once", labels=("state",))
        slots.add_metric(("capacity",), pool.slots)
        slots.add_metric(("reserved",), pool.used_slots)
        slots.add_metric(("peak",), pool.peak_slots)
        if (running := account.engine.slots_now()) is not None:
            slots.add_metric(("observed",), running)
        yield slots
        yield GaugeMetricFamily("diplex_sequences", "Requests on the worker now", value=len(account.live))
        yield GaugeMetricFamily("diplex_links", "Routers linked now", value=len(account.feeds))
        yield GaugeMetricFamily("diplex_engine_ready", "1: the engine answers", value=not account.problem)
        yield from self._remarks()
        yield GaugeMetricFamily(
            "diplex_draining", "1: nothing new is taken", value=account.draining or bool(account.ailing)
        )

    def _remarks(self) -> Iterator[Metric]:
        """What the engine does by itself, where it tells."""
        remarks = remarks_of(self._account.engine)
        alarms = GaugeMetricFamily(
            "diplex_engine_alarm", "1: its engine does this by itself, or is wrong about it", labels=("kind",)
        )
        for kind in KINDS:
            alarms.add_metric((kind,), kind in remarks.alarms)
        yield alarms
        if remarks.waiting is not None:
            yield GaugeMetricFamily(
                "diplex_engine_waiting",
                "Requests that its engine keeps waiting by itself",
                value=remarks.waiting,
            )
        if remarks.preempted is not None:
            yield CounterMetricFamily(
                "diplex_engine_preemptions",
                "Requests that its engine stopped by itself since the worker attached to it",
                value=remarks.preempted,
            )

    def _counters(self) -> Iterator[Metric]:
        labels = ("model", "tier")
        output = CounterMetricFamily("diplex_output_tokens", "Tokens produced", labels=labels)
        prompt = CounterMetricFamily("diplex_prompt_tokens", "Prompt tokens of ended requests", labels=labels)
        ended = CounterMetricFamily("diplex_requests", "Ended requests", labels=(*labels, "reason"))
        for key, tally in self._account.tallies.items():
            output.add_metric(key, tally.output_tokens)
            prompt.add_metric(key, tally.prompt_tokens)
            for reason, times in tally.ended.items():
                ended.add_metric((*key, reason.value), times)
        yield from (output, prompt, ended)
        yield CounterMetricFamily(
            "diplex_refused", "Starts that were not taken on", value=self._account.refused
        )
