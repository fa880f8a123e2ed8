"""What each worker was given to read of late, beside the others of its kind."""

import pytest

from diplex_core.peers import Peers, Share


def shares(count: int, now: float = 0.0) -> list[Share]:
    peers = Peers()
    made = []
    for _ in range(count):
        share = Share()
        share.moved(peers, now)
        share.counts(True, now)
        made.append(share)
    return made


def test_the_mean_is_that_of_all_peers() -> None:
    first, second = shares(2)
    first.given(3000, 1.0)
    second.given(1000, 1.0)
    assert first.beside(1.0) == pytest.approx((3000, 2000))
    assert second.beside(1.0) == pytest.approx((1000, 2000))


def test_what_was_given_long_ago_counts_less_of_each_as_of_all() -> None:
    first, second = shares(2)
    first.given(1000, 0.0)
    second.given(1000, 300.0)
    own, mean = first.beside(300.0)
    assert own == pytest.approx(368, abs=1)
    assert mean == pytest.approx((368 + 1000) / 2, abs=1)
    assert first.beside(36_000.0) == pytest.approx((0, 0), abs=1)


def test_one_that_takes_no_requests_is_no_peer() -> None:
    first, second = shares(2)
    first.given(1000, 0.0)
    second.given(3000, 0.0)
    second.counts(False, 0.0)
    second.counts(False, 0.0)
    assert first.beside(0.0) == pytest.approx((1000, 1000))


@pytest.mark.parametrize("away", [1.0, 100_000.0])
def test_one_that_comes_back_begins_no_lower_than_its_peers(away: float) -> None:
    first, second = shares(2)
    first.given(1000, 0.0)
    second.given(1000, 0.0)
    second.counts(False, 0.0)
    first.given(5000, away)
    second.counts(True, away)
    own, mean = second.beside(away)
    assert own == pytest.approx(mean)
    assert mean == pytest.approx(first.beside(away)[0])


def test_one_that_becomes_another_kind_is_measured_by_that() -> None:
    first, second = shares(2)
    first.given(1000, 0.0)
    (other,) = shares(1)
    other.given(9000, 0.0)
    second.moved(other._peers, 0.0)
    assert first.beside(0.0) == pytest.approx((1000, 1000))
    assert second.beside(0.0) == pytest.approx((9000, 9000))


def test_rounding_leaves_no_sum_below_nothing() -> None:
    first, second = shares(2)
    for step in range(100):
        first.given(1 / 3, step / 7)
    first.counts(False, 20.0)
    assert second.beside(20.0)[1] >= 0.0
