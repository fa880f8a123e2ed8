"""Which addresses are out of reach, by what became of their dials."""

import pytest

from diplex.wire.reach import TRY_AGAIN_AFTER, Reach


class Now:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def reach(now: Now) -> Reach:
    return Reach(now)


def test_nothing_is_out_of_reach_before_it_was_dialled(reach: Reach) -> None:
    assert not reach.out_of_reach("a:1")
    assert not reach.nothing_in_reach()


def test_one_dial_tells_of_an_address_that_was_never_reached(reach: Reach) -> None:
    reach.failed("a:1")
    assert reach.out_of_reach("a:1")


def test_one_that_was_reached_before_may_be_down_and_takes_two_dials_in_a_row(reach: Reach) -> None:
    reach.reached("a:1")
    reach.failed("a:1")
    assert not reach.out_of_reach("a:1")
    reach.failed("a:1")
    assert reach.out_of_reach("a:1")


def test_one_that_answers_again_is_in_reach(reach: Reach) -> None:
    reach.failed("a:1")
    reach.reached("a:1")
    assert not reach.out_of_reach("a:1")


def test_nothing_is_in_reach_only_while_nothing_is(reach: Reach) -> None:
    reach.failed("a:1")
    assert reach.nothing_in_reach()
    reach.reached("b:1")
    assert not reach.nothing_in_reach()


def test_what_is_out_of_reach_is_due_for_one_more_dial_after_a_minute(reach: Reach, now: Now) -> None:
    reach.failed("a:1")
    reach.reached("b:1")
    assert reach.due() == []
    now.seconds += TRY_AGAIN_AFTER
    assert reach.due() == ["a:1"]
    assert reach.due() == []  # its dial is under way
    assert reach.out_of_reach("a:1")
