"""Looks at the fleet while a load runs: KV blocks in use, queues, and what the router's books say before and
after."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from types import MappingProxyType
from typing import Final

from diplex import AsyncClient
from diplex.errors import DiplexError
from diplex.v1 import router_pb2
from diplex_core.report import LedgerFigures, Outcome, Pool, WorkerFigures
from diplex_core.words import Pattern, Promise, Seconds, Target, Tier

EVERY: Final[Seconds] = 0.25
_SETTLES_WITHIN: Final[Seconds] = 10.0
_LOOK_EVERY: Final[Seconds] = 0.05


@dataclass(frozen=True, slots=True)
class Sample:
    """The fleet at one moment, on the clock of `perf_counter`.

    Attributes:
        blocks: in use, by worker: reserved, pinned, reclaiming and foreign ones.
        waiting: requests in queues; `running`: leases that are granted or run.
    """

    at: Seconds
    blocks: Mapping[str, int]
    waiting: int
    running: int


class Watch:
    """The fleet before, during and after a load.

    Args:
        model: workers that serve it are the report's.
    """

    def __init__(self, client: AsyncClient, before: router_pb2.Fleet, model: str) -> None:
        self._client = client
        self._before = before
        self._after = before
        self._model = model
        self.samples: list[Sample] = []

    async def run(self) -> None:
        """Sample until cancelled. A router that is being restarted leaves a gap."""
        while True:
            try:
                async for fleet in self._client.watch_fleet(EVERY):
                    self._note(fleet)
            except DiplexError:
                await asyncio.sleep(EVERY)

    async def settle(self) -> None:
        """Return once every lease is closed and no block is held, or ten seconds have passed."""
        deadline = perf_counter() + _SETTLES_WITHIN
        while True:
            try:
                self._after = await self._client.fleet()
            except DiplexError:
                pass  # what was seen last is what the report will say
            else:
                self._note(self._after)
                ledger = self.ledger()
                if ledger.leases_opened == ledger.leases_closed and not ledger.blocks_reserved_end:
                    return
            if perf_counter() > deadline:
                return
            await asyncio.sleep(_LOOK_EVERY)

    @property
    def restarted(self) -> bool:
        """The router is another one than before: its books began anew."""
        return self._after.epoch != self._before.epoch

    @property
    def time_scales(self) -> Mapping[str, float]:
        """Workers whose simulated time runs faster or slower than real time."""
        infos = [one.info for one in self._serving()]
        return {info.name: info.time_scale for info in infos if info.time_scale not in (0.0, 1.0)}

    def ledger(self) -> LedgerFigures:
        """What this load did to the router's books."""
        was = router_pb2.FleetLeases() if self.restarted else self._before.leases
        now = self._after.leases
        return LedgerFigures(
            leases_opened=now.opened - was.opened,
            leases_closed=now.closed - was.closed,
            blocks_reserved_end=sum(
                one.blocks.reserved + one.blocks.pinned + one.blocks.reclaiming for one in self._after.workers
            ),
            preempted=now.preempted - was.preempted,
            refused_by_worker=now.refused_by_worker - was.refused_by_worker,
            drift_max=now.drift_max,
            over_capacity=now.over_capacity - was.over_capacity,
        )

    def workers(
        self, outcomes: Sequence[Outcome], began: Seconds, ended: Seconds
    ) -> Mapping[str, WorkerFigures]:
        """Those that serve the model, with what this load's requests made of them."""
        served: dict[str, Counter[str]] = {}
        read: Counter[str] = Counter()
        for one in outcomes:
            if one.worker:
                served.setdefault(one.worker, Counter())[one.served_tier] += 1
                read[one.worker] += one.prompt_tokens - one.cached_tokens
        return {
            one.info.name: WorkerFigures(
                pattern=one.info.pattern,
                engine=one.info.engine,
                simulated=one.info.simulated,
                calibration=one.info.calibration or None,
                pool=self._pool(one, began, ended),
                requests_by_tier=dict(sorted(served.get(one.info.name, Counter()).items())),
                prefill_tokens=read[one.info.name],
            )
            for one in self._after.workers
            if one.info.name in served or one in self._serving()
        }

    def _serving(self) -> list[router_pb2.FleetWorker]:
        return [
            one for one in self._after.workers if self._model in (model.name for model in one.info.models)
        ]

    def _pool(self, worker: router_pb2.FleetWorker, began: Seconds, ended: Seconds) -> Pool:
        """The peak is the router's own where this load raised it, which no sample may have caught."""
        name = worker.info.name
        seen = [(sample.at, sample.blocks[name]) for sample in self.samples if name in sample.blocks]
        peaks = {one.info.name: one.blocks.peak for one in self._before.workers}
        raised = worker.blocks.peak if worker.blocks.peak > peaks.get(name, 0) else 0
        return Pool(
            capacity=worker.blocks.capacity,
            mean=mean_over(seen, began, ended),
            peak=max([raised, *(blocks for _, blocks in seen)]),
            end=held(worker.blocks),
        )

    def _note(self, fleet: router_pb2.Fleet) -> None:
        self._after = fleet
        self.samples.append(
            Sample(
                at=perf_counter(),
                blocks={one.info.name: held(one.blocks) for one in fleet.workers},
                waiting=sum(queue.waiting for queue in fleet.queues),
                running=fleet.leases.granted + fleet.leases.running + fleet.leases.between,
            )
        )


def held(blocks: router_pb2.PoolAccount) -> int:
    """Blocks of a pool that nobody else can have now."""
    return blocks.reserved + blocks.pinned + blocks.reclaiming + blocks.foreign


def mean_over(seen: Sequence[tuple[Seconds, float]], began: Seconds, ended: Seconds) -> float | None:
    """Mean over time of what was seen at some moments: each figure holds until the next one.

    >>> mean_over([(0, 10), (1, 30), (4, 5)], began=0, ended=5)
    21.0
    """
    inside = [(max(at, began), value) for at, value in seen if at < ended]
    if not inside or ended <= began:
        return None
    until = [at for at, _ in inside[1:]] + [ended]
    lasted = [(end - at, value) for (at, value), end in zip(inside, until, strict=True) if end > at]
    total = sum(time for time, _ in lasted)
    return sum(time * value for time, value in lasted) / total if total else None


def tier_of(tier: router_pb2.FleetTier) -> Tier:
    """A tier's promises in the core's words."""
    return Tier(
        name=tier.name,
        patterns=tuple(Pattern(pattern) for pattern in tier.patterns),
        promise=_promise_of(tier.promise),
        promises_by_model=MappingProxyType(
            {model: _promise_of(promise) for model, promise in tier.promises_by_model.items()}
        ),
        max_output_tokens=tier.max_output_tokens,
        priority=tier.priority,
        deadline=tier.deadline_s if tier.HasField("deadline_s") else None,
    )


def _promise_of(promise: router_pb2.TierPromise) -> Promise:
    ttft = promise.ttft_p95
    return Promise(
        ttft_p95=Target(ttft.base_ms / 1000, ttft.per_1k_prompt_tokens_ms / 1000)
        if promise.HasField("ttft_p95")
        else None,
        tpot_p95=promise.tpot_p95_ms / 1000 if promise.HasField("tpot_p95_ms") else None,
    )
