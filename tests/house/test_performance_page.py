"""The page about performance shows what its benchmark measured."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest


def test_every_table_of_the_page_is_made_of_the_committed_results(root: Path):
    table = runpy.run_path(str(root / "benchmarks/data_plane/table.py"))
    page = (root / "docs/performance.md").read_text()
    results = json.loads((root / "benchmarks/data_plane/results.json").read_text())
    assert table["filled"](page, results) == page


def test_every_picture_of_a_profile_is_small_enough_to_keep(root: Path):
    pictures = list((root / "docs/pictures").glob("data-plane-*.svg"))
    assert pictures
    assert all(one.stat().st_size < 200_000 for one in pictures)


@pytest.mark.parametrize(
    ("own", "peers", "verdict"),
    [
        (7.0, {"smg": 10.0}, "met"),
        (7.1, {"smg": 10.0, "vllm-router": 20.0}, "missed"),
        (7.0, {}, "not measured"),
    ],
)
def test_a_ratio_is_held_against_the_cheapest_peer_that_ran(
    own: float, peers: dict[str, float], verdict: str, root: Path
):
    bars = runpy.run_path(str(root / "benchmarks/data_plane/bars.py"))
    figures = {who: {"us": {"median": value}} for who, value in {"diplex": own, **peers}.items()}
    assert bars["ratio"]("what", figures, "us", 0.7)["verdict"] == verdict


def test_tokens_are_counted_however_the_bytes_are_cut(root: Path):
    """One event may hold several tokens, and a read may end anywhere."""
    load = runpy.run_path(str(root / "benchmarks/data_plane/load.py"))
    upstream = SimpleNamespace(**runpy.run_path(str(root / "benchmarks/data_plane/upstream.py")))
    gathered = upstream._chunk(upstream._event({"content": " dobe figu gaho"}))
    answer = upstream.HEAD + upstream.FIRST + upstream.NEXT[1] + gathered + upstream.LAST
    for size in (1, 2, 7, 100, len(answer)):
        group = load["Group"]({"port": 0, "tokens": 5, "again": False})
        stream = load["Stream"](group, 0)
        for start in range(0, len(answer), size):
            stream.data_received(answer[start : start + size])
        assert (group.tokens, group.done) == (5, 1), f"in pieces of {size}"
