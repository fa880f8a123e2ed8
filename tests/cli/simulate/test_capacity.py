"""What a fleet can take, by its own step times, is about what it does take when more comes."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from diplex_cli.simulate.fleet import Fleet
from diplex_cli.simulate.mix import mix_of
from diplex_cli.simulate.session import Simulated
from diplex_cli.simulate.streams import Request
from diplex_core.sim.capacity import Mix, capacity_of
from diplex_core.words import Pattern, Tier

MIX = Mix([1500], [1500], [200])


def only(fleet: Fleet, pattern: Pattern) -> Fleet:
    """Its workers of a pattern, and a tier for them that promises nothing and lets everybody wait."""
    tier = Tier("bulk", (pattern,), max_output_tokens=8192, max_queue_requests=10_000)
    workers = tuple(worker for worker in fleet.workers if worker.pattern is pattern)
    return Fleet(replace(fleet.rules, tiers={"bulk": tier}), workers, {})


@pytest.mark.parametrize("pattern", [Pattern.A, Pattern.C])
@pytest.mark.parametrize(
    "sizes", ["prompt=1500,output=200", "prompt=4000,output=50", "prompt=300,output=800"]
)
def test_a_fleet_serves_about_what_it_is_estimated_to_take(
    simulated: Callable[..., Simulated], fleet: Fleet, pattern: Pattern, sizes: str
):
    done = simulated(f"poisson:{sizes}", 300, only(fleet, pattern), load=2.0)
    served = done.report.tiers["bulk"].completed / done.report.duration
    assert served == pytest.approx(done.report.run["capacity_requests_per_s"], rel=0.15)


def test_a_fleet_takes_what_its_workers_take(fleet: Fleet):
    assert capacity_of(fleet.workers, MIX) == pytest.approx(sum(capacity_of([w], MIX) for w in fleet.workers))
    assert capacity_of([], MIX) == 0.0


def test_a_worker_whose_time_runs_ten_times_as_fast_takes_ten_times_as_much(fleet: Fleet):
    (worker, *_) = fleet.workers
    fast = capacity_of([replace(worker, time_scale=10.0)], MIX)
    assert fast == pytest.approx(10 * capacity_of([worker], MIX))


def test_what_prompts_share_is_read_once():
    requests = [Request(0.0, 100, 10, (1, 2)), Request(0.0, 100, 20, (1, 2)), Request(0.0, 100, 30, (1, 3))]
    mix = mix_of(requests, 32)
    assert (mix.read, mix.prompts, mix.outputs) == ([100, 36, 68], [100] * 3, [10, 20, 30])
