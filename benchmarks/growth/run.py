"""How many requests run at once when each holds what such requests mostly come to, and not all that it may.

    .venv/bin/python benchmarks/growth/run.py               # the table: a minute or two
    .venv/bin/python benchmarks/growth/run.py --limit 2000  # of the first 2,000 requests

ServeGen's trace of a reasoning model, every request with `max_tokens` 32,768: nobody knows beforehand how
long its answer comes to be, and then it ends where the trace says. Two simulated packages (fleet.yaml) get
more than they can take, so that requests wait: how many others hold a claim, in the mean over all moments at
which some wait, with `reserve: full` and with `expected` at several quantiles. Router core and engines run on
a virtual clock, by the `chapter` calibration: no GPU made these figures.

Beside them, what perfect foresight would come to: the pools' blocks over what the trace's requests need, in
the mean over the time that they run (each answer counts by its length). One bound is that of requests which
hold their own true length from the start, the other that of requests which hold at each moment no more than
they use.
"""

import argparse
import csv
import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from diplex_cli import reader
from diplex_core.config.values import SimConfig
from diplex_core.events import WorkerFacts
from diplex_core.report.outcome import Ending, Outcome
from diplex_core.report.percentile import percentile
from diplex_core.sim.arrivals import Arrival
from diplex_core.sim.facts import facts_of
from diplex_core.sim.simulation import Simulation
from diplex_core.words import Reserve, Rules, Seconds, Tier, Tokens, blocks_needed

HERE = Path(__file__).parent
TRACE = HERE.parent / "traces" / "servegen_deepseek_r1_a.csv.gz"
MAX_TOKENS: Tokens = 32_768
QUANTILES = (0.8, 0.9, 0.95)
CONTEXT: Tokens = 131_072
"""Of the model's own 65,536 tokens the trace's longest prompt leaves less than it is to ask for."""
HEAD = (
    "reserve       | at once | times full | preempted | of leases | cut short | longest gap p99 |  all done"
)


@dataclass(frozen=True)
class Ran:
    """What one run came to."""

    reserve: str
    at_once: float
    leases: int
    preempted: int
    cut_short: int
    gap: Seconds
    ended: Seconds

    def row(self, full: "Ran") -> str:
        times, share = self.at_once / full.at_once, self.preempted / self.leases
        return (
            f"{self.reserve:13} | {self.at_once:7.1f} | {times:10.2f} | {self.preempted:9,} | {share:9.2%} "
            f"| {self.cut_short:9} | {self.gap:13.2f} s | {self.ended:7,.0f} s"
        )


class Crowd:
    """Counts who holds a claim, over the time for which others wait."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._area = self._time = self._last = 0.0

    def look(self, now: Seconds, over: int) -> None:
        if self._simulation.admission.waiting:
            running = sum(len(worker.guests) for worker in self._simulation.workers.values())
            self._area += running * (now - self._last)
            self._time += now - self._last
        self._last = now

    @property
    def mean(self) -> float:
        """At one moment; nothing ever waited: 0."""
        return self._area / self._time if self._time else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=int, help="only the first so many requests")
    parser.add_argument("--quantiles", type=float, nargs="+", default=QUANTILES)
    args = parser.parse_args()
    config = reader.read([str(HERE / "fleet.yaml")]).config()
    workers = [
        replace(facts_of(worker), context=CONTEXT)
        for worker in config.workers
        if isinstance(worker.engine, SimConfig)
    ]
    every = list(arrivals(args.limit))
    print(HEAD)
    print("|".join("-" * len(column) for column in HEAD.split("|")))
    full = run("full", config.rules, workers, every, reserve=Reserve.FULL)
    print(full.row(full), flush=True)
    for quantile in args.quantiles:
        what = f"expected {quantile:g}"
        ran = run(what, config.rules, workers, every, reserve=Reserve.EXPECTED, expected_quantile=quantile)
        print(ran.row(full), flush=True)
    whole, used = foresight(workers, every)
    print("perfect foresight:")
    for what, bound in (("its true length from the start", whole), ("what it uses at each moment", used)):
        print(f"  each holds {what}: {bound:.1f} at once, {bound / full.at_once:.2f} times full")


def arrivals(limit: int | None = None) -> Iterator[Arrival]:
    with gzip.open(TRACE, "rt") as file:
        for number, row in enumerate(csv.DictReader(file)):
            if number == limit:
                return
            prompt, output = int(row["input_tokens"]), int(row["output_tokens"])
            yield Arrival(float(row["arrival_s"]), prompt, output, max_tokens=MAX_TOKENS)


def run(
    what: str, rules: Rules, workers: Sequence[WorkerFacts], every: Sequence[Arrival], **tier: object
) -> Ran:
    """The whole load, to the last request's end.

    Args:
        tier: what is other than in the configuration.
    """
    tiers: dict[str, Tier] = {
        name: replace(one, **tier)  # type: ignore[arg-type]
        for name, one in rules.tiers.items()
    }
    simulation = Simulation(replace(rules, tiers=tiers), workers)
    crowd, outcomes = Crowd(simulation), list[Outcome]()
    simulation.run(every, outcomes.append, crowd.look)
    _, ledger = simulation.figures()
    if ledger.wrong:
        raise SystemExit(f"{what}: the books do not close: {', '.join(ledger.wrong)}")
    lengths = {f"r{number}": arrival.output_tokens for number, arrival in enumerate(every)}
    return Ran(
        what,
        crowd.mean,
        ledger.leases_opened,
        ledger.preempted,
        sum(1 for one in outcomes if cut_short(one, lengths[one.request_id])),
        percentile(sorted(one.longest_gap for one in outcomes if one.longest_gap is not None), 99) or 0.0,
        simulation.ended,
    )


def cut_short(outcome: Outcome, length: Tokens) -> bool:
    return outcome.ended is not Ending.COMPLETED or outcome.output_tokens != length


def foresight(workers: Sequence[WorkerFacts], every: Sequence[Arrival]) -> tuple[float, float]:
    """How many would run at once if each held its true length from the start, and if each held at each moment
    what it uses then."""
    size = workers[0].block_tokens
    blocks = sum(worker.usable_blocks for worker in workers)
    time = sum(one.output_tokens for one in every)
    whole = sum(
        one.output_tokens * blocks_needed(one.prompt_tokens, one.output_tokens, size) for one in every
    )
    used = sum(
        sum(
            -(-tokens // size)
            for tokens in range(one.prompt_tokens + 1, one.prompt_tokens + one.output_tokens + 1)
        )
        for one in every
    )
    return blocks * time / whole, blocks * time / used


if __name__ == "__main__":
    main()
