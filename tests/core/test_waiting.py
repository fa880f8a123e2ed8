"""Who waits, in which order."""

from hypothesis import given, settings
from hypothesis import strategies as st

from diplex_core import waiting
from diplex_core.waiting import Place, Places, QueueKey, WaitingRoom

CHAT = QueueKey("m", "interactive")
BULK = QueueKey("m", "bulk")


def heads(room: WaitingRoom) -> list[int]:
    return [queue.places[0].lease_id for queue in room.queues()]


def test_within_a_queue_the_first_to_arrive_is_the_first_served() -> None:
    room = WaitingRoom()
    assert room.enter(BULK, 0, Place(1.0, 11)) == 0
    assert room.enter(BULK, 0, Place(2.0, 12)) == 1
    assert heads(room) == [11]


def test_asking_again_keeps_the_place_of_the_first_arrival() -> None:
    room = WaitingRoom()
    room.enter(BULK, 0, Place(2.0, 12))
    assert room.enter(BULK, 0, Place(1.0, 11)) == 0


def test_queues_are_served_by_priority_then_by_their_oldest_head() -> None:
    room = WaitingRoom()
    room.enter(BULK, 0, Place(1.0, 1))
    room.enter(CHAT, 100, Place(3.0, 3))
    room.enter(QueueKey("other", "bulk"), 0, Place(0.5, 2))
    assert heads(room) == [3, 2, 1]


def test_leaving_twice_does_nothing() -> None:
    room = WaitingRoom()
    room.enter(BULK, 0, Place(1.0, 1))
    room.leave(1)
    room.leave(1)
    assert len(room) == 0
    assert room.queues() == []


comings_and_goings = st.lists(
    st.tuples(st.sampled_from(("at the end", "anywhere", "first leaves", "any leaves")), st.integers(0, 99)),
    max_size=120,
)


@given(comings_and_goings)
@settings(deadline=None)
def test_places_are_those_of_a_sorted_list_whoever_comes_and_goes(moves: list[tuple[str, int]]) -> None:
    piece, waiting._PIECE = waiting._PIECE, 3  # type: ignore[misc]
    try:
        places, naive = Places(), list[Place]()
        for lease_id, (what, number) in enumerate(moves):
            if what == "at the end":
                place: Place | None = Place(100.0 + lease_id, lease_id)
            elif what == "anywhere":
                place = Place(float(number), lease_id)
            elif naive:
                place = naive.pop(0 if what == "first leaves" else number % len(naive))
                places.remove(place)
                place = None
            else:
                continue
            if place is not None:
                naive = sorted([*naive, place])
                assert places.add(place) == naive.index(place)
            assert (list(places), len(places)) == (naive, len(naive))
            assert not naive or places[len(naive) - 1] == naive[-1]
    finally:
        waiting._PIECE = piece  # type: ignore[misc]


def test_the_middle_of_a_long_queue_knows_its_position() -> None:
    room = WaitingRoom()
    for lease_id in range(5_000):
        room.enter(BULK, 0, Place(2.0 * lease_id, lease_id))
    assert room.enter(BULK, 0, Place(4_001.0, 9_999)) == 2_001
    for lease_id in range(2_000):
        room.leave(lease_id)
    assert heads(room) == [2_000]
    assert room.enter(BULK, 0, Place(4_003.0, 9_998)) == 3
