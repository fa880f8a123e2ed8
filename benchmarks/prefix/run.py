"""How many prompt tokens need not be read where four workers keep prefixes, beside one LRU of their size.

    .venv/bin/python benchmarks/prefix/run.py
    .venv/bin/python benchmarks/prefix/run.py --trace PATH.jsonl.gz --pools 1300 --speed 2

Both Mooncake development halves, whole and at their own pace, through the core and simulated engines on a
virtual clock (calibration `chapter`; no GPU made these figures), for each of several placements. `saved` is
what no worker had to read; `of LRU` divides it by what one cache as large as the four pools together saves of
the same prompts in the same order: leading blocks only, the least recently used goes first. `spread` is the
most prompt tokens that a worker read over the fewest. `index off` is by how much the router's index and
what a worker really kept differed, over what it kept: the mean and the most of looks at each worker every few
seconds, from the second minute on.

In `nobody tells` no worker says what it keeps, so that the router goes by its own history and charges every
prompt in full. The simulated engine then reads it whole; `saved` is what lay in its cache when it came, as an
engine that looks there by itself finds it.
"""

import argparse
import gzip
import json
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from diplex_cli import reader
from diplex_cli.simulate.blocks import piece_hashes
from diplex_core.config.values import Config
from diplex_core.events import Granted
from diplex_core.placement.book import OWN
from diplex_core.placement.place import Placement
from diplex_core.placement.rules import Picker
from diplex_core.placement.scorers import WEIGHTS
from diplex_core.pool import NoRoom
from diplex_core.report.outcome import Outcome
from diplex_core.report.percentile import percentile
from diplex_core.sim.arrivals import Arrival
from diplex_core.sim.facts import facts_of
from diplex_core.sim.simulation import Simulation
from diplex_core.sim.worker import VirtualWorker
from diplex_core.words import BlockHash, Blocks, Rules, Seconds, Tokens

HERE = Path(__file__).parent
TRACES = [
    HERE.parent / "traces" / f"mooncake_{name}_first_half.jsonl.gz" for name in ("conversation", "synthetic")
]
POOLS = (1300, 2600)
BLOCK: Tokens = 512
MESSAGE: Seconds = 0.001
LOOKS_EVERY: Seconds = 5.2
LOOKS_FROM: Seconds = 60.0  # before, little is kept anywhere
HEAD = (
    "trace        | pool  | placement           |       saved | of LRU | spread "
    "| index off, mean, most | running | TTFT p50 |  p95"
)
ROW = (
    "{:12} | {:>5,} | {:19} | {:>11,} | {:>6.1%} | {:>6.3f} "
    "| {:>13.2%}, {:>6.2%} | {:>7.1f} | {:>5.0f} ms | {:>5,.0f} ms"
)


class Lru:
    """One cache that reads prompts one after the other, at once. Of a prompt the last block goes first."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._kept: OrderedDict[BlockHash, None] = OrderedDict()

    def read(self, hashes: Sequence[BlockHash]) -> Blocks:
        """The leading blocks that it had; now it has all."""
        kept = self._kept
        had = next((at for at, block in enumerate(hashes) if block not in kept), len(hashes))
        for block in reversed(hashes):
            kept[block] = None
            kept.move_to_end(block)
        while len(kept) > self._blocks:
            kept.popitem(last=False)
        return had


@dataclass(frozen=True)
class Run:
    """What a fleet made of a trace. `read`: by worker; `off`: index, look by look; `running`: in the mean."""

    saved: Tokens
    read: Counter[str]
    off: Sequence[float]
    running: float
    ttft: Sequence[Seconds]
    failed: int

    @property
    def spread(self) -> float:
        return max(self.read.values()) / min(self.read.values())


def arrivals(trace: Path, speed: float = 1.0) -> list[Arrival]:
    """A Mooncake trace, with a hash for every whole block, whether another prompt has it or not: no client
    knows that. The last token of a prompt lies in no hashed block, since an engine has to read it."""
    with gzip.open(trace, "rt") as file:
        rows = [json.loads(line) for line in file]
    return [
        Arrival(
            row["timestamp"] / 1000 / speed,
            row["input_length"],
            max(1, row["output_length"]),
            block_hashes=piece_hashes(row["hash_ids"], BLOCK, row["input_length"], BLOCK, 0),
        )
        for row in rows
    ]


def lru_saves(load: Iterable[Arrival], blocks: Blocks) -> Tokens:
    lru = Lru(blocks)
    return BLOCK * sum(lru.read(arrival.block_hashes) for arrival in load)


def run(
    load: Sequence[Arrival], config: Config, pool: Blocks, rules: Rules, placement: Placement, tells: bool
) -> Run:
    # The longest of these prompts are beyond the model's context.
    facts = {"capacity_blocks": pool, "context": 0, "reports_residency": tells}
    workers = [replace(facts_of(worker), **facts) for worker in config.workers]
    simulation = Simulation(rules, workers, message=MESSAGE, placement=placement)
    found: Counter[str] = Counter()
    if not tells:
        for worker in simulation.workers.values():
            _watch(worker, found)
    outcomes: list[Outcome] = []
    off: list[float] = []
    looked = LOOKS_FROM

    def look(now: Seconds, _: int) -> None:
        nonlocal looked
        if now - looked >= LOOKS_EVERY:
            looked = now
            off.extend(_off(simulation, name) for name in simulation.workers)

    simulation.run(load, outcomes.append, look)
    read: Counter[str] = Counter()
    for one in outcomes:
        read[one.worker] += one.prompt_tokens
        found[one.worker] += one.cached_tokens
    return Run(
        found.total(),
        read - found,
        off,
        sum(one.e2e or 0.0 for one in outcomes) / simulation.ended,
        sorted(one.ttft for one in outcomes if one.ttft is not None),
        sum(not one.completed for one in outcomes),
    )


def _watch(worker: VirtualWorker, found: Counter[str]) -> None:
    """Count the leading tokens of each prompt that a worker keeps when it comes there."""
    start, name = worker.start, worker.facts.name

    def counted(granted: Granted, ask_id: int, arrival: Arrival, *rest: Any) -> NoRoom | str | None:
        hashes, kept = arrival.block_hashes, worker.cache.kept
        found[name] += BLOCK * next((at for at, block in enumerate(hashes) if block not in kept), len(hashes))
        return start(granted, ask_id, arrival, *rest)

    worker.start = counted  # type: ignore[method-assign]


def _off(simulation: Simulation, name: str) -> float:
    """Blocks that the router's index and the worker differ in, over those that the worker keeps."""
    kept, shelf = simulation.workers[name].cache.kept, simulation.admission.workers[name].shelf
    if not kept or shelf is None:
        return 0.0
    both = sum(block in shelf for block in kept)
    return (len(kept) + len(shelf) - 2 * both) / len(kept)


def in_turn() -> Picker:
    """Round robin."""
    turns = count()
    return lambda wish, candidates: candidates[next(turns) % len(candidates)]


def placements(config: Config) -> list[tuple[str, Rules, Placement, bool]]:
    """Each by a name, with the rules that it goes by, and whether workers tell what they keep."""
    bulk = config.rules
    standard = replace(bulk, default_tier="standard")
    turns = replace(bulk, tiers={"bulk": replace(bulk.tiers["bulk"], picker="in_turn")})
    book = OWN.with_rules({}, {}, {"in_turn": in_turn()})
    return [
        ("default", bulk, Placement(), True),
        ("default, standard", standard, Placement(), True),
        ("nobody tells", bulk, Placement(), False),
        ("without balance", bulk, Placement(weights={**WEIGHTS, "balance": 0.0}), True),
        ("round robin", turns, Placement(book=book), True),
        ("prefix alone", bulk, Placement(weights={"prefix": 1.0}), True),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", type=Path, action="append", help="a Mooncake trace (default: both halves)")
    parser.add_argument("--pools", type=int, nargs="+", default=POOLS, help="blocks of each worker's pool")
    parser.add_argument("--speed", type=float, default=1.0, help="2: requests come twice as fast")
    args = parser.parse_args()
    config = reader.read([str(HERE / "fleet.yaml")]).config()
    print(HEAD)
    print("|".join("-" * len(column) for column in HEAD.split("|")))
    for trace in args.trace or TRACES:
        load = arrivals(trace, args.speed)
        name = trace.name.removeprefix("mooncake_").partition("_")[0]
        for pool in args.pools:
            lru = lru_saves(load, pool * len(config.workers))
            for what, rules, placement, tells in placements(config):
                one = run(load, config, pool, rules, placement, tells)
                p50, p95 = (1000 * (percentile(one.ttft, q) or 0.0) for q in (50, 95))
                index_off = sum(one.off) / len(one.off), max(one.off)
                saved = one.saved, one.saved / lru
                row = ROW.format(name, pool, what, *saved, one.spread, *index_off, one.running, p50, p95)
                print(f"{row} {one.failed} FAILED" if one.failed else row, flush=True)
            print(f"{name:12} | {pool:>5,} | {'one LRU, 4 pools':19} | {lru:>11,} | 100.0% |")


if __name__ == "__main__":
    main()
