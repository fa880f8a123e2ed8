"""A window: none for a reader that keeps up, a bound for one that lags, none again when it has caught up."""

import pytest

from diplex.wire.window import Window


@pytest.fixture
def told() -> list[int]:
    return []


@pytest.fixture
def window(told: list[int]) -> Window:
    return Window(10, told.append)


def test_a_reader_that_keeps_up_never_moves_a_window(window: Window, told: list[int]) -> None:
    for index in range(1, 1000):
        window.came(index)
        window.took(index)
    assert told == []


def test_a_reader_that_takes_nothing_shuts_its_window_once_and_at_what_has_come(
    window: Window, told: list[int]
) -> None:
    for index in range(1, 30):
        window.came(index)
    assert told == [11]


def test_as_the_reader_takes_what_waits_the_window_moves_ahead_of_it(window: Window, told: list[int]) -> None:
    window.came(11)
    window.took(4)
    assert told == [11]  # seven tokens still wait: more than half of what may
    window.took(6)
    assert told == [11, 16]
    window.came(16)
    window.took(16)
    assert told == [11, 16, 26]


def test_a_reader_that_has_caught_up_has_no_bound_again(window: Window, told: list[int]) -> None:
    window.came(11)
    window.took(11)
    window.came(15)
    window.took(15)
    assert told == [11, 21, 0]


def test_tokens_that_were_on_their_way_when_the_window_shut_count_like_any_others(
    window: Window, told: list[int]
) -> None:
    window.came(11)
    window.came(14)
    window.took(14)
    assert told == [11, 24]


def test_the_longest_of_several_choices_is_what_counts(window: Window, told: list[int]) -> None:
    window.came(8)
    window.came(3)
    assert (window.so_far, told) == (8, [])


@pytest.mark.parametrize("ahead", [1, 2, 7, 512])
def test_whatever_the_pace_more_than_ahead_never_waits_and_nobody_is_left_shut(ahead: int) -> None:
    upto = 0

    def move(to: int) -> None:
        nonlocal upto
        upto = to

    window, sent, taken, most = Window(ahead, move), 0, 0, 0
    for step in range(5 * ahead + 50):
        while sent < 4 * ahead + 20 and (not upto or sent < upto) and sent < (step + 1) * 3:
            sent += 1
            window.came(sent)
        most = max(most, sent - taken)
        if step % 3 == 0 or step > 4 * ahead:
            taken = window.so_far
            window.took(taken)
    assert sent == 4 * ahead + 20
    assert most <= ahead + 9  # what comes between two looks of this reader
