"""What holding the expected length is for: benchmarks/growth, on the first 1,200 requests of its trace."""

import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from diplex_cli import reader
from diplex_core.sim.facts import facts_of
from diplex_core.words import Reserve

GROWTH = Path(__file__).parents[3] / "benchmarks" / "growth"


@pytest.fixture(scope="module")
def ran() -> Any:
    """One of the two packages alone, so that half as many requests are too many."""
    growth = runpy.run_path(str(GROWTH / "run.py"))
    config = reader.read([str(GROWTH / "fleet.yaml")]).config()
    workers = [replace(facts_of(config.workers[0]), context=growth["CONTEXT"])]
    every = list(growth["arrivals"](1_200))
    return [
        growth["run"](reserve.value, config.rules, workers, every, reserve=reserve)
        for reserve in (Reserve.FULL, Reserve.EXPECTED)
    ]


def test_three_times_as_many_run_at_once_as_with_all_that_they_may_come_to(ran: Any):
    full, expected = ran
    assert expected.at_once >= 3 * full.at_once > 0


def test_fewer_than_one_lease_in_a_hundred_gives_way_and_no_answer_is_cut_short(ran: Any):
    full, expected = ran
    assert 0 < expected.preempted < 0.01 * expected.leases
    assert (full.preempted, full.cut_short, expected.cut_short) == (0, 0, 0)
