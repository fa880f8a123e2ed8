"""Prompts that begin alike, on four simulated workers that keep prefixes: a piece of a public trace."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from diplex_cli.simulate.blocks import piece_hashes
from diplex_core.events import Granted, WorkerFacts
from diplex_core.report.outcome import Outcome
from diplex_core.sim.arrivals import Arrival
from diplex_core.sim.simulation import Simulation
from diplex_core.sim.worker import VirtualWorker
from diplex_core.words import Pattern, Rules, Tier

TRACE = Path(__file__).parents[3] / "benchmarks" / "traces" / "mooncake_synthetic_first_half.jsonl.gz"
BLOCK = 512
BULK = Tier("bulk", (Pattern.A,))
RULES = Rules(frozenset({"m"}), "m", {"bulk": BULK}, "bulk")


def worker(name: str, blocks: int = 1300, *, tells: bool = True) -> WorkerFacts:
    return WorkerFacts(
        name, name, Pattern.A, frozenset({"m"}), 1, "", BLOCK, blocks, 64, engine="sim",
        calibration="chapter", gpu="b200", profile="qwen2.5-72b", weights="mxfp4-mixed", kv_cache="mxfp8",
        reports_residency=tells,
    )  # fmt: skip


@pytest.fixture(scope="module")
def load() -> list[Arrival]:
    with gzip.open(TRACE, "rt") as file:
        rows = [json.loads(line) for _, line in zip(range(900), file, strict=False)]
    return [
        Arrival(
            row["timestamp"] / 1000,
            row["input_length"],
            row["output_length"],
            block_hashes=piece_hashes(row["hash_ids"], BLOCK, row["input_length"], BLOCK, 0),
        )
        for row in rows
    ]


def run(simulation: Simulation, load: list[Arrival]) -> tuple[int, list[int]]:
    """Prompt tokens that nobody had to read, and those that each worker read, the least first."""
    outcomes: list[Outcome] = []
    simulation.run(load, outcomes.append)
    assert all(one.completed for one in outcomes)
    read: Counter[str] = Counter()
    for one in outcomes:
        read[one.worker] += one.prompt_tokens - one.cached_tokens
    workers, _ = simulation.figures()
    assert {name: worker.prefill_tokens for name, worker in workers.items()} == read
    return sum(one.cached_tokens for one in outcomes), sorted(read.values())


def lru_saves(load: list[Arrival], blocks: int) -> int:
    """Tokens that one cache of so many blocks saves of the same prompts, one after the other."""
    kept: dict[int, None] = {}
    saved = 0
    for arrival in load:
        hashes = arrival.block_hashes
        saved += BLOCK * next((at for at, block in enumerate(hashes) if block not in kept), len(hashes))
        for block in reversed(hashes):
            kept.pop(block, None)
            kept[block] = None
        for block in list(kept)[: max(0, len(kept) - blocks)]:
            del kept[block]
    return saved


def test_four_pools_save_what_one_as_large_as_all_of_them_would_and_share_the_reading(load: list[Arrival]):
    simulation = Simulation(RULES, [worker(f"w{at}") for at in range(4)])
    saved, read = run(simulation, load)
    assert saved >= 0.9 * lru_saves(load, 4 * 1300) > 500_000
    assert read[-1] <= 1.1 * read[0]
    for name, one in simulation.workers.items():
        shelf = simulation.admission.workers[name].shelf
        assert shelf is not None and len(shelf) == len(one.cache.kept) > 1000
        assert all(block in shelf for block in one.cache.kept)


def test_prompts_that_all_begin_alike_do_not_all_go_to_one_worker():
    beginning = (1, 2, 3, 4)
    hot = [
        Arrival(at / 5, 4000, 20, block_hashes=(*beginning, 10 * at + 10, 10 * at + 11, 10 * at + 12))
        for at in range(300)
    ]
    saved, read = run(Simulation(RULES, [worker(f"w{at}") for at in range(4)]), hot)
    assert saved >= 0.95 * len(hot) * len(beginning) * BLOCK
    assert read[-1] <= 1.2 * read[0]


def test_prompts_meet_by_the_routers_own_history_where_no_worker_tells_what_it_keeps(
    load: list[Arrival], monkeypatch: pytest.MonkeyPatch
):
    simulation = Simulation(RULES, [worker(f"w{at}", tells=False) for at in range(4)])
    found, starts = 0, VirtualWorker.start

    def start(self: VirtualWorker, granted: Granted, ask_id: int, arrival: Arrival, *rest: Any) -> Any:
        nonlocal found
        assert granted.cached == 0, "nobody is charged less for what is only believed"
        kept = self.cache.kept
        found += next(
            (at for at, block in enumerate(arrival.block_hashes) if block not in kept),
            len(arrival.block_hashes),
        )
        return starts(self, granted, ask_id, arrival, *rest)

    monkeypatch.setattr(VirtualWorker, "start", start)
    run(simulation, load)
    assert found * BLOCK >= 0.9 * lru_saves(load, 4 * 1300)
    for name, one in simulation.workers.items():
        shelf, kept = simulation.admission.workers[name].shelf, one.cache.kept
        assert shelf is not None
        assert sum(block in shelf for block in kept) >= 0.9 * max(len(kept), len(shelf))
