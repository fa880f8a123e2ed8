"""Jain's index of fairness."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diplex_core.report import jain


@pytest.mark.parametrize(
    ("shares", "index"),
    [([5, 5], 1.0), ([10, 0], 0.5), ([1, 0, 0, 0], 0.25), ([3], 1.0), ([1, 2, 3], 36 / 42)],
)
def test_the_index_tells_even_from_uneven(shares: list[float], index: float):
    assert jain(shares) == pytest.approx(index)


@pytest.mark.parametrize("shares", [[], [0], [0, 0]])
def test_where_nobody_got_anything_there_is_no_index(shares: list[float]):
    assert jain(shares) is None


@given(st.lists(st.floats(0, 1e9), min_size=1).filter(any))
def test_the_index_lies_between_one_nth_and_one(shares: list[float]):
    index = jain(shares)
    assert index is not None
    assert 1 / len(shares) - 1e-9 <= index <= 1 + 1e-9


@given(st.lists(st.integers(0, 10**6), min_size=1).filter(any), st.integers(1, 1000))
def test_the_unit_of_the_shares_does_not_matter(shares: list[int], factor: int):
    assert jain(share * factor for share in shares) == pytest.approx(jain(shares))
