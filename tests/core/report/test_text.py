"""The report as people read it."""

from collections.abc import Callable
from typing import Any

import pytest

from diplex_core.report import (
    Ending,
    LedgerFigures,
    Outcome,
    Pool,
    Report,
    WorkerFigures,
    report_of,
    text,
)
from diplex_core.report.text import percent
from diplex_core.words import Tier

Make = Callable[..., Outcome]
POOL = Pool(150_000, 1234.5, 4321, 0)
SIMULATED = WorkerFigures("C", "sim", True, "chapter", POOL, {"interactive": 1_234_567, "bulk": 7})
REAL = WorkerFigures("A", "vllm", False, None, POOL)


@pytest.fixture
def made(outcome: Make, tiers: dict[str, Tier]) -> Callable[..., Report]:
    def make(
        workers: dict[str, WorkerFigures], ledger: LedgerFigures | None = None, *more: Outcome, **said: Any
    ) -> Report:
        outcomes = [outcome(), outcome("bulk", ttft=123.4, e2e=432.1), *more]
        return report_of(
            outcomes, tiers, workers, ledger or LedgerFigures(2, 2), model="m", duration=10.0, **said
        )

    return make


@pytest.mark.parametrize(
    ("workers", "first"),
    [
        ({"pkg0": SIMULATED}, "SIMULATED: every engine is, calibration chapter; no GPU made these figures"),
        ({"pkg0": SIMULATED, "box0": REAL}, "PARTLY SIMULATED: 1 of 2 engines are, calibration chapter"),
        ({"box0": REAL}, "real engines (vllm)"),
    ],
)
def test_the_first_line_says_whether_a_simulation_made_the_figures(
    workers: dict[str, WorkerFigures], first: str, made: Callable[..., Report]
):
    assert text(made(workers)).splitlines()[0] == first


def test_no_line_is_wider_than_a_hundred_columns(made: Callable[..., Report], outcome: Make):
    many = {
        f"a-package-with-a-long-name-{n}": WorkerFigures(
            "A+EAGLE", "llamacpp", True, "measured", POOL,
            {tier: 1_000_000 for tier in ("interactive", "standard", "longform", "bulk")},
        )
        for n in range(3)
    }  # fmt: skip
    odd = outcome(ended=Ending.FAILED, problem="a reason of many words that goes on and on " * 5)
    said = text(made(many, LedgerFigures(3, 2, 5, over_capacity=1), odd, notes=["word " * 60]))
    assert max(map(len, said.splitlines())) <= 100


def test_a_reason_is_told_once_with_its_mend(made: Callable[..., Report], outcome: Make):
    refused = [
        outcome(ended=Ending.FAILED, problem="REQUEST_TOO_LARGE", detail=f"needs {blocks} blocks. Mend: less")
        for blocks in (70, 80)
    ]
    said = text(made({"pkg0": SIMULATED}, None, *refused)).splitlines()
    assert said[-1] == "2 failed: REQUEST_TOO_LARGE; the first: needs 70 blocks. Mend: less"


def test_what_never_happened_is_a_dash(outcome: Make, tiers: dict[str, Tier]):
    report = report_of(
        [outcome(ended=Ending.REJECTED)], tiers, {}, LedgerFigures(1, 1), model="m", duration=1.0
    )
    row = next(line for line in text(report).splitlines() if line.startswith("bulk") and "E2E" in line)
    assert row.split()[1:8] == ["-"] * 7


def test_a_ledger_that_is_not_as_it_must_be_is_shouted(made: Callable[..., Report]):
    assert "NOT AS IT MUST BE" not in text(made({"pkg0": SIMULATED}))
    assert "NOT AS IT MUST BE: a pool held more than it has, 1 times" in text(
        made({"pkg0": SIMULATED}, LedgerFigures(2, 2, over_capacity=1))
    )


@pytest.mark.parametrize(
    ("share", "said"), [(1.0, "100.0 %"), (0.9996, "99.9 %"), (0.856, "85.6 %"), (0.0, "0.0 %"), (None, "-")]
)
def test_a_share_never_reads_as_the_whole_when_it_is_not(share: float | None, said: str):
    assert percent(share) == said


def test_a_large_fleet_has_a_row_for_those_that_are_alike(made: Callable[..., Report]):
    fleet = {f"pkg{n}": WorkerFigures("A", "sim", True, "chapter", Pool(1000, 10.0 + n, 100 + n, 0),
                                      {"bulk": 1 + n}) for n in range(30)}  # fmt: skip
    other = WorkerFigures("C", "sim", True, "chapter", POOL, {"interactive": 7})
    lines = text(made({**fleet, "last": other})).splitlines()
    head = next(at for at, line in enumerate(lines) if line.startswith("workers"))
    assert lines[head + 1].split() == [
        *("30", "A", "sim", "(chapter)", "1,000", "24", "129", "13%", "0", "1", "to", "30", "bulk", "465"),
    ]
    assert lines[head + 2].split()[:4] == ["1", "C", "sim", "(chapter)"]
    assert not any("pkg" in line for line in lines)
    assert max(map(len, lines)) <= 100
