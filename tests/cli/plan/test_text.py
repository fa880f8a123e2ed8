"""The page as an engineer reads it."""

import re
from collections.abc import Callable

import pytest

from diplex_cli.plan.lines import WIDTH
from diplex_cli.plan.text import text
from diplex_core.plan.page import Page

Pages = Callable[..., Page]

FIGURES = re.compile(r"([\d,]+\.\d\d) +([\d,]+\.\d\d)")
SUMS = ("│ weights", "│ KV pool", "│ all of it")


def figures(line: str) -> list[tuple[float, float]]:
    """GB and GiB of each column of a line of the box."""
    return [(float(gb.replace(",", "")), float(gib.replace(",", ""))) for gb, gib in FIGURES.findall(line)]


def test_a_page_is_at_most_as_wide_as_a_terminal(any_page: Page):
    assert max(map(len, text(any_page).splitlines())) <= WIDTH


def test_no_line_ends_in_spaces(any_page: Page):
    assert [line for line in text(any_page).splitlines() if line != line.rstrip()] == []


def test_the_frame_of_the_box_is_straight(any_page: Page):
    drawn = [line for line in text(any_page).splitlines() if line[:1] in ("┌", "│", "├", "└")]
    assert len(drawn) > 10
    assert {len(line) for line in drawn} == {WIDTH}
    assert {line[-1] for line in drawn} == {"┐", "│", "┤", "┘"}


def test_what_the_box_says_adds_up_exactly_as_it_is_written(any_page: Page):
    box = [line for line in text(any_page).splitlines() if line.startswith("│") and FIGURES.search(line)]
    parts = [line for line in box if not line.startswith(SUMS)]
    pool = next(line for line in box if line.startswith("│ KV pool"))
    if not any_page.fits:
        parts.append(pool)
    for unit in (0, 1):
        total = sum(pair[unit] for pair in figures(box[-1]))
        assert sum(pair[unit] for line in parts for pair in figures(line)) == pytest.approx(total, abs=1e-6)


def test_the_first_line_says_what_is_planned_and_the_second_whether_it_fits(page: Pages):
    lines = text(page()).splitlines()
    assert lines[0] == ("qwen2.5-72b on NVIDIA B200 SXM · pattern A · weights mxfp4-mixed · KV cache mxfp8")
    assert lines[1].startswith("FITS: 16 sequences × 32,768 tokens take 88.58 GB (82.50 GiB) of a KV pool")


def test_what_does_not_fit_is_told_with_the_nearest_that_does(page: Pages):
    said = text(page(batch=64))
    assert "DOES NOT FIT: 64 × 32,768 tokens need 354.3 GB" in said
    assert "Nearest: --batch 21, or --context 11104" in said
    assert "64 do not fit: these are the figures of the 21 that do." in said


def test_where_not_one_sequence_fits_nothing_is_predicted(page: Pages):
    said = text(page(model="qwen2.5-32b", gpu="h100", kv_cache="bf16", context=131072, batch=1))
    assert "Nothing to predict: not one sequence of this context fits." in said
    assert re.search(r"^most sequences .*none$", said, re.MULTILINE)


def test_dies_stand_side_by_side_where_the_pattern_tells_them_apart(page: Pages):
    for pattern in ("B", "C", "D"):
        assert re.search(r"^│ +die 0 +die 1 +│$", text(page(pattern=pattern)), re.MULTILINE), pattern
    assert "die 0   " not in text(page())
    assert re.search(r"^│ +GPU 0 +GPU 1 +│$", text(page(gpu="h200", pattern="C", count=2)), re.MULTILINE)


def test_both_engines_are_told_how_much_memory_to_take(page: Pages):
    said = text(page())
    assert "TensorRT-LLM --free_gpu_memory_fraction 0.923" in said
    assert "vLLM --gpu-memory-utilization 0.948" in said


def test_a_figure_beyond_the_limit_is_marked_with_how_far_beyond(page: Pages):
    said = text(page(batch=1, context=2048))
    # 210 tok/s by the chapter; 44.7 GB and 2,048 tokens of KV at 7.7 TB/s are 171.
    assert re.search(r"^tok/s a stream +210 +▲ 1\.23× +- +171$", said, re.MULTILINE)
    assert "▲ 1.20×: 1.2 times better than the limit. No engine can do that; it is a claim." in said


def test_a_page_without_claims_beyond_the_limit_does_not_explain_the_mark(page: Pages):
    said = text(page(gpu="h200", pattern="C", count=2))
    assert "▲" not in said
    assert "chapter: -, for it says nothing of such a deployment." in said


def test_what_is_scaled_from_the_chapter_says_so(page: Pages):
    assert "chapter, scaled from qwen2.5-72b" in text(page(model="llama-3.1-8b"))


def test_each_discrepancy_of_the_chapter_is_named(page: Pages):
    said = text(page())
    for why in (
        "1.16 bytes a parameter, above FP8's 1.00",
        "0.482 bytes a parameter, below FP4 with scales",
        "counts one table; untied, there are two of 2.49 GB",
        "2.1 million parameters of 4 bytes",
        "5.12 GB each is 160,000 B × 32,000, not 168,960 × 32,768",
        "its own groups add up to 153.2",
        "192 less 153.2 is 38.8; the runtime reports 191.5",
        "20 GiB of plain FP8 = 21.5 GB",
        "320 GiB of plain FP8 = 343.6 GB",
    ):
        assert why in said, why


def test_the_chapters_memory_is_shown_only_beside_what_it_is_about(page: Pages):
    assert "THE CHAPTER'S MEMORY" not in text(page(weights="nvfp4"))
    assert "THE CHAPTER'S MEMORY" not in text(page(model="qwen2.5-32b"))


def test_what_must_be_known_to_decide_is_said(page: Pages):
    said = " ".join(text(page()).split())
    assert "7.7 TB/s give at most 172 tok/s without speculation" in said
    assert "Only speculation goes past that" in said
    assert "Pattern C adds no bandwidth" in said
    assert "draft and target share the GPU" in said
