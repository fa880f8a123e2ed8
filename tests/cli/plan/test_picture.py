"""The picture is drawn for every kind of page, in both formats."""

from collections.abc import Callable
from pathlib import Path

import pytest

from diplex_core.plan.page import Page

Pages = Callable[..., Page]

picture = pytest.importorskip("diplex_cli.plan.picture")


def test_every_kind_of_page_is_drawn(any_page: Page, tmp_path: Path):
    picture.draw(any_page, tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_page_is_the_same_picture(page: Pages, tmp_path: Path):
    for name in ("one.svg", "two.svg"):
        picture.draw(page(), tmp_path / name)
    one, two = ((tmp_path / name).read_text() for name in ("one.svg", "two.svg"))
    assert "<svg" in one and one == two
