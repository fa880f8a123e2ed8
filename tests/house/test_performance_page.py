"""The page about performance shows what its benchmark measured."""

import json
import runpy
from pathlib import Path


def test_every_table_of_the_page_is_made_of_the_committed_results(root: Path):
    table = runpy.run_path(str(root / "benchmarks/data_plane/table.py"))
    page = (root / "docs/performance.md").read_text()
    results = json.loads((root / "benchmarks/data_plane/results.json").read_text())
    assert table["filled"](page, results) == page


def test_every_picture_of_a_profile_is_small_enough_to_keep(root: Path):
    pictures = list((root / "docs/pictures").glob("data-plane-*.svg"))
    assert pictures
    assert all(one.stat().st_size < 200_000 for one in pictures)
