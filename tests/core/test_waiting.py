"""Who waits, in which order."""

from diplex_core.waiting import Place, QueueKey, WaitingRoom

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
