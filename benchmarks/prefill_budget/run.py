"""What the prefill budget of a latency worker is for: a table, on the embedded default's two simulated B200s.

    .venv/bin/python benchmarks/prefill_budget/run.py

The first 500 requests of Azure's code trace: every second one of them, interactive and alone; the same beside
the others as bulk; all of them interactive. Each with pattern C reading 256 prompt tokens a step, and 16,384;
and with the interactive tier on C and A, and on C only. The core and the simulated engines run on a virtual
clock: the figures are the `chapter` calibration's, no GPU made them.
"""

import csv
import gzip
from dataclasses import replace
from pathlib import Path

from diplex_cli import reader
from diplex_core.config.values import SimConfig
from diplex_core.report.outcome import Outcome
from diplex_core.report.percentile import percentile
from diplex_core.sim.arrivals import Arrival
from diplex_core.sim.facts import facts_of
from diplex_core.sim.simulation import Simulation
from diplex_core.words import Pattern, Rules, Tier

TRACE = Path(__file__).parents[1] / "traces" / "azure_code_2023.csv.gz"
REQUESTS = 500
BUDGETS = (256, 16_384)
HEAD = (
    "interactive         | on   | budget | attained | TTFT p95 | TPOT p95 |   p99 | longest gap p95 |   p99"
)
ROW = "{:19} | {:4} | {:>6,} |   {:5.1%}  |   {:3.0f} ms |  {:5.2f} ms | {:5.2f} | {:12.1f} ms | {:5.1f}"


def main() -> None:
    config = reader.read([]).config()
    every = list(arrivals())
    half = [arrival for at, arrival in enumerate(every) if at % 2 == 0]
    mixed = [replace(arrival, tier="bulk") if at % 2 else arrival for at, arrival in enumerate(every)]
    print(HEAD)
    print("|".join("-" * len(column) for column in HEAD.split("|")))
    for pattern in ("C, A", "C"):
        rules = narrowed(config.rules, pattern.split(", "))
        for what, load in (("250, alone", half), ("250 beside 250 bulk", mixed), ("500, alone", every)):
            for budget in BUDGETS:
                workers = [
                    replace(worker, prefill_budget=budget) if worker.pattern is Pattern.C else worker
                    for worker in config.workers
                    if isinstance(worker.engine, SimConfig)
                ]
                outcomes: list[Outcome] = []
                Simulation(rules, map(facts_of, workers)).run(load, outcomes.append)
                print(row(what, pattern, budget, outcomes, rules.tiers["interactive"]))


def arrivals() -> list[Arrival]:
    with gzip.open(TRACE, "rt") as file:
        rows = [row for _, row in zip(range(REQUESTS), csv.DictReader(file), strict=False)]
    return [
        Arrival(
            float(row["arrival_s"]),
            int(row["input_tokens"]),
            max(1, int(row["output_tokens"])),
            "interactive",
        )
        for row in rows
    ]


def narrowed(rules: Rules, patterns: list[str]) -> Rules:
    """The same rules, with these patterns for the interactive tier."""
    tier = replace(rules.tiers["interactive"], patterns=tuple(map(Pattern, patterns)))
    return replace(rules, tiers={**rules.tiers, "interactive": tier})


def row(what: str, patterns: str, budget: int, outcomes: list[Outcome], tier: Tier) -> str:
    asked = [one for one in outcomes if one.tier == tier.name]
    ttft = [one.ttft * 1000 for one in asked if one.ttft is not None]
    tpot = [one.tpot * 1000 for one in asked if one.tpot is not None]
    gaps = [one.longest_gap * 1000 for one in asked if one.longest_gap is not None]
    return ROW.format(
        what,
        patterns,
        budget,
        sum(one.met(tier) for one in asked) / len(asked),
        percentile(sorted(ttft), 95),
        percentile(sorted(tpot), 95),
        percentile(sorted(tpot), 99),
        percentile(sorted(gaps), 95),
        percentile(sorted(gaps), 99),
    )


if __name__ == "__main__":
    main()
