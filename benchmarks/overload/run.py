"""Overload for a minute, and what becomes of those who are promised something: a table.

    .venv/bin/python benchmarks/overload/run.py

Interactive requests come at 20 % of what the fleet can take of them, bulk at 280 % of what it can take of
that (`diplex_core.sim.capacity`). Interactive alone first, then both; and then interactive requests alone at
twice what the fleet can take. Whoever is refused comes back exactly when the refusal says, once. Two fleets:
in one, pattern C is there for interactive requests alone and A is shared; in the other both tiers run on the
same A pools and nowhere else. Bulk waits 30 s and 256 in number at most. The core and the simulated engines
run on a virtual clock: the figures are the `chapter` calibration's, no GPU made them.

Columns: `in time` is what was granted within the overload, as a share of what the fleet could take of that
tier alone; `TTFT p95` counts from the first asking; `waited` is the longest that anybody waited in the queue;
`given` are refusals with a time to come back, `obeyed` and `succeeded` what came of those times.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp
from random import Random

from diplex_cli import reader
from diplex_core.config.values import SimConfig
from diplex_core.events import WorkerFacts
from diplex_core.report.collector import Collector
from diplex_core.sim.arrivals import Arrival
from diplex_core.sim.capacity import Mix, capacity_of
from diplex_core.sim.facts import facts_of
from diplex_core.sim.simulation import Simulation
from diplex_core.words import Pattern, Rules, Seconds

MESSAGE: Seconds = 0.0005
SIZES = {"interactive": (900, 120), "bulk": (2_400, 380)}  # medians of prompt and answer, in tokens
HEAD = (
    "fleet | load        | requests | in time | attained |  TTFT p95 |  waited | given | obeyed | succeeded"
)
ROW = "{:5} | {:11} | {:8,} | {:>7} | {:>8} | {:>9} | {:>7} | {:5,} | {:6,} | {:>9}"


@dataclass(frozen=True)
class Load:
    """Requests of one tier: how many times what a fleet can take of them comes, and for how long."""

    tier: str
    share: float
    seconds: Seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of overload (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(HEAD)
    print("|".join("-" * len(column) for column in HEAD.split("|")))
    for fleet, (rules, workers) in fleets().items():
        interactive = Load("interactive", 0.2, given.seconds)
        bulk = Load("bulk", 2.8, given.seconds)
        alone = run(rules, workers, [interactive], given.seed)
        beside = run(rules, workers, [interactive, bulk], given.seed)
        print(alone.row(fleet, "interactive", "alone"))
        print(beside.row(fleet, "interactive", "beside bulk"))
        print(beside.row(fleet, "bulk", "bulk"))
        double = run(rules, workers, [Load("interactive", 2.0, given.seconds)], given.seed)
        print(double.row(fleet, "interactive", "twice"))


def fleets() -> Mapping[str, tuple[Rules, list[WorkerFacts]]]:
    """The embedded default's tiers and its two simulated B200s; and two of pattern A for both tiers."""
    config = reader.read([]).config()
    workers = [facts_of(worker) for worker in config.workers if isinstance(worker.engine, SimConfig)]
    a = next(facts for facts in workers if facts.pattern is Pattern.A)
    tiers = dict(config.rules.tiers)
    tiers["bulk"] = replace(tiers["bulk"], max_queue=30.0, max_queue_requests=256)
    rules = replace(config.rules, tiers=tiers)
    shared = {
        name: replace(tier, patterns=(Pattern.A,)) if name in SIZES else tier for name, tier in tiers.items()
    }
    pair = [replace(a, name=name, package=name) for name in ("a0", "a1")]
    return {"C + A": (rules, workers), "A + A": (replace(rules, tiers=shared), pair)}


@dataclass(frozen=True)
class Run:
    """What a run came to. `longest`: how long anybody waited, by tier; `granted`: within the overload, of
    `per_second` times its length that could have been."""

    heard: Collector
    longest: Mapping[str, Seconds]
    granted: Mapping[str, int]
    per_second: Mapping[str, float]

    def row(self, fleet: str, tier: str, load: str) -> str:
        tally = self.heard.tiers[tier]
        ttft = sorted(tally.ttft)
        p95 = f"{ttft[int(0.95 * (len(ttft) - 1))] * 1000:,.0f} ms" if ttft else "-"
        succeeded = f"{tally.retry_succeeded / tally.retry_obeyed:.1%}" if tally.retry_obeyed else "-"
        return ROW.format(
            fleet,
            load,
            tally.requests,
            f"{self.granted[tier] / self.per_second[tier]:.0%}",
            f"{tally.met / tally.requests:.1%}",
            p95,
            f"{self.longest.get(tier, 0.0):.2f} s",
            tally.retry_given,
            tally.retry_obeyed,
            succeeded,
        )


def run(rules: Rules, workers: list[WorkerFacts], loads: Sequence[Load], seed: int) -> Run:
    arrivals: list[Arrival] = []
    rates: dict[str, float] = {}
    for load in loads:
        able = [facts for facts in workers if facts.pattern in rules.tiers[load.tier].patterns]
        coming = drawn(load, able, seed)
        rates[load.tier] = len(coming) / load.share
        arrivals += coming
    simulation = Simulation(rules, workers, seed=seed, message=MESSAGE, retry=True)
    heard, longest = Collector(rules.tiers), dict[str, Seconds]()
    granted = dict[str, int]()
    seconds = max(load.seconds for load in loads)

    def look(now: Seconds, told: int) -> None:
        for queue in simulation.admission.waiting.queues():
            waited = now - queue.oldest
            longest[queue.key.tier] = max(longest.get(queue.key.tier, 0.0), waited)
        if now <= seconds:
            for tier in SIZES:
                granted[tier] = sum(w.requests_by_tier[tier] for w in simulation.admission.workers.values())

    simulation.run(sorted(arrivals, key=lambda one: one.at), heard.add, look)
    return Run(heard, longest, granted, rates)


def drawn(load: Load, able: list[WorkerFacts], seed: int) -> list[Arrival]:
    """Poisson arrivals with log-normal lengths, at a share of what these workers can take of such."""
    luck = Random(f"{load.tier} {seed}")
    prompt, answer = SIZES[load.tier]
    sizes = [(length(luck, prompt, 0.7), length(luck, answer, 0.6)) for _ in range(2_000)]
    mix = Mix([p for p, _ in sizes], [p for p, _ in sizes], [a for _, a in sizes])
    rate = load.share * capacity_of(able, mix)
    arrivals, at = [], luck.expovariate(rate)
    while at < load.seconds:
        tokens, output = sizes[len(arrivals) % len(sizes)]
        arrivals.append(Arrival(at, tokens, output, load.tier))
        at += luck.expovariate(rate)
    return arrivals


def length(luck: Random, median: int, spread: float) -> int:
    return max(1, min(16_000, round(median * exp(luck.gauss(0.0, spread)))))


if __name__ == "__main__":
    main()
