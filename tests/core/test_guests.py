"""Who is on a worker, and what its streams can bear of other prompts' reading."""

from math import inf

import pytest

from diplex_core.guests import Guest, Guests, Reading
from diplex_core.words import Claim

ONE, TWO, THREE = Claim(1, 1), Claim(2, 1), Claim(3, 1)
# A long prompt: 50 ms of reading, during which each token beside it takes 12 ms.
LONG = Reading(seconds=0.050, step=0.012)


def stream(
    *, due: float | None = None, ends: float = 1.0, allowance: float = 0.020, priority: int = 100
) -> Guest:
    return Guest(priority, due, ends, promised=0.008, allowance=allowance)


def came(
    guests: Guests, claim: Claim, guest: Guest, *, now: float = 0.0, reading: Reading | None = LONG
) -> None:
    guests.came(claim, guest, prompt=2000, reading=reading, now=now)


def test_the_backlog_is_the_time_until_the_last_prompt_is_read() -> None:
    guests = Guests()
    came(guests, ONE, stream(due=0.030))
    came(guests, TWO, stream(due=0.080))
    assert guests.backlog(0.010) == pytest.approx(0.070)
    assert guests.unread == 2


def test_a_first_token_that_comes_late_puts_off_all_that_are_behind_it() -> None:
    guests = Guests()
    came(guests, ONE, stream(due=0.030))
    came(guests, TWO, stream(due=0.080))
    guests.read(ONE, 0.050)
    assert guests.backlog(0.050) == pytest.approx(0.050)  # due at 0.100 now
    assert guests.unread == 1


def test_nothing_is_due_of_guests_that_left() -> None:
    guests = Guests()
    came(guests, ONE, stream(due=0.030))
    guests.left(ONE)
    guests.left(ONE)
    assert (guests.backlog(0.0), guests.unread) == (0.0, 0)


def test_a_prompt_harms_a_stream_that_cannot_bear_its_reading() -> None:
    guests = Guests()
    came(guests, ONE, stream(allowance=0.020))
    assert guests.harmed(LONG, 0, 0.0) == 1


@pytest.mark.parametrize(
    ("guest", "priority"),
    [
        (stream(allowance=0.060), 0),  # it can bear it
        (stream(ends=0.0), 0),  # it is over before the prompt is read
        (stream(allowance=-0.001), 0),  # its promise is broken already
        (stream(), 101),  # it is of a lower tier than those that are asked about
        (Guest(100, ends=1.0), 0),  # nothing was promised
        (Guest(100, ends=1.0, promised=0.012, allowance=0.0), 0),  # even a step that reads keeps its promise
    ],
)
def test_a_prompt_harms_nobody_who_can_bear_it_or_was_promised_nothing(guest: Guest, priority: int) -> None:
    guests = Guests()
    came(guests, ONE, guest)
    assert guests.harmed(LONG, priority, 0.0) == 0


def test_each_prompt_that_is_read_beside_a_stream_uses_up_its_allowance() -> None:
    guests = Guests()
    came(guests, ONE, stream(allowance=0.070))
    assert guests.harmed(LONG, 0, 0.0) == 0
    came(guests, TWO, stream(allowance=inf))
    assert guests.harmed(LONG, 0, 0.0) == 1


def test_a_prompt_does_not_slow_those_that_are_read_after_it() -> None:
    guests = Guests()
    came(guests, TWO, stream(due=0.050, allowance=0.060))
    came(guests, ONE, stream(due=0.100, allowance=0.060), reading=LONG)
    came(guests, THREE, Guest(0), reading=None)  # of one that is adopted nobody knows what it means
    assert guests.harmed(Reading(0.055, 0.012), 0, 0.0) == 1  # TWO has borne ONE's; ONE nobody's yet


def test_the_intake_forgets_what_was_granted_long_ago() -> None:
    guests = Guests()
    came(guests, ONE, stream())
    assert guests.intake(0.0) == pytest.approx(1000.0)
    assert guests.intake(2.0) == pytest.approx(1000.0 / 2.71828, rel=1e-4)
    assert guests.intake(60.0) < 1e-9
