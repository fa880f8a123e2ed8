"""What an open lease costs in memory, and a prefix block that leases pin, up to a million leases.

    .venv/bin/python benchmarks/core/memory.py                # the tables in benchmarks/core/README.md
    .venv/bin/python benchmarks/core/memory.py --leases 10000 --plot docs/pictures/deciding_memory.svg

    waiting    all wait behind a full fleet, each in a session of a thousand
    running    all hold a claim and have had their first token, 256 on each worker, whose speed is known
    shared     as `running`, each with a prompt of 2,048 tokens in 64 hashed blocks; on a worker eight begin
               with the same 56 blocks (a system prompt and a document) and have 8 of their own that are
               resident too (earlier turns)
    unshared   as `shared`, with 64 blocks that no other lease has: the worst case

Bytes are what the process grew by (its resident set) from the fleet without leases, the collector run before
each look. The stand-in for clients and engines keeps nothing of its own but a worker's claims while they are
brought up. `a pin`: what the last two cost more than `running` for each lease and block that it pins, the
hashes of its prompt included. `a resident block`: what the index of blocks took for each that a worker said
it keeps, before any lease came; it is there whether or not anybody pins them. Each row is a process of its
own.
"""

import argparse
import gc
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from load import RULES, A, slow_collector

from diplex_core.admission import Admission
from diplex_core.events import (
    Ask,
    Asked,
    AskKey,
    Granted,
    HeldClaim,
    Queued,
    Report,
    Reported,
    Ticked,
)
from diplex_core.words import packed

LEASES = (10_000, 100_000, 1_000_000)
CASES = ("waiting", "running", "shared", "unshared")
EACH = 256  # leases on a worker
SESSION = 1_000  # leases of a client's session
PROMPT, BLOCKS = 2_048, 64
SHARERS, ALIKE = 8, 56
BAR = 1_536
COLOURS = {"waiting": "#0072B2", "running": "#D55E00", "shared": "#009E73", "unshared": "#CC79A7"}


class Row(NamedTuple):
    case: str
    leases: int
    bytes: float  # a lease
    resident: float  # bytes of the index before, for each lease that came
    blocks: int  # different blocks in use, pool by pool


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--leases", type=int, nargs="+", default=LEASES)
    parser.add_argument("--case", choices=CASES, nargs="+", default=CASES)
    parser.add_argument("--plot", type=Path, help="draw the rows into this file")
    args = parser.parse_args()
    print("| case | leases | bytes a lease | bytes a pin | pins a block in use | bytes a resident block |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    rows: list[Row] = []
    for leases in args.leases:
        without = None
        for case in args.case:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
                row = apart.submit(measured, case, leases).result()
            rows.append(row)
            without = row if case == "running" else without
            print(line(row, without), flush=True)
    if args.plot is not None:
        draw(rows, args.plot)


def line(row: Row, without: Row | None) -> str:
    cells = ["", "", ""]
    if row.blocks and without is not None:
        pin, sharers = (row.bytes - without.bytes) / BLOCKS, row.leases * BLOCKS / row.blocks
        cells = [f"{pin:.1f}", f"{sharers:.1f}", f"{row.resident * row.leases / row.blocks:.0f}"]
    return f"| {row.case:8} | {row.leases:9,} | {row.bytes:6.0f} | {' | '.join(cells)} |"


def measured(case: str, leases: int) -> Row:
    slow_collector()
    workers = -(-leases // EACH)
    fleet = _Fleet(workers)
    empty = resident_set()
    if case in ("shared", "unshared"):
        fleet.keep(case, leases)
    kept = resident_set()
    fleet.bring(case, leases)
    grown = resident_set() - kept
    users = sum(worker.ledger.blocks.pinned for worker in fleet.admission.workers.values())
    return Row(case, leases, grown / leases, (kept - empty) / leases, users)


def hashes_of(case: str, number: int) -> Sequence[int]:
    """Of the lease's prompt: numbers of 64 bits, as real hashes are."""
    if case not in ("shared", "unshared"):
        return ()
    alike = ALIKE if case == "shared" else 0
    family, own = number // SHARERS, number
    return packed(
        [hash_of(1 << 40 | family << 6 | at if at < alike else own << 6 | at) for at in range(BLOCKS)]
    )


def hash_of(number: int) -> int:
    return (number + 1) * 0x9E3779B97F4A7C15 & (1 << 64) - 1


class _Fleet:
    """Workers of 256 slots, all draining but one: so a lease's place is known before it is asked for."""

    def __init__(self, workers: int) -> None:
        names = [f"w{i}" for i in range(workers)]
        self.admission = Admission(RULES, names, epoch=1, now=0.0)
        self.facts = [
            replace(A, name=name, package=name, capacity_slots=EACH, capacity_blocks=40_000) for name in names
        ]
        self.numbers = [0] * workers
        self.now = 0.0
        for at in range(workers):
            self.report(at, full=True, facts=self.facts[at], draining=True)

    def report(self, at: int, **said: object) -> None:
        self.numbers[at] += 1
        report = Report(
            **{"full": False, "draining": False, **said},  # type: ignore[arg-type]
            number=self.numbers[at],
            uptime=self.now,
            used_blocks=0,
            used_slots=0,
        )
        self.admission.step(Reported(self.facts[at].name, report), self.now)

    def keep(self, case: str, leases: int) -> None:
        """Each worker says that the blocks of what it will be asked for are resident."""
        for at in range(len(self.facts)):
            numbers = range(at * EACH, min((at + 1) * EACH, leases))
            blocks = tuple(dict.fromkeys(h for number in numbers for h in hashes_of(case, number)))
            self.report(at, stored=blocks, draining=True)

    def bring(self, case: str, leases: int) -> None:
        for at in range(len(self.facts)):
            numbers = range(at * EACH, min((at + 1) * EACH, leases))
            if case != "waiting":
                self.report(at)  # takes requests now
            claims: list[Granted] = []
            for number in numbers:
                # A prompt that comes behind others that are unread would wait; this is not about time.
                self.now += 0.001
                key = AskKey(number // SESSION, number)
                ask = Ask(
                    f"request-{number:012}", "m", "bulk", "", PROMPT, True, hashes_of(case, number),
                    max_tokens=400,
                )  # fmt: skip
                (answer,) = self.admission.step(Asked(key, ask), self.now)
                if isinstance(answer, Granted):
                    assert answer.worker.name == self.facts[at].name
                    claims.append(answer)
                else:
                    assert isinstance(answer, Queued)
                    assert case == "waiting"
            if claims:
                held = tuple(HeldClaim(g.claim, g.blocks, 1, True, prompt_tokens=PROMPT) for g in claims)
                self.report(at, held=held, draining=True)
            self.admission.step(Ticked(), self.now)


def resident_set() -> int:
    """Bytes."""
    gc.collect()
    with open("/proc/self/statm") as told:
        return int(told.read().split()[1]) * 4096


def draw(rows: list[Row], file: Path) -> None:
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    rcParams["svg.hashsalt"] = "diplex"
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    panel = figure.subplots()
    for case in dict.fromkeys(row.case for row in rows):
        own = [row for row in rows if row.case == case]
        panel.plot(
            [row.leases for row in own], [row.bytes for row in own], "o-", color=COLOURS[case], label=case
        )
    panel.axhline(BAR, linestyle=":", color="#444444", linewidth=1, label="what it may cost without hashes")
    panel.set(xscale="log", xlabel="open leases", ylabel="bytes a lease", ylim=(0, None))
    panel.xaxis.set_major_formatter("{x:,.0f}")
    panel.minorticks_off()
    panel.set_title("What an open lease keeps in memory", fontsize=11)
    panel.grid(color="#dddddd", linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(fontsize=8)
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    main()
