"""What time alone brings about: only what is due is looked at, once, and at its latest moment."""

from hypothesis import given
from hypothesis import strategies as st

from diplex_core.due import Due


def test_what_is_due_comes_in_the_order_of_the_leases_and_only_once() -> None:
    due = Due()
    for lease_id, at in ((3, 1.0), (1, 2.0), (2, 5.0)):
        due.expect(lease_id, at)
    assert due.by(0.5) == []
    assert due.by(2.0) == [1, 3]
    assert due.by(2.0) == []
    assert len(due) == 1


def test_a_moment_that_moved_counts_at_its_new_place_only() -> None:
    due = Due()
    due.expect(1, 1.0)
    due.expect(1, 3.0)
    due.expect(2, 1.0)
    due.expect(2, None)
    assert due.by(2.0) == []
    assert due.by(3.0) == [1]


moves = st.lists(st.tuples(st.integers(1, 6), st.one_of(st.none(), st.integers(0, 30))), max_size=40)


@given(moves, st.lists(st.integers(0, 40), max_size=5))
def test_it_is_what_a_list_of_all_of_them_would_say(
    moved: list[tuple[int, int | None]], moments: list[int]
) -> None:
    due, naive = Due(), dict[int, int]()
    for lease_id, at in moved:
        due.expect(lease_id, at)
        naive.pop(lease_id, None)
        if at is not None:
            naive[lease_id] = at
    for now in sorted(moments):
        come = sorted(lease_id for lease_id, at in naive.items() if at <= now)
        assert due.by(now) == come
        for lease_id in come:
            del naive[lease_id]


def test_moments_that_count_no_more_do_not_gather() -> None:
    due = Due()
    for number in range(100_000):
        due.expect(number % 10, 600.0 + number)
    assert len(due._heap) < 5_000
