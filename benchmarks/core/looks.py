"""What becomes of promises when a fleet is searched, not asked whole (simulated, calibration `chapter`).

    .venv/bin/python benchmarks/core/looks.py

64 workers, half C and half A, and 6,000 requests, half interactive and half bulk, at rates from one at which
the fleet keeps every promise to one that is far too much for it. The first row of each rate asks every worker
on every occasion, as small fleets do; the others look at so many of a kind where promises break.
"""

import random
from collections.abc import Iterator
from dataclasses import replace
from time import process_time

from load import BULK, FAST, RULES, A, C

from diplex_core.events import Served
from diplex_core.placement.place import Placement
from diplex_core.sim.arrivals import Arrival
from diplex_core.sim.simulation import Simulation

WORKERS = 64
REQUESTS = 6_000
PLACEMENTS = {
    "all": Placement(everyone=WORKERS),
    "1": Placement(looks=1),
    "2, the default": Placement(),
    "4": Placement(looks=4),
    "8": Placement(looks=8),
}


def main() -> None:
    print("requests/s a worker  looks           attained  degraded  mean TTFT  us a request")
    for rate in (9, 15, 20, 30, 45):
        for looks, placement in PLACEMENTS.items():
            print(f"{rate:19}  {looks:14}  {run(placement, rate)}", flush=True)


def run(placement: Placement, rate: float) -> str:
    kinds = (replace(C if i % 2 == 0 else A, name=f"w{i}", package=f"p{i}") for i in range(WORKERS))
    simulation = Simulation(RULES, kinds, seed=1, placement=placement)
    fast: list[Served] = []

    def served(one: Served) -> None:
        if FAST.name in (one.tier, one.degraded_from):
            fast.append(one)

    simulation.on_served = served
    began = process_time()
    simulation.run(arrivals(rate * WORKERS), lambda outcome: None)
    took = (process_time() - began) / REQUESTS * 1e6
    degraded = simulation.admission.outcomes["degraded", BULK.name]
    attained = sum(one.met for one in fast) / len(fast)
    wait = sum(one.ttft or 0.0 for one in fast) / len(fast)
    return f"{attained:8.1%}  {degraded:8}  {wait * 1000:6.0f} ms  {took:12.0f}"


def arrivals(rate: float) -> Iterator[Arrival]:
    dice, at = random.Random(3), 0.0
    for _ in range(REQUESTS):
        at += dice.expovariate(rate)
        tier = dice.choice((FAST, BULK))
        prompt, output = dice.lognormvariate(6.8, 0.8), dice.lognormvariate(4.6, 0.8)
        yield Arrival(at, min(8000, int(prompt) + 1), min(1000, int(output) + 2), tier.name)


if __name__ == "__main__":
    main()
