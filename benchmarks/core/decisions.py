"""What deciding on a request costs the core as the fleet and the load grow.

    .venv/bin/python benchmarks/core/decisions.py                    # the table in benchmarks/core/README.md
    .venv/bin/python benchmarks/core/decisions.py --plot docs/pictures/deciding.svg
    .venv/bin/python benchmarks/core/decisions.py --workers 16 --case queue --profile

    ask        the step that takes the ask: counted, placed, charged, granted; or queued
    held       the two steps that take a report in which one claim is held, and one in which its first token
               is out
    ended      the step that takes the report in which it ends: freed, its outcome told, and whoever waits
               placed there
    tick       its share of the ten ticks a second

    decision   ask + ended + tick: a request admitted, placed and released, whenever it was placed
    life       decision + held

    half       arrivals fill half of the slots
    spare      nine tenths of them: small fleets are full at times, and somebody waits
    queue      arrivals want 1.2 times the slots that there are; 100,000 bulk requests wait from the start
    prefixes   as `spare`; four in five prompts begin with the blocks of one of many conversations, and
               workers say which blocks they keep and evict
    both       as `queue`, with the prompts of `prefixes`

All in microseconds of processor time within `Admission.step`, for each request that ended; each row a process
of its own and the least of several runs of as many requests, once the fleet has filled. `loop` is what a
fixed loop took just then, in milliseconds (`load.pace`): rows with another are not to be compared. `MB` is
the whole process's, the stand-in for engines included.
"""

import argparse
import cProfile
import pstats
import resource
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from load import LOAD, Bench, pace, slow_collector

WORKERS = (2, 16, 64, 256, 1024, 4096)
BARS = {16: 60, 64: 120, 4096: 120}  # us a decision
COLOURS = {
    "half": "#000000",
    "spare": "#0072B2",
    "queue": "#D55E00",
    "prefixes": "#009E73",
    "both": "#CC79A7",
}


class Row(NamedTuple):
    workers: int
    case: str
    predictions: bool
    took: Counter[str]  # us a request, by part
    loop: float
    memory: int  # MB

    @property
    def decision(self) -> float:
        return self.took["ask"] + self.took["ended"] + self.took["tick"]

    @property
    def held(self) -> float:
        return self.took["held"] + self.took["first"]

    def __str__(self) -> str:
        parts = (self.took["ask"], self.held, self.took["ended"], self.took["tick"])
        times = " | ".join(f"{part:5.1f}" for part in (*parts, self.decision, self.decision + self.held))
        what = f"{self.workers:7,} | {self.case:8} | {'yes' if self.predictions else 'no':9}"
        return f"| {what} | {times} | {self.loop:4.1f} | {self.memory:5} |"


HEAD = "| workers | case | predicted | ask | held | ended | tick | decision | life | loop | MB |"
RULE = "| ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS)
    parser.add_argument("--case", choices=tuple(LOAD), nargs="+", default=tuple(LOAD))
    parser.add_argument("--requests", type=int, default=5_000, help="of each run (%(default)s)")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--without", action="store_true", help="predictions: of workers of unknown speed")
    parser.add_argument("--profile", action="store_true", help="where the time goes, after each row")
    parser.add_argument("--plot", type=Path, help="draw the rows into this file")
    args = parser.parse_args()
    print(HEAD, RULE, sep="\n")
    rows = []
    for case in args.case:
        for workers in args.workers:
            work = (workers, case, not args.without, args.requests, args.runs, args.profile)
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
                rows.append(apart.submit(measured, *work).result())
            print(rows[-1], flush=True)
    if args.plot is not None:
        draw(rows, args.plot)


def measured(workers: int, case: str, predictions: bool, requests: int, runs: int, profile: bool) -> Row:
    slow_collector()
    bench = Bench(workers, case, predictions=predictions)
    bench.warm()
    took, loop = min(((bench.run(requests), pace()) for _ in range(runs)), key=lambda run: run[0].total())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if profile:
        with cProfile.Profile() as seen:
            bench.run(requests)
        pstats.Stats(seen).sort_stats("tottime").print_stats(40)
    return Row(workers, case, predictions, took, loop, memory)


def draw(rows: list[Row], file: Path) -> None:
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    rcParams["svg.hashsalt"] = "diplex"
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    panel = figure.subplots()
    for case in dict.fromkeys(row.case for row in rows):
        own = [row for row in rows if row.case == case]
        panel.plot([r.workers for r in own], [r.decision for r in own], "o-", color=COLOURS[case], label=case)
    panel.plot(list(BARS), list(BARS.values()), ":", color="#444444", linewidth=1, label="what it may cost")
    panel.set(xscale="log", xlabel="workers", ylabel="µs of one core a decision", ylim=(0, None))
    panel.set_xticks(sorted({row.workers for row in rows}))
    panel.xaxis.set_major_formatter("{x:,.0f}")
    panel.minorticks_off()
    panel.set_title("A request admitted, placed and released", fontsize=11)
    panel.grid(color="#dddddd", linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(fontsize=8)
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    main()
