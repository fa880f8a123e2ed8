"""What an engine tells of its prefix blocks is believed for as long as nothing of it is missing."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diplex_workers.residency import FIRST, NOTHING, BlockEvent, Change, Residency

SIZE = 16


def event(number: int, *stored: int, epoch: int = 1, size: int = SIZE, **more: object) -> BlockEvent:
    return BlockEvent(epoch, number, size, stored, **more)  # type: ignore[arg-type]


@pytest.fixture
def residency() -> Residency:
    residency = Residency(SIZE)
    residency.take(event(1, 10, 11))
    residency.take(event(2, 12))
    return residency


def test_before_its_engine_has_spoken_nothing_is_believed():
    assert Residency(SIZE).problem


def test_events_in_their_order_are_taken_over(residency):
    assert (residency.kept, residency.problem) == ({10, 11, 12}, "")
    assert residency.take(event(3, 13, removed=(10,))) == Change((13,), (10,))
    assert residency.kept == {11, 12, 13}


def test_an_event_changes_only_what_was_otherwise(residency):
    assert residency.take(event(3, 10, removed=(99,))) == NOTHING


def test_a_repeat_is_passed_over(residency):
    residency.take(event(3, removed=(10,)))
    assert residency.take(event(1, 10, 11)) == NOTHING
    assert (residency.kept, residency.problem) == ({11, 12}, "")


def test_from_a_hole_on_nothing_is_believed_and_the_problem_says_what_is_missing(residency):
    assert residency.take(event(5, 15)) == NOTHING
    assert residency.problem == "2 of its engine's events are missing, from number 3 on"
    residency.take(event(6, 16))
    assert (residency.kept, bool(residency.problem)) == ({10, 11, 12}, True)


def test_a_hole_is_mended_by_the_missing_events_in_their_order(residency):
    residency.take(event(5, 15))
    residency.take(event(3, 13))
    assert residency.problem, "two more are missing"
    residency.take(event(4, removed=(13,)))
    residency.take(event(5, 15))
    assert (residency.kept, residency.problem) == ({10, 11, 12, 15}, "")


def test_a_hole_is_mended_by_a_full_listing(residency):
    residency.take(event(5, 15))
    assert residency.take(event(7, 11, 20, listing=True)) == Change((20,), tuple({10, 12}))
    assert (residency.kept, residency.problem) == ({11, 20}, "")
    assert residency.take(event(8, 21)) == Change((21,))


def test_a_listing_that_is_older_than_a_later_event_does_not_mend(residency):
    residency.take(event(9, 15))
    residency.take(event(5, 11, listing=True))
    assert residency.problem
    residency.take(event(2, 99, listing=True))
    assert 99 not in residency.kept, "that is older than what is known"


def test_an_engine_that_clears_its_cache_lists_nothing(residency):
    residency.take(event(3, listing=True))
    assert (residency.kept, residency.problem) == (set(), "")


def test_an_engine_that_began_anew_and_is_heard_from_its_first_event_is_believed(residency):
    change = residency.take(event(FIRST, 11, 30, epoch=2))
    assert (residency.kept, residency.problem) == ({11, 30}, "")
    assert set(change.removed) == {10, 12}


def test_an_engine_that_began_anew_and_is_not_heard_from_its_first_event_is_not(residency):
    change = residency.take(event(4, 30, epoch=2))
    assert (set(change.removed), residency.kept) == ({10, 11, 12}, set())
    assert residency.problem == "3 of its engine's events are missing, from number 1 on"
    residency.take(event(9, 31, epoch=2, listing=True))
    assert (residency.kept, residency.problem) == ({31}, "")


def test_what_comes_late_from_an_engines_former_life_is_nobodys(residency):
    residency.take(event(FIRST, 30, epoch=2))
    assert residency.take(event(3, 13)) == NOTHING
    assert residency.take(event(3, 13, listing=True)) == NOTHING
    assert (residency.kept, residency.problem) == ({30}, "")


def test_blocks_of_another_size_are_not_those_of_the_pool(residency):
    assert residency.take(event(3, 13, size=32)) == NOTHING
    assert residency.problem == "its engine's blocks have 32 tokens, the pool's 16"
    residency.take(event(4, 14))
    assert residency.problem, "one event is missing"
    residency.take(event(5, 14, listing=True))
    assert residency.problem == ""


@dataclass
class Engine:
    """The truth: what it keeps behind each of its events, by epoch and number."""

    epoch: int = 1
    number: int = 0
    kept: set[int] = field(default_factory=set)
    behind: dict[tuple[int, int], frozenset[int]] = field(default_factory=dict)
    sent: list[BlockEvent] = field(default_factory=list)

    def change(self, stored: set[int], removed: set[int], listing: bool) -> None:
        self.kept = (self.kept | stored) - removed
        self.number += 1
        told = self.kept if listing else stored - removed
        gone = () if listing else tuple(removed)
        self.sent.append(BlockEvent(self.epoch, self.number, SIZE, tuple(told), gone, listing))
        self.behind[self.epoch, self.number] = frozenset(self.kept)

    def restart(self) -> None:
        self.epoch, self.number, self.kept = self.epoch + 1, 0, set()


BLOCKS = st.sets(st.integers(0, 9), max_size=3)
STEPS = st.one_of(
    st.tuples(st.just("change"), BLOCKS, BLOCKS, st.sampled_from([False, False, False, True])),
    st.tuples(st.just("restart")),
    st.tuples(st.just("deliver"), st.just(0)),
    st.tuples(st.just("deliver"), st.integers(0, 3)),
    st.tuples(st.just("lose"), st.integers(0, 3)),
    st.tuples(st.just("repeat"), st.integers(0, 30)),
)


@given(st.lists(STEPS, min_size=5, max_size=60))
def test_what_is_believed_is_true_whatever_is_lost_repeated_or_late(steps):
    engine, residency, on_its_way = Engine(), Residency(SIZE), list[BlockEvent]()
    known, latest = set[int](), (0, 0)
    for word, *more in steps:
        if word == "change":
            engine.change(*more)
            on_its_way.append(engine.sent[-1])
        elif word == "restart":
            engine.restart()
        elif word == "lose" and on_its_way:
            on_its_way.pop(more[0] % len(on_its_way))
        else:
            lot = on_its_way if word == "deliver" else engine.sent
            if not lot or word == "lose":
                continue
            at = more[0] % len(lot)
            came = on_its_way.pop(at) if word == "deliver" else lot[at]
            change = residency.take(came)
            known = (known - set(change.removed)) | set(change.stored)
            latest = max(latest, (came.epoch, came.number))
        assert known == residency.kept, "who hears of changes knows the same"
        if not residency.problem:
            assert residency.kept == engine.behind[latest]
