"""What the page is drawn of keeps its width, and its figures add up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diplex_cli.plan.lines import WIDTH, bar, box, columns, folded, hundredths, level, rule

SIZES = st.lists(st.integers(0, 10**13), min_size=1, max_size=14)


@given(SIZES, st.sampled_from([10**9, 2**30]))
def test_figures_add_up_as_they_are_written(sizes: list[int], unit: int):
    written = hundredths(sizes, unit)
    assert round(sum(written), 2) == round(sum(sizes) / unit, 2)


@given(SIZES, st.sampled_from([10**9, 2**30]))
def test_a_figure_is_off_by_less_than_a_hundredth(sizes: list[int], unit: int):
    assert all(
        abs(figure - size / unit) < 0.01001
        for figure, size in zip(hundredths(sizes, unit), sizes, strict=True)
    )


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=14), st.integers(8, 60))
def test_pieces_follow_each_other_and_end_where_the_whole_does(sizes: list[int], cells: int):
    whole, start, halves = sum(sizes), 0, 0
    for size in sizes:
        drawn = bar(start, size, whole, cells)
        assert len(drawn) <= cells and drawn.strip()
        halves += 2 * drawn.count("█") + drawn.count("▌") + drawn.count("▐")
        start += size
    assert halves == 2 * cells


def test_what_has_no_size_is_not_drawn():
    assert bar(3, 0, 10, 20) == ""


@pytest.mark.parametrize(("share", "drawn"), [(0.0, "····"), (0.5, "██··"), (1.0, "████"), (7.0, "████")])
def test_a_level_fills_its_ground(share: float, drawn: str):
    assert level(share, 4) == drawn


def test_a_box_and_a_rule_are_as_wide_as_the_page():
    drawn = [*box("MEMORY", ["a", "", "b"]), rule("SPEED")]
    assert {len(line) for line in drawn} == {WIDTH}
    assert drawn[2] == f"├{'─' * (WIDTH - 2)}┤"


def test_a_last_column_of_words_is_folded_to_the_width():
    lines = columns([("name", "3", "word " * 40)], left=(0, 2))
    assert len(lines) > 1 and max(map(len, lines)) <= WIDTH
    assert all(line.startswith(" " * 9) for line in lines[1:])


def test_a_figure_is_not_parted_from_its_unit():
    for before in range(80, 100):
        lines = folded("x" * before + " 88.58 GB and 16 × 32,768 tokens")
        assert "88.58 GB" in "\n".join(lines) and "16 × 32,768 tokens" in "\n".join(lines)
