"""What the fleet's own words become in the report."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2
from diplex_cli.replay.watch import Sample, Watch, mean_over, tier_of
from diplex_core.report import Ending, LedgerFigures, Outcome
from diplex_core.words import Pattern, Promise, Target, Tier


def worker(name: str = "pkg0", model: str = "m", **blocks: int) -> router_pb2.FleetWorker:
    info = pb.WorkerInfo(
        name=name,
        pattern="C",
        engine="sim",
        simulated=True,
        calibration="chapter",
        models=[pb.Model(name=model)],
    )
    return router_pb2.FleetWorker(info=info, blocks=router_pb2.PoolAccount(capacity=1000, **blocks))


def fleet(*workers: router_pb2.FleetWorker, epoch: int = 1, **leases: int) -> router_pb2.Fleet:
    return router_pb2.Fleet(epoch=epoch, workers=workers, leases=router_pb2.FleetLeases(**leases))


def watched(before: router_pb2.Fleet, *seen: router_pb2.Fleet) -> Watch:
    class Client:
        async def fleet(self) -> router_pb2.Fleet:
            return seen[-1]

    watch = Watch(Client(), before, "m")  # type: ignore[arg-type]
    for one in seen:
        watch._note(one)
    return watch


def served(worker: str, tier: str = "bulk") -> Outcome:
    return Outcome("r", "m", tier, 0.0, Ending.COMPLETED, served_tier=tier, worker=worker)


@pytest.mark.parametrize(
    ("seen", "mean"),
    [
        ([], None),
        ([(0.0, 10)], 10.0),
        ([(0.0, 10), (5.0, 30)], 20.0),
        ([(-5.0, 10), (5.0, 30)], 20.0),  # what was seen before holds from the beginning on
        ([(0.0, 10), (9.0, 30), (12.0, 99)], 12.0),
    ],
)
def test_a_mean_over_time_lets_each_figure_hold_until_the_next(
    seen: list[tuple[float, float]], mean: float | None
):
    assert mean_over(seen, began=0.0, ended=10.0) == mean


def test_no_time_has_no_mean():
    assert mean_over([(0.0, 10)], began=1.0, ended=1.0) is None


def test_blocks_in_use_are_all_that_nobody_else_can_have_now():
    watch = watched(fleet(worker()), fleet(worker(reserved=1, pinned=2, reclaiming=4, foreign=8)))
    assert watch.samples[0].blocks == {"pkg0": 15}


@pytest.mark.parametrize(
    ("before", "after", "peak"),
    [
        (0, 70, 70),  # the router saw more than any sample did
        (500, 500, 40),  # its peak is of an earlier load
        (0, 0, 40),
    ],
)
def test_a_pools_peak_is_this_loads_alone(before: int, after: int, peak: int):
    watch = watched(fleet(worker(peak=before)), fleet(worker(reserved=40)), fleet(worker(peak=after)))
    assert watch.workers([], 0.0, 1.0)["pkg0"].pool.peak == peak


def test_the_books_count_this_load_alone():
    common = {"refused_by_worker": 7, "over_capacity": 1}
    before = fleet(worker(), opened=100, closed=100, preempted=5, drift_max=3, **common)
    end = worker(reserved=2, pinned=3, reclaiming=4, foreign=99)
    watch = watched(before, fleet(end, opened=150, closed=149, preempted=6, drift_max=9, **common))
    assert watch.ledger() == LedgerFigures(50, 49, 9, 1, 0, 9, 0)


def test_a_router_that_was_restarted_began_its_books_anew():
    watch = watched(fleet(worker(), opened=100, closed=100), fleet(worker(), epoch=2, opened=7, closed=7))
    assert watch.restarted
    assert (watch.ledger().leases_opened, watch.ledger().leases_closed) == (7, 7)


async def test_it_has_settled_once_every_lease_is_closed_and_nothing_is_held():
    watch = watched(
        fleet(worker()), fleet(worker(reserved=4), opened=2, closed=1), fleet(worker(), opened=2, closed=2)
    )
    await watch.settle()
    assert watch.ledger().wrong == ()


def test_a_worker_is_shown_if_it_serves_the_model_and_counts_the_requests_that_it_served():
    watch = watched(
        fleet(worker(), worker("pkg1"), worker("cpu0", "small")),
        fleet(worker(), worker("pkg1"), worker("cpu0", "small")),
    )
    workers = watch.workers([served("pkg0"), served("pkg0", "interactive"), served("pkg0")], 0.0, 1.0)
    assert {name: one.requests_by_tier for name, one in workers.items()} == {
        "pkg0": {"bulk": 2, "interactive": 1},
        "pkg1": {},
    }
    assert (workers["pkg0"].pattern, workers["pkg0"].simulated, workers["pkg0"].calibration) == (
        "C",
        True,
        "chapter",
    )


def test_a_tiers_promises_come_over_the_wire_in_seconds():
    def promise(base: float, per_1k: float, tpot: float) -> router_pb2.TierPromise:
        ttft = router_pb2.TtftTarget(base_ms=base, per_1k_prompt_tokens_ms=per_1k)
        return router_pb2.TierPromise(ttft_p95=ttft, tpot_p95_ms=tpot)

    shown: dict[str, Any] = {"patterns": ["C", "A"], "max_output_tokens": 1024, "priority": 100}
    told = router_pb2.FleetTier(
        name="interactive",
        promise=promise(40, 45, 8),
        promises_by_model={"small": promise(3000, 0, 150)},
        deadline_s=600,
        **shown,
    )
    assert tier_of(told) == Tier(
        "interactive",
        (Pattern.C, Pattern.A),
        Promise(Target(0.04, 0.045), 0.008),
        max_output_tokens=1024,
        priority=100,
        deadline=600.0,
        promises_by_model=MappingProxyType({"small": Promise(Target(3.0), 0.15)}),
    )


def test_what_a_tier_does_not_promise_is_no_promise():
    tier = tier_of(router_pb2.FleetTier(name="bulk", patterns=["A"], promise=router_pb2.TierPromise()))
    assert (tier.promise, tier.deadline) == (Promise(), None)


def test_a_sample_counts_what_waits_and_what_runs():
    seen = fleet(worker(), granted=1, running=2, between=4)
    seen.queues.add(waiting=3)
    seen.queues.add(waiting=5)
    (sample,) = watched(fleet(worker()), seen).samples
    assert isinstance(sample, Sample)
    assert (sample.waiting, sample.running) == (8, 7)


def test_what_a_worker_had_to_read_is_its_requests_prompts_without_what_was_resident():
    watch = watched(fleet(worker()), fleet(worker()))
    outcomes = [replace(served("pkg0"), prompt_tokens=900, cached_tokens=cached) for cached in (0, 512)]
    assert watch.workers(outcomes, 0.0, 1.0)["pkg0"].prefill_tokens == 900 + 388
