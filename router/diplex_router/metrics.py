"""The router's metrics in Prometheus' form, read from the core when somebody asks, never counted twice."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from diplex_core.admission import Admission
from diplex_core.lease import State


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
        for name, worker in self._admission.workers.items():
            up.add_metric([name], 0.0 if worker.trouble else 1.0)
            for family, axis in ((blocks, worker.ledger.blocks), (slots, worker.ledger.slots)):
                for state in ("capacity", "guard", "reserved", "pinned", "reclaiming", "foreign", "free"):
                    family.add_metric([name, state], getattr(axis, state))
            blocks.add_metric([name, "cached"], worker.ledger.cached)
            if worker.ledger.observed is not None:
                blocks.add_metric([name, "observed"], worker.ledger.observed)
        yield from (blocks, slots, up)

    def _queues_and_leases(self) -> Iterator[Metric]:
        admission = self._admission
        depth = GaugeMetricFamily("diplex_queue_depth", "Requests that wait", labels=["model", "tier"])
        for queue in admission.waiting.queues():
            depth.add_metric([queue.key.model, queue.key.tier], len(queue.places))
        yield depth
        decided = CounterMetricFamily("diplex_admission", "Decisions on asks", labels=["decision", "reason"])
        for (decision, reason), count in admission.outcomes.items():
            decided.add_metric([decision, reason], count)
        yield decided
        tokens = CounterMetricFamily("diplex_output_tokens", "Tokens produced, by worker", labels=["worker"])
        for name, worker in admission.workers.items():
            tokens.add_metric([name], worker.output_tokens)
        yield tokens
        states = admission.leases.by_state()
        leases = GaugeMetricFamily("diplex_leases", "Open leases by state", labels=["state"])
        for state in (State.WAITING, State.GRANTED, State.RUNNING, State.BETWEEN):
            leases.add_metric([state.name.lower()], states.get(state, 0))
        yield leases
        yield CounterMetricFamily("diplex_leases_opened", "Leases opened", value=admission.leases.opened)
        yield CounterMetricFamily("diplex_leases_closed", "Leases closed", value=admission.leases.closed)
        yield CounterMetricFamily(
            "diplex_over_capacity",
            "Moments in which a pool held more than it has: 0",
            value=admission.over_capacity,
        )
        ready = "1: the ledger is rebuilt and requests are admitted"
        yield GaugeMetricFamily("diplex_router_ready", ready, value=1.0 if admission.ready else 0.0)


class Metrics:
    """The text that `/metrics` and `GetMetrics` serve."""

    def __init__(self, admission: Admission) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(FleetCollector(admission))

    def text(self) -> bytes:
        return generate_latest(self._registry)
