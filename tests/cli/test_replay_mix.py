"""Requests are dealt to tiers by their shares, the same way for the same seed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diplex_cli.failures import UsageError
from diplex_cli.replay.mix import dealt, shares_in


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("interactive=0.5,bulk=0.5", {"interactive": 0.5, "bulk": 0.5}),
        (" interactive = 0.25 , bulk = 0.75 ", {"interactive": 0.25, "bulk": 0.75}),
        ("bulk", {"bulk": 1.0}),
        ("bulk=1", {"bulk": 1.0}),
        ("a=0.333333,b=0.333333,c=0.333334", {"a": 0.333333, "b": 0.333333, "c": 0.333334}),
    ],
)
def test_shares_are_read(text: str, shares: dict[str, float]):
    assert shares_in(text) == shares


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a=0.5,b=0.6", "the shares make 1.1, not 1. Mend: --tiers a=0.4545,b=0.5455"),
        ("a=0.5", "the shares make 0.5, not 1. Mend: --tiers a=1"),
        ("a=half,b=0.5", "'a=half' is no NAME=SHARE. Mend: --tiers interactive=0.5,bulk=0.5"),
        ("a,b", "'a' is no NAME=SHARE."),
        ("a=0,b=1", "'a=0': a share is above 0 and at most 1. Mend: leave it out"),
        ("=1", "'=1': a share is"),
        ("a=nan,b=1", "'a=nan': a share is"),
        ("a=0.5,a=0.5", "a is said twice. Mend: once"),
        (",", "the shares make 0, not 1. Mend: --tiers interactive=0.5,bulk=0.5"),
    ],
)
def test_shares_that_are_none_are_refused_with_a_mend(text: str, told: str):
    with pytest.raises(UsageError) as raised:
        shares_in(text)
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("shares", "count", "exact"),
    [
        ({"a": 0.5, "b": 0.5}, 500, {"a": 250, "b": 250}),
        ({"a": 0.25, "b": 0.75}, 1000, {"a": 250, "b": 750}),
        ({"a": 0.1, "b": 0.2, "c": 0.7}, 1000, {"a": 100, "b": 200, "c": 700}),
        ({"a": 1.0}, 7, {"a": 7}),
    ],
)
def test_shares_are_kept_exactly(shares: dict[str, float], count: int, exact: dict[str, int]):
    names = dealt(shares, count, seed=3)
    assert {name: names.count(name) for name in shares} == exact


@given(st.integers(1, 99), st.integers(0, 400), st.integers())
def test_any_beginning_of_a_trace_has_its_shares_to_within_half_a_group(part: int, count: int, seed: int):
    names = dealt({"a": part / 100, "b": 1 - part / 100}, count, seed)
    for length in range(count):
        assert abs(names[:length].count("a") - length * part / 100) <= 11


def test_the_order_follows_the_seed_and_no_rhythm():
    shares = {"a": 0.5, "b": 0.5}
    assert dealt(shares, 100, seed=1) == dealt(shares, 100, seed=1) != dealt(shares, 100, seed=2)
    assert dealt(shares, 100, seed=1) not in (["a", "b"] * 50, ["b", "a"] * 50)
