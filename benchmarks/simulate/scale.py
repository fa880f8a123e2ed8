"""What a simulated request costs as the fleet grows: at 90 % load, and at 120 % with a long bulk queue.

    .venv/bin/python benchmarks/simulate/scale.py            # the table, and docs/pictures/simulate_scale.svg
    .venv/bin/python benchmarks/simulate/scale.py --million  # a million requests over 1,000 packages
    .venv/bin/python benchmarks/simulate/scale.py --packages 10 100 --loads 0.9 --plot -

Each row is one `diplex simulate` in a process of its own: half of the requests interactive, half bulk (of the
million at 120 % seven in ten, so that the queue of 100,000 fills up), all with one of 100 shared prefixes, on
copies of the two packages of configs/simulate_thousand.yaml. Wall time,
CPU time and memory are the whole process's, start and report included; wall time is the longer one where the
machine has other things to do. The load is a share of what the fleet can take by its step times. All of it
is simulated, by the `chapter` calibration: only time and memory are measured, on the machine that runs this.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).parents[2]
CONFIG = "configs/simulate_thousand.yaml"
STREAM = "poisson:prompt=1500,prompt_p95=4000,output=200,output_p95=500,prefixes=100x512"
PACKAGES = (10, 30, 100, 300, 1000, 3000)
LOADS = (0.9, 1.2)
MIX, FILLS = "interactive=0.5,bulk=0.5", "interactive=0.3,bulk=0.7"  # the latter fills the queue of bulk
LEAST, EACH = 30_000, 300  # requests of a run, and for each package
PICTURE = "docs/pictures/simulate_scale.svg"
HEAD = (
    "requests | packages | load | wall, s | CPU, s | CPU us a request | peak RSS, MiB | longest queue "
    "| completed | rejected | attained"
)
COLOURS = {0.9: "#0072B2", 1.2: "#D55E00"}


@dataclass(frozen=True)
class Row:
    packages: int
    load: float
    requests: int
    wall: float  # seconds
    cpu: float  # seconds of one core
    memory: int  # bytes
    report: dict[str, Any]

    @property
    def microseconds(self) -> float:
        return self.cpu / self.requests * 1e6

    def __str__(self) -> str:
        tiers = self.report["tiers"].values()
        met = sum(tier["slo_attainment"] * tier["requests"] for tier in tiers)
        cells = (
            f"{self.requests:,}",
            f"{self.packages:,}",
            f"{self.load:.0%}",
            f"{self.wall:,.1f}",
            f"{self.cpu:,.1f}",
            f"{self.microseconds:,.0f}",
            f"{self.memory / 2**20:,.0f}",
            f"{self.report['run']['waiting_peak']:,}",
            f"{sum(tier['completed'] for tier in tiers):,}",
            f"{sum(tier['rejected'] for tier in tiers):,}",
            f"{met / self.requests:.1%}",
        )
        return (
            "| "
            + " | ".join(
                cell.rjust(len(head.strip())) for cell, head in zip(cells, HEAD.split("|"), strict=True)
            )
            + " |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--packages", type=int, nargs="+", default=PACKAGES)
    parser.add_argument("--loads", type=float, nargs="+", default=LOADS)
    parser.add_argument("--requests", type=int, help="of each run (default: 300 a package, 30,000 at least)")
    parser.add_argument("--million", action="store_true", help="one million over 1,000 packages, no picture")
    parser.add_argument("--plot", default=PICTURE, help="- for none (%(default)s)")
    args = parser.parse_args()
    packages, requests = ([1000], 1_000_000) if args.million else (args.packages, args.requests)
    print("| " + " | ".join(head.strip() for head in HEAD.split("|")) + " |")
    print("|" + " ---: |" * len(HEAD.split("|")))
    rows = []
    for load in args.loads:
        for count in packages:
            mix = FILLS if args.million and load > 1 else MIX
            rows.append(measured(count, load, requests or max(LEAST, EACH * count), mix))
            print(rows[-1], flush=True)
    if not args.million and args.plot != "-":
        draw(rows, ROOT / args.plot)


def measured(packages: int, load: float, requests: int, mix: str) -> Row:
    """One run in a process of its own."""
    words = [
        *(sys.executable, "-m", "diplex_cli", "simulate", STREAM, "--config", CONFIG, "--json"),
        *("--packages", str(packages), "--load", str(load), "--requests", str(requests)),
        *("--tiers", mix),
    ]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began = perf_counter()
        process = subprocess.Popen(words, stdout=out, stderr=err, cwd=ROOT)
        _, status, used = os.wait4(process.pid, 0)
        wall = perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            err.seek(0)
            sys.exit(f"{' '.join(words)} ended with {process.returncode}: {err.read()[-2000:]}")
        out.seek(0)
        cpu = used.ru_utime + used.ru_stime
        return Row(packages, load, requests, wall, cpu, used.ru_maxrss * 1024, json.load(out))


def draw(rows: list[Row], file: Path) -> None:
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    rcParams["svg.hashsalt"] = "diplex"
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    panel = figure.subplots()
    for load in dict.fromkeys(row.load for row in rows):
        own = [row for row in rows if row.load == load]
        colour = COLOURS.get(load, "#009E73")
        sizes = [row.packages for row in own]
        panel.plot(sizes, [row.microseconds for row in own], "o-", color=colour, label=f"{load:.0%} load")
        first = own[0]
        slope = [first.microseconds * (1 + _decades(size / first.packages)) for size in sizes]
        panel.plot(sizes, slope, ":", color=colour, linewidth=1)
    panel.set(xscale="log", xlabel="packages in the fleet", ylabel="µs of one core a request", ylim=(0, None))
    panel.set_xticks([row.packages for row in rows if row.load == rows[0].load])
    panel.xaxis.set_major_formatter("{x:,.0f}")
    panel.minorticks_off()
    panel.set_title("What a simulated request costs, from arrival to report", fontsize=11)
    panel.grid(color="#dddddd", linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
    panel.plot(
        [], [], ":", color="#444444", linewidth=1, label="as much again for a fleet ten times as large"
    )
    panel.legend(fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})


def _decades(ratio: float) -> float:
    from math import log10

    return log10(ratio)


if __name__ == "__main__":
    main()
