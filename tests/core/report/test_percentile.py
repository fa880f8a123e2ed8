"""Percentiles by nearest rank."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diplex_core.report import Spread, percentile

VALUES = st.lists(st.floats(0, 1e6), min_size=1)
PERCENTS = st.floats(0.01, 100)


@pytest.mark.parametrize(
    ("values", "percent", "seen"),
    [
        ([7], 50, 7),
        ([1, 2], 50, 1),
        ([1, 2, 3], 50, 2),
        (range(1, 21), 95, 19),
        (range(1, 101), 7, 7),
        (range(1, 101), 95, 95),
        (range(1, 101), 99, 99),
        (range(1, 101), 100, 100),
        ([], 95, None),
    ],
)
def test_a_percentile_is_the_value_at_its_nearest_rank(
    values: list[float], percent: float, seen: float | None
):
    assert percentile(list(values), percent) == seen


@pytest.mark.parametrize("percent", [0, -1, 100.1])
def test_a_percentile_outside_its_range_is_an_error(percent: float):
    with pytest.raises(ValueError, match="Mend: above 0, at most 100"):
        percentile([1.0], percent)


@given(VALUES, PERCENTS, PERCENTS)
def test_a_higher_percent_never_gives_a_smaller_value(values: list[float], one: float, other: float):
    low, high = sorted((one, other))
    ordered = sorted(values)
    below, above = percentile(ordered, low), percentile(ordered, high)
    assert below is not None and above is not None and below <= above


@given(VALUES, st.integers(1, 100))
def test_at_least_so_many_values_do_not_exceed_it_and_with_any_smaller_value_they_would(
    values: list[float], percent: int
):
    ordered = sorted(values)
    seen = percentile(ordered, percent)
    assert seen is not None
    assert sum(value <= seen for value in values) * 100 >= percent * len(values)
    assert sum(value < seen for value in values) * 100 < percent * len(values)


def test_a_spread_leaves_out_what_never_happened():
    assert Spread.of([None, 2.0, None]) == Spread(2.0, 2.0, 2.0)
    assert Spread.of([None]) == Spread(None, None, None)
