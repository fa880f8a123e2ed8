"""The page about the model shows what its command prints."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def printed(root: Path) -> dict[str, Any]:
    return runpy.run_path(str(root / "benchmarks/model/rows.py"))


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs/model.md").read_text()


@pytest.mark.parametrize(("kind", "found"), [("table", "rows"), ("untaken", "contradicted")])
def test_every_table_of_rows_is_what_the_command_prints(
    kind: str, found: str, printed: dict[str, Any], page: str
):
    lines: Callable[..., Any] = printed[kind]
    assert "\n".join(lines(printed[found]())) + "\n\n" in page
