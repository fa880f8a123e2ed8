"""The router's metrics in Prometheus' form: what the core counts is read from it when somebody asks, never
counted twice; what became of each request's promise is counted as the core tells it."""

from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from diplex.wire.telemetry import TPOT_BUCKETS, TTFT_BUCKETS
from diplex_core.admission import Admission
from diplex_core.events import Decision, Refused, Served
from diplex_core.lease import State
from diplex_core.words import Seconds

_QUEUE_BUCKETS: Final = (
    0.001, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip
_ERROR_BUCKETS: Final = (
    -10.0, -3.0, -1.0, -0.3, -0.1, -0.03, -0.01, -0.003, 0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0,
)  # fmt: skip


class FleetCollector:
    """Turns an `Admission` into metric families."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def collect(self) -> Iterator[Metric]:
        yield from self._pools()
        yield from self._queues_and_leases()

    def _pools(self) -> Iterator[Metric]:
        blocks = GaugeMetricFamily(
            "diplex_kv_blocks", "KV blocks of a pool by state", labels=["worker", "state"]
        )
        slots = GaugeMetricFamily(
            "diplex_slots", "Sequence slots of a pool by state", labels=["worker", "state"]
        )
        up = GaugeMetricFamily("diplex_worker_up", "1: linked, and its engine answers", labels=["worker"])
        wanted = GaugeMetricFamily(
            "diplex_kv_wanted_blocks", "KV blocks by which claims wait to grow", labels=["worker"]
        )
        blind = GaugeMetricFamily(
            "diplex_residency_problem",
            "1: what a worker says of resident prefix blocks cannot be believed now",
            labels=["worker"],
        )
        drift = GaugeMetricFamily(
            "diplex_kv_drift_blocks",
            "KV blocks by which a worker's last full report and the ledger differed",
            labels=["worker"],
        )
        for name, worker in self._admission.workers.items():
            up.add_metric([name], 0.0 if worker.trouble else 1.0)
            wanted.add_metric([name], worker.ledger.wanted)
            drift.add_metric([name], worker.drift)
            blind.add_metric([name], 1.0 if worker.residency_problem else 0.0)
            for family, axis in ((blocks, worker.ledger.blocks), (slots, worker.ledger.slots)):
                for state in ("capacity", "guard", "reserved", "pinned", "reclaiming", "foreign", "free"):
                    family.add_metric([name, state], getattr(axis, state))
            blocks.add_metric([name, "cached"], worker.ledger.cached)
            if worker.ledger.observed is not None:
                blocks.add_metric([name, "observed"], worker.ledger.observed)
        yield from (blocks, slots, wanted, drift, blind, up)

    def _queues_and_leases(self) -> Iterator[Metric]:
        admission = self._admission
        depth = GaugeMetricFamily("diplex_queue_depth", "Requests that wait", labels=["model", "tier"])
        # Zero where nobody waits; tenants with packages of their own wait in queues of their own.
        rules = admission.rules
        waiting = dict.fromkeys(((model, tier) for model in sorted(rules.models) for tier in rules.tiers), 0)
        for queue in admission.waiting.queues():
            key = (queue.key.model, queue.key.tier)
            waiting[key] = waiting.get(key, 0) + len(queue)
        for key, requests in waiting.items():
            depth.add_metric(key, requests)
        yield depth
        decided = CounterMetricFamily("diplex_admission", "Decisions on asks", labels=["decision", "reason"])
        for (decision, reason), count in admission.outcomes.items():
            decided.add_metric([decision, reason], count)
        yield decided
        sizes = CounterMetricFamily(
            "diplex_block_size_mismatches",
            "Requests whose prompt was hashed in blocks of another size than the worker's",
            labels=["worker"],
        )
        tokens = CounterMetricFamily("diplex_output_tokens", "Tokens produced, by worker", labels=["worker"])
        for name, worker in admission.workers.items():
            tokens.add_metric([name], worker.output_tokens)
            sizes.add_metric([name], worker.mismatched)
        yield from (tokens, sizes)
        states = admission.leases.by_state()
        leases = GaugeMetricFamily("diplex_leases", "Open leases by state", labels=["state"])
        for state in (State.WAITING, State.GRANTED, State.RUNNING, State.BETWEEN):
            leases.add_metric([state.name.lower()], states.get(state, 0))
        yield leases
        yield CounterMetricFamily("diplex_leases_opened", "Leases opened", value=admission.leases.opened)
        yield CounterMetricFamily("diplex_leases_closed", "Leases closed", value=admission.leases.closed)
        yield CounterMetricFamily(
            "diplex_preempted", "Requests that gave way to others", value=admission.preempted
        )
        yield CounterMetricFamily(
            "diplex_over_capacity",
            "Moments in which a pool held more than it has: 0",
            value=admission.over_capacity,
        )
        failures = CounterMetricFamily(
            "diplex_rule_failures", "Placement rules of other packages that failed", labels=["kind", "rule"]
        )
        for (kind, rule), count in admission.rule_failures.items():
            failures.add_metric([kind, rule], count)
        yield failures
        ready = "1: the ledger is rebuilt and requests are admitted"
        yield GaugeMetricFamily("diplex_router_ready", ready, value=1.0 if admission.ready else 0.0)


class Metrics:
    """The text that `/metrics` and `GetMetrics` serve. `served` is to hear of every request that ran."""

    def __init__(self, admission: Admission) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(FleetCollector(admission))
        self._ttft = self._histogram("diplex_ttft_seconds", "From ask to first token", TTFT_BUCKETS)
        self._tpot = self._histogram(
            "diplex_tpot_seconds", "Mean time per output token after the first", TPOT_BUCKETS
        )
        self._queue = self._histogram("diplex_queue_seconds", "From ask to grant", _QUEUE_BUCKETS)
        self._error = self._histogram(
            "diplex_prediction_ttft_error_seconds",
            "TTFT less what was predicted at the grant; below zero: sooner",
            _ERROR_BUCKETS,
        )
        self._slo = Counter(
            "diplex_slo",
            "Requests, by whether they met every target of the tier asked for; turned away: they did not",
            ("model", "tier", "met"),
            registry=self._registry,
        )

    def served(self, served: Served) -> None:
        """A request that ran is over. Its tier is the one that was asked for, also where it was degraded."""
        labels = (served.model, served.degraded_from or served.tier)
        self._queue.labels(*labels).observe(served.queued)
        if served.ttft is not None:
            self._ttft.labels(*labels).observe(served.ttft)
            if served.predicted_ttft is not None:
                self._error.labels(*labels).observe(served.ttft - served.predicted_ttft)
        if served.tpot is not None:
            self._tpot.labels(*labels).observe(served.tpot)
        self._slo.labels(*labels, str(served.met).lower()).inc()

    def decided(self, decision: Decision, began: Seconds) -> None:
        """A request that was turned away for want of room or time has not had its promise kept."""
        if isinstance(decision, Refused) and decision.tier and decision.refusal.retry_after is not None:
            self._slo.labels(decision.model, decision.tier, "false").inc()

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def _histogram(self, name: str, says: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(name, says, ("model", "tier"), buckets=buckets, registry=self._registry)
