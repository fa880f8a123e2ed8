"""A simulated load as a picture: what was run, that it was simulated, and what went wrong where."""

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from diplex_cli.simulate.fleet import Fleet, fleet_of
from diplex_cli.simulate.plot import draw
from diplex_cli.simulate.session import Simulated
from diplex_core.config import Config
from diplex_core.sim.faults import Cut, Drain, Kill, Slow
from diplex_core.words import Pattern, Tier

Run = Callable[..., Simulated]
FAULTS = (Kill(1.0, "pkg1", 1.0), Slow(2.5, "pkg0", 3.0, 1.0), Cut(3.0, "pkg1", 0.5), Drain(4.0, "pkg0"))


def words_of(done: Simulated, file: Path) -> str:
    draw(done, file)
    text = file.read_text()
    ElementTree.fromstring(text)
    return text


def test_a_few_pools_have_a_strip_each(simulated: Run, tmp_path: Path):
    done = simulated("steady:rate=10", 60, shares={"fast": 0.5, "bulk": 0.5}, faults=FAULTS)
    text = words_of(done, tmp_path / "sim.svg")
    for words in (
        "steady, 60 requests · 10/s · 2 packages · m · SIMULATED, calibration chapter",
        "KV blocks in use, pool by pool, % of the pool (simulated, calibration chapter)",
        "pattern A, pkg1",
        "pkg0, pattern C",
        "kill pkg1",
        "slow pkg0, 3 times",
        "cut pkg1",
        "drain pkg0",
    ):
        assert f"<!-- {words} -->" in text, words


def test_many_pools_have_a_row_each(simulated: Run, small: Config, tmp_path: Path):
    done = simulated("poisson", 60, fleet_of(small, 14), load=0.5, faults=FAULTS)
    text = words_of(done, tmp_path / "sim.svg")
    for words in (
        "KV blocks in use, a row for each of 14 pools (simulated, calibration chapter)",
        "pattern C, 7 pools: median, least to most",
        "kill pkg1",
        "% of the pool",
    ):
        assert f"<!-- {words} -->" in text, words


def test_the_same_run_gives_the_same_picture(simulated: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("matplotlib").rcParams, "svg.hashsalt", "diplex")
    one, other = (words_of(simulated("steady:rate=10", 20), tmp_path / name) for name in ("a.svg", "b.svg"))
    assert one == other


def test_a_run_in_which_nobody_serves_is_drawn_too(simulated: Run, fleet: Fleet, tmp_path: Path):
    nobody = Tier("bulk", (Pattern.D,))
    rules = __import__("dataclasses").replace(fleet.rules, tiers={"bulk": nobody})
    done = simulated("steady:rate=10", 3, Fleet(rules, fleet.workers, {}))
    draw(done, tmp_path / "sim.png")
    assert (tmp_path / "sim.png").read_bytes().startswith(b"\x89PNG")
