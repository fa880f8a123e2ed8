"""A trace through the tiers of the embedded default, on a virtual clock."""

import csv
import gzip
import random
from dataclasses import replace
from pathlib import Path

import pytest

from diplex_cli import reader
from diplex_core.config.values import Config, SimConfig
from diplex_core.events import Served
from diplex_core.report.outcome import Outcome
from diplex_core.report.percentile import percentile
from diplex_core.sim.arrivals import Arrival
from diplex_core.sim.facts import facts_of
from diplex_core.sim.simulation import Simulation
from diplex_core.words import Pattern, Tier

TRACE = Path(__file__).parents[3] / "benchmarks" / "traces" / "azure_code_2023.csv.gz"


@pytest.fixture(scope="module")
def config() -> Config:
    return reader.read([]).config()


@pytest.fixture(scope="module")
def trace() -> list[Arrival]:
    with gzip.open(TRACE, "rt") as file:
        rows = [row for _, row in zip(range(500), csv.DictReader(file), strict=False)]
    return [
        Arrival(float(row["arrival_s"]), int(row["input_tokens"]), int(row["output_tokens"]), "interactive")
        for row in rows
    ]


def halved(trace: list[Arrival], seed: int) -> list[Arrival]:
    """Half of the requests are bulk, drawn by the seed."""
    bulk = set(random.Random(seed).sample(range(len(trace)), len(trace) // 2))
    return [replace(one, tier="bulk") if at in bulk else one for at, one in enumerate(trace)]


def fleet(config: Config, *, budget: int | None = None) -> Simulation:
    """The default's simulated workers; `budget` another prefill budget for pattern C."""
    workers = [worker for worker in config.workers if isinstance(worker.engine, SimConfig)]
    if budget is not None:
        workers = [
            replace(worker, prefill_budget=budget) if worker.pattern is Pattern.C else worker
            for worker in workers
        ]
    return Simulation(config.rules, map(facts_of, workers))


def run(simulation: Simulation, arrivals: list[Arrival]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    simulation.run(arrivals, outcomes.append)
    return outcomes


def of(outcomes: list[Outcome], tier: str) -> list[Outcome]:
    return [one for one in outcomes if one.tier == tier]


def attained(outcomes: list[Outcome], tier: Tier) -> float:
    return sum(one.met(tier) for one in outcomes) / len(outcomes)


def completed(outcomes: list[Outcome]) -> float:
    return sum(one.completed for one in outcomes) / len(outcomes)


def tpot_p95(outcomes: list[Outcome]) -> float:
    return percentile(sorted(one.tpot for one in outcomes if one.tpot is not None), 95) or 0.0


def on(outcomes: list[Outcome], pattern: Pattern, load: Simulation) -> int:
    return sum(one.worker != "" and load.workers[one.worker].facts.pattern is pattern for one in outcomes)


@pytest.mark.parametrize("seed", range(6))
def test_both_tiers_keep_their_promises_on_a_bursty_trace(config: Config, trace: list[Arrival], seed: int):
    load = fleet(config)
    tiers = config.rules.tiers
    outcomes = run(load, halved(trace, seed))
    interactive, bulk = of(outcomes, "interactive"), of(outcomes, "bulk")
    assert completed(interactive) >= 0.95
    assert completed(bulk) == 1.0
    assert attained(interactive, tiers["interactive"]) >= 0.85
    assert attained(bulk, tiers["bulk"]) == 1.0
    assert tpot_p95(interactive) <= 0.008
    # C first, A when C's prediction would break the promise; bulk on A, which has room.
    assert on(interactive, Pattern.C, load) > 4 * on(interactive, Pattern.A, load) > 0
    assert on(bulk, Pattern.A, load) == len(bulk)
    leases = load.admission.leases
    assert (leases.opened, leases.closed, load.admission.over_capacity) == (500, 500, 0)
    assert all(axis.own == 0 for worker in load.admission.workers.values() for axis in worker.ledger.axes)


@pytest.mark.parametrize("share", [250, 500])
def test_alone_the_interactive_tier_keeps_its_time_per_token_too(
    config: Config, trace: list[Arrival], share: int
):
    outcomes = run(fleet(config), trace[:: len(trace) // share])
    assert completed(outcomes) >= 0.95
    assert attained(outcomes, config.rules.tiers["interactive"]) >= 0.85
    assert tpot_p95(outcomes) <= 0.008


def test_without_a_small_prefill_budget_a_stream_stands_still_while_a_prompt_is_read(
    config: Config, trace: list[Arrival]
):
    def longest_gap_p95(budget: int) -> float:
        load = fleet(config, budget=budget)
        outcomes = of(run(load, halved(trace, 0)), "interactive")
        gaps = sorted(one.longest_gap for one in outcomes if one.longest_gap and on([one], Pattern.C, load))
        return percentile(gaps, 95) or 0.0

    assert longest_gap_p95(256) < 0.008
    assert longest_gap_p95(16_384) > 0.033


def test_equal_arguments_give_equal_runs(config: Config, trace: list[Arrival]):
    runs = [run(fleet(config), halved(trace[:120], 1)) for _ in range(2)]
    assert runs[0] == runs[1]


def test_a_prediction_comes_near_to_what_is_then_seen(config: Config, trace: list[Arrival]):
    served: list[Served] = []
    load = fleet(config)
    load.on_served = served.append
    run(load, halved(trace, 0))
    errors = sorted(abs(one.ttft - one.predicted_ttft) for one in served if one.ttft and one.predicted_ttft)
    assert percentile(errors, 50) < 0.005  # type: ignore[operator]
    assert percentile(errors, 95) < 0.060  # type: ignore[operator]


def test_a_real_engine_does_not_run_in_virtual_time(config: Config):
    with pytest.raises(ValueError, match="cpu0 runs the engine llamacpp; only sim runs in virtual time"):
        facts_of(config.workers[0])
