"""What the router shows of itself: the fleet, its queues and leases, and the models it serves."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2
from diplex_core.admission import Admission
from diplex_core.fleet import Worker
from diplex_core.lease import State
from diplex_core.ledger import UNBOUNDED, Axis
from diplex_core.words import Promise, Seconds, Tier
from diplex_router.settings import WorkerSpec

# Before any worker has said better: each byte a token, which no byte-level tokenizer exceeds.
_UNLEARNED: Final = pb.CountBound(bytes_per_token=1.0, tokens_per_message=16.0, tokens_per_chat=32.0)


class View:
    """Reads, never changes. `infos` are the workers' last words of themselves, by name."""

    def __init__(
        self,
        router: str,
        admission: Admission,
        specs: Iterable[WorkerSpec],
        infos: Mapping[str, pb.WorkerInfo],
        started: Seconds,
    ) -> None:
        self._router = router
        self._admission = admission
        self._specs = {spec.name: spec for spec in specs}
        self._infos = infos
        self._started = started

    def fleet(self, now: Seconds) -> router_pb2.Fleet:
        admission = self._admission
        return router_pb2.Fleet(
            router=self._router,
            epoch=admission.epoch,
            ready=admission.ready,
            workers=[self._worker(worker, now) for worker in admission.workers.values()],
            queues=[
                router_pb2.FleetQueue(
                    model=queue.key.model,
                    tier=queue.key.tier,
                    waiting=len(queue),
                    oldest_s=now - queue.oldest,
                )
                for queue in admission.waiting.queues()
            ],
            leases=self._leases(),
            uptime_s=now - self._started,
            tiers=[tier_on_wire(tier) for tier in admission.rules.tiers.values()],
            default_tier=admission.rules.default_tier,
            default_model=admission.rules.default_model,
            rules_version=admission.rules_version,
        )

    def _leases(self) -> router_pb2.FleetLeases:
        admission = self._admission
        states = admission.leases.by_state()
        return router_pb2.FleetLeases(
            opened=admission.leases.opened,
            closed=admission.leases.closed,
            waiting=states.get(State.WAITING, 0),
            granted=states.get(State.GRANTED, 0),
            running=states.get(State.RUNNING, 0),
            between=states.get(State.BETWEEN, 0),
            adopted=admission.leases.adopted,
            refused_by_worker=admission.refused_by_worker,
            over_capacity=admission.over_capacity,
            preempted=admission.preempted,
            drift_max=admission.drift_max,
        )

    def _worker(self, worker: Worker, now: Seconds) -> router_pb2.FleetWorker:
        blocks = account(worker.ledger.blocks)
        blocks.cached = worker.ledger.cached
        blocks.peak = max(blocks.peak, worker.peak_blocks)
        if worker.ledger.observed is not None:
            blocks.observed = worker.ledger.observed
        slots = account(worker.ledger.slots)
        slots.peak = max(slots.peak, worker.peak_slots)
        shown = router_pb2.FleetWorker(
            info=self._infos.get(worker.name) or self._expected(worker.name),
            state=worker.state,
            problem=worker.trouble,
            blocks=blocks,
            slots=slots,
            leases=len(worker.ledger),
            requests=worker.requests,
            refused=worker.refused,
            output_tokens=worker.output_tokens,
            prefill_tokens=account(worker.ledger.prefill),
            requests_by_tier=worker.requests_by_tier,
            residency_problem=worker.residency_problem,
            wanted_blocks=worker.ledger.wanted,
            drift_blocks=worker.drift,
            drift_alarm=worker.drift_alarm,
            engine_alarm=worker.engine_alarm,
        )
        if worker.reported_at is not None:
            shown.report_age_s = now - worker.reported_at
        return shown

    def _expected(self, name: str) -> pb.WorkerInfo:
        """A worker that has not spoken yet, as the configuration has it."""
        spec = self._specs[name]
        models = [pb.Model(name=model) for model in spec.models]
        return pb.WorkerInfo(
            name=name,
            package=spec.package,
            pattern=spec.pattern,
            models=models,
            address=spec.address,
            tiers=spec.tiers,
        )

    def models(self) -> router_pb2.RouterListModelsResponse:
        rules = self._admission.rules
        return router_pb2.RouterListModelsResponse(
            models=[self._model(name) for name in sorted(rules.models)],
            default_model=rules.default_model,
            default_tier=rules.default_tier,
            tiers=list(rules.tiers),
        )

    @property
    def default_model(self) -> str:
        return self._admission.rules.default_model

    def model(self, name: str) -> pb.Model:
        """What clients are told of a model, "" being the default one."""
        return self._model(name or self.default_model)

    def _model(self, name: str) -> pb.Model:
        """One model over all its workers: the roomiest context, and the bound that holds on each of them."""
        serving = [
            (info, model) for info in self._infos.values() for model in info.models if model.name == name
        ]
        workers = self._admission.workers
        up = sum(1 for info, _ in serving if not workers[info.name].trouble)
        bounds = [model.bound for _, model in serving if model.HasField("bound")]
        hashes = {model.tokenizer_hash for _, model in serving}
        sizes = Counter(info.block_tokens for info, _ in serving)
        return pb.Model(
            name=name,
            context=max((info.context for info, _ in serving), default=0),
            simulated=any(info.simulated for info, _ in serving),
            has_chat_template=all(model.has_chat_template for _, model in serving),
            tokenizer_hash=hashes.pop() if len(hashes) == 1 else "",
            bound=pb.CountBound(
                bytes_per_token=min(bound.bytes_per_token for bound in bounds),
                tokens_per_message=max(bound.tokens_per_message for bound in bounds),
                tokens_per_chat=max(bound.tokens_per_chat for bound in bounds),
            )
            if bounds
            else _UNLEARNED,
            workers=up,
            block_tokens=max(sizes, key=lambda size: (sizes[size], -size), default=0),
        )


def account(axis: Axis) -> router_pb2.PoolAccount:
    """One axis; of one without a bound neither capacity nor room is told."""
    bounded = axis.capacity != UNBOUNDED
    return router_pb2.PoolAccount(
        capacity=axis.capacity if bounded else 0,
        guard=axis.guard,
        reserved=axis.reserved,
        pinned=axis.pinned,
        reclaiming=axis.reclaiming,
        foreign=axis.foreign + axis.stray,
        free=axis.free if bounded else 0,
        peak=axis.peak,
    )


def tier_on_wire(tier: Tier) -> router_pb2.FleetTier:
    """What a tier promises and who may serve it, in the milliseconds of the wire."""
    shown = router_pb2.FleetTier(
        name=tier.name,
        patterns=[pattern.value for pattern in tier.patterns],
        promise=_promise_on_wire(tier.promise),
        promises_by_model={
            model: _promise_on_wire(promise) for model, promise in tier.promises_by_model.items()
        },
        max_output_tokens=tier.max_output_tokens,
        priority=tier.priority,
        when_late=tier.when_late.value,
    )
    if tier.deadline is not None:
        shown.deadline_s = tier.deadline
    return shown


def _promise_on_wire(promise: Promise) -> router_pb2.TierPromise:
    shown = router_pb2.TierPromise()
    if (ttft := promise.ttft_p95) is not None:
        shown.ttft_p95.base_ms = ttft.base * 1000
        shown.ttft_p95.per_1k_prompt_tokens_ms = ttft.per_1k_prompt_tokens * 1000
    if promise.tpot_p95 is not None:
        shown.tpot_p95_ms = promise.tpot_p95 * 1000
    return shown
