"""When to come back, and what is kept until then."""

import pytest

from diplex_core.appointments import GRACE, LONGEST, MOST, Appointments, Fingerprint

MARK = Fingerprint("acme", "bulk", "m", 100, 50, 1)
OTHER = Fingerprint("acme", "bulk", "m", 200, 50, 1)


def made(book: Appointments, *, mark: Fingerprint = MARK, now: float = 0.0, tokens: int = 100) -> float:
    return book.make("q", mark, tokens, rate=100.0, earliest=now + 1.0, now=now)


def faithful(book: Appointments) -> None:
    """Some came back when they were told."""
    for number in range(30):
        mark = MARK._replace(prompt=number)
        book.make("q", mark, 1, rate=1e6, earliest=0.0, now=0.0)
        assert book.come("q", mark, 0.0) is not None


def test_each_comes_after_what_is_booked_already() -> None:
    book = Appointments()
    assert [made(book) for _ in range(4)] == pytest.approx([1.0, 1.0, 2.0, 3.0])


def test_where_others_are_served_first_all_come_after_them() -> None:
    book = Appointments()
    waits = [book.make("q", MARK, 100, rate=10.0, earliest=5.0, starts=5.0, now=0.0) for _ in range(3)]
    assert waits == pytest.approx([5.0, 15.0, 25.0])


def test_who_comes_at_its_time_is_known_and_only_once() -> None:
    book = Appointments()
    wait = made(book)
    assert book.come("q", MARK, 0.5) is None, "too early"
    assert book.come("q", OTHER, wait) is None, "another"
    found = book.come("q", MARK, wait)
    assert found is not None and found.since == 0.0
    assert book.come("q", MARK, wait) is None
    assert len(book) == 0


def test_of_two_alike_the_first_to_be_due_comes_first() -> None:
    book = Appointments()
    made(book)
    made(book, now=0.5)
    first, second = book.come("q", MARK, 1.6), book.come("q", MARK, 1.6)
    assert first is not None and second is not None
    assert (first.at, second.at) == pytest.approx((1.0, 1.5))


def test_who_does_not_come_is_expected_no_longer() -> None:
    book = Appointments()
    wait = made(book)
    assert book.come("q", MARK, wait + GRACE + 0.1) is None
    assert len(book) == 0
    assert book.all_kept("q", wait + GRACE + 0.1) == 0.0


def test_what_is_kept_is_what_those_due_about_now_need_once_they_are_known_to_come() -> None:
    book = Appointments()
    faithful(book)
    for _ in range(3):
        made(book)
    kept = book.kept("q", 0.9, 0.2)
    assert 1.5 < kept.requests <= 2.0, "two are due at 1.0"
    assert 150 < kept.tokens <= 200
    book.come("q", MARK, 1.0)
    assert book.kept("q", 1.0, 0.1).requests <= 1.0


def test_where_nobody_comes_back_nothing_is_kept() -> None:
    book = Appointments()
    for number in range(40):
        wait = book.make("q", MARK, 1, rate=1e6, earliest=number, now=number)
        assert book.kept("q", number + wait, 0.1).tokens == 0.0
        book.tick(number + wait + GRACE + 0.1)
    assert len(book) <= 40
    assert book.kept("q", 100.0, 1.0).requests < 0.1


def test_memory_is_bounded() -> None:
    book = Appointments()
    for _ in range(MOST + 100):
        book.make("q", MARK, 1, rate=1e6, earliest=1.0, now=0.0)
    assert len(book) == MOST
    assert book.make("p", MARK, 10**9, rate=1.0, earliest=10**6, now=0.0) == LONGEST
