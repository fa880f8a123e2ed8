"""Overload in virtual time: what interactive requests keep beside a flood of bulk, and what the time is worth
that a refusal tells. The whole minute, on two fleets, is benchmarks/overload."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp
from random import Random

import pytest

from diplex_cli import reader
from diplex_core.config.values import SimConfig
from diplex_core.events import WorkerFacts
from diplex_core.report.outcome import Outcome
from diplex_core.sim.arrivals import Arrival
from diplex_core.sim.capacity import Mix, capacity_of
from diplex_core.sim.facts import facts_of
from diplex_core.sim.simulation import TICK, Simulation
from diplex_core.words import Pattern, Rules, Seconds

SIZES = {"interactive": (900, 120), "bulk": (2_400, 380)}
BOUND: Seconds = 8.0


@dataclass
class Fleet:
    rules: Rules
    workers: list[WorkerFacts]

    def load(self, tier: str, share: float, seconds: Seconds, seed: int) -> list[Arrival]:
        """So many times what the workers of this tier can take, for so long."""
        luck = Random(f"{tier} {seed}")
        prompt, answer = SIZES[tier]
        drawn = [
            (round(prompt * exp(luck.gauss(0, 0.6))), round(answer * exp(luck.gauss(0, 0.5))))
            for _ in range(500)
        ]
        prompts, answers = [p for p, _ in drawn], [a for _, a in drawn]
        able = [facts for facts in self.workers if facts.pattern in self.rules.tiers[tier].patterns]
        rate = share * capacity_of(able, Mix(prompts, prompts, answers))
        arrivals, at = list[Arrival](), 0.0
        while (at := at + luck.expovariate(rate)) < seconds:
            arrivals.append(Arrival(at, *drawn[len(arrivals) % 500], tier))
        return arrivals

    def run(self, *loads: list[Arrival]) -> "Ran":
        simulation = Simulation(self.rules, self.workers, message=0.0005, retry=True)
        ran = Ran(self.rules, [], 0.0)

        def look(now: Seconds, told: int) -> None:
            waited = [now - queue.oldest for queue in simulation.admission.waiting.queues()]
            ran.longest = max([ran.longest, *waited])

        arrivals = sorted((one for load in loads for one in load), key=lambda one: one.at)
        simulation.run(arrivals, ran.outcomes.append, look)
        assert simulation.admission.leases.opened == simulation.admission.leases.closed
        return ran


@dataclass
class Ran:
    rules: Rules
    outcomes: list[Outcome]
    longest: Seconds

    def attained(self, tier: str) -> float:
        mine = [one for one in self.outcomes if one.tier == tier]
        return sum(one.met(self.rules.tiers[tier]) for one in mine) / len(mine)

    @property
    def succeeded(self) -> Sequence[bool]:
        """Of those who were refused and came back when they were told."""
        return [one.completed for one in self.outcomes if one.retry_obeyed]


def fleet(kind: str) -> Fleet:
    config = reader.read([]).config()
    workers = [facts_of(worker) for worker in config.workers if isinstance(worker.engine, SimConfig)]
    tiers = dict(config.rules.tiers)
    tiers["bulk"] = replace(tiers["bulk"], max_queue=BOUND, max_queue_requests=64)
    if kind == "shared":
        a = next(facts for facts in workers if facts.pattern is Pattern.A)
        workers = [replace(a, name=name, package=name) for name in ("a0", "a1")]
        tiers["interactive"] = replace(tiers["interactive"], patterns=(Pattern.A,))
    return Fleet(replace(config.rules, tiers=tiers), workers)


@pytest.mark.parametrize("kind", ["apart", "shared"])
def test_a_flood_of_bulk_costs_interactive_requests_nothing_that_they_were_promised(kind: str) -> None:
    there = fleet(kind)
    interactive, bulk = there.load("interactive", 0.2, 20.0, 3), there.load("bulk", 2.8, 20.0, 3)
    alone, beside = there.run(interactive), there.run(interactive, bulk)
    assert alone.attained("interactive") > 0.95
    assert beside.attained("interactive") >= alone.attained("interactive") - 0.02
    assert BOUND - 1.0 < beside.longest <= BOUND + TICK, "who waits is answered at its bound"
    assert len(beside.succeeded) > 50
    assert sum(beside.succeeded) >= 0.8 * len(beside.succeeded)


@pytest.mark.parametrize("share", [1.2, 2.0])
def test_interactive_requests_that_are_too_many_succeed_when_they_come_back_as_told(share: float) -> None:
    there = fleet("shared")
    ran = there.run(there.load("interactive", share, 15.0, 1))
    assert len(ran.succeeded) > 100
    assert sum(ran.succeeded) >= 0.8 * len(ran.succeeded)


def test_every_refusal_for_want_of_room_says_when_to_come_back() -> None:
    there = fleet("shared")
    ran = there.run(there.load("interactive", 1.0, 10.0, 2), there.load("bulk", 2.8, 10.0, 2))
    refused = [one for one in ran.outcomes if one.problem or one.retry_given]
    assert refused
    assert all(one.retry_given for one in refused)
