"""The chapter's memory beside what comes of counting it."""

import pytest

from diplex_core.plan.claims import Claims, claims_about
from diplex_core.plan.deployment import deployment_of


@pytest.fixture
def said() -> Claims:
    found = claims_about(deployment_of("qwen2.5-72b"))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("what", "claimed", "counted"),
    [
        # 12.08 billion parameters of 0.78125 bytes, 58.13 of 0.53125, two tables of 1.246 in BF16.
        ("attention, FP4/FP6", 14.0, 9.44),
        ("FFN, FP4/FP6", 28.0, 30.88),
        ("embeddings, LM head", 2.6, 4.98),
        ("norms, biases (FP32)", 0.1, 0.01),
        ("weights", 44.7, 45.31),
        ("KV cache, 16 × 32k", 82.0, 88.58),
        ("sum", 152.0, 160.39),
        ("free", 40.0, 31.11),
    ],
)
def test_a_row_is_claimed_and_counted(said: Claims, what: str, claimed: float, counted: float):
    row = next(row for row in said.rows if row.what == what)
    assert (row.claimed / 1e9, row.counted / 1e9) == (claimed, pytest.approx(counted, abs=0.006))


def test_every_sum_is_that_of_its_rows(said: Claims):
    counted = {row.what: row.counted for row in said.rows}
    sums = [row for row in said.rows if row.sums]
    assert [row.what for row in sums] == ["weights", "sum"]
    assert all(row.counted == sum(counted[what] for what in row.sums) for row in sums)


def test_counted_groups_and_what_is_free_are_the_memory(said: Claims):
    memory = deployment_of("qwen2.5-72b").gpu.memory_bytes
    assert sum(row.counted for row in said.rows if not row.sums) == memory


def test_every_row_that_differs_says_why(said: Claims):
    assert [row.what for row in said.rows if row.claimed != row.counted and not row.because] == []


def test_the_corner_cases_end_as_the_chapter_says_they_do(said: Claims):
    assert [(one.batch, one.context, one.fits) for one in said.corners] == [
        (1, 131072, True),
        (64, 2048, True),
        (64, 32768, False),
    ]
    assert all(one.fits is one.claimed_fits for one in said.corners)


@pytest.mark.parametrize(
    "other",
    [{"weights": "nvfp4"}, {"kv_cache": "fp8"}, {"pattern": "C"}, {"gpu": "hgx-b200"}, {"count": 2}],
)
def test_the_chapter_is_not_held_against_what_it_is_not_about(other: dict[str, str]):
    assert claims_about(deployment_of("qwen2.5-72b", **other)) is None  # type: ignore[arg-type]
