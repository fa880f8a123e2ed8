"""Who waits, in which order."""

from itertools import count
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diplex_core import waiting
from diplex_core.fairness import cost
from diplex_core.waiting import Place, Places, QueueKey, WaitingRoom
from diplex_core.words import Tenant

CHAT = QueueKey("m", "interactive")
BULK = QueueKey("m", "bulk")


def heads(room: WaitingRoom, now: float = 0.0) -> list[int]:
    places = (queue.head(now) for queue in room.queues())
    return [place.lease_id for place in places if place is not None]


def order(room: WaitingRoom, key: QueueKey = BULK, now: float = 0.0, most: int = 99) -> list[int]:
    queue = room.queue(key)
    return [place.lease_id for place in queue.first(most, now)] if queue is not None else []


def wait(room: WaitingRoom, lease_id: int, due: float, tenant: str = "acme", **more: float) -> int:
    return room.enter(BULK, 0, tenant, Place(due, lease_id, **more))  # type: ignore[arg-type]


def charge(room: WaitingRoom, tenant: str, tokens: int, lease_id: int = 10**9) -> None:
    room.counters.granted(lease_id, Tenant(tenant), tokens, 0)
    room.recount(tenant)


def test_within_a_line_the_first_due_is_the_first_served() -> None:
    room = WaitingRoom()
    assert wait(room, 11, due=1.0) == 0
    assert wait(room, 12, due=2.0) == 1
    assert heads(room) == [11]


def test_asking_again_keeps_the_place_of_the_first_arrival() -> None:
    room = WaitingRoom()
    wait(room, 12, due=2.0)
    assert wait(room, 11, due=1.0) == 0


def test_queues_are_served_by_priority_then_by_who_is_due_first() -> None:
    room = WaitingRoom()
    room.enter(BULK, 0, "acme", Place(1.0, 1))
    room.enter(CHAT, 100, "acme", Place(3.0, 3))
    room.enter(QueueKey("other", "bulk"), 0, "acme", Place(0.5, 2))
    assert heads(room) == [3, 2, 1]


def test_tiers_that_are_owed_their_share_are_served_first() -> None:
    room = WaitingRoom()
    room.enter(BULK, 0, "acme", Place(1.0, 1))
    room.enter(CHAT, 100, "acme", Place(3.0, 3))
    assert [queue.key for queue in room.queues(owed=("bulk",))] == [BULK, CHAT]


def test_leaving_twice_does_nothing() -> None:
    room = WaitingRoom()
    wait(room, 1, due=1.0)
    room.leave(1)
    room.leave(1)
    assert len(room) == 0
    assert room.queues() == []


def test_of_two_tenants_the_one_that_has_had_less_is_served_first() -> None:
    room = WaitingRoom()
    wait(room, 1, due=1.0, tenant="acme")
    wait(room, 2, due=2.0, tenant="globex")
    assert order(room) == [1, 2]
    charge(room, "acme", 100)
    assert order(room) == [2, 1]


def test_a_tenant_with_thousands_waiting_holds_up_nobody_else() -> None:
    room = WaitingRoom()
    for lease_id in range(2_000):
        wait(room, lease_id, due=float(lease_id), tenant="acme")
    assert wait(room, 9_000, due=5_000.0, tenant="globex") <= 1
    charge(room, "acme", 1)
    assert heads(room) == [9_000]


def test_whoever_is_pressed_comes_first_whatever_its_tenant_has_had() -> None:
    room = WaitingRoom()
    wait(room, 1, due=2.0, tenant="acme", pressed=1.0)
    charge(room, "acme", 1_000)
    wait(room, 2, due=9.0, tenant="globex", pressed=8.0)
    room.counters._counters["globex"] = 0.0
    room.recount("globex")
    assert order(room, now=0.9) == [2, 1]
    assert order(room, now=1.0) == [1, 2]
    assert order(room, now=8.0) == [2, 1]  # both are: it has had less


def test_a_tenant_over_its_quota_is_passed_over_and_comes_back() -> None:
    room = WaitingRoom()
    wait(room, 1, due=1.0, tenant="acme")
    wait(room, 2, due=2.0, tenant="globex")
    room.set_aside(1)
    assert order(room) == [2]
    wait(room, 3, due=0.5, tenant="acme")
    room.leave(2)
    assert heads(room) == []
    assert [len(queue) for queue in room.queues()] == [2]
    room.let_in("acme")
    assert heads(room) == [3]


def test_behind_the_head_stand_the_heads_of_other_lines_then_the_second_of_each() -> None:
    room = WaitingRoom()
    for lease_id, tenant in enumerate(("acme", "acme", "acme", "globex", "globex", "initech")):
        wait(room, lease_id, due=float(lease_id), tenant=tenant)
    assert order(room) == [0, 3, 5, 1, 4, 2]
    assert order(room, most=4) == [0, 3, 5, 1]


def test_a_position_counts_those_of_other_tenants_that_are_served_in_turn_with_it() -> None:
    room = WaitingRoom()
    for lease_id in range(10):
        wait(room, lease_id, due=float(lease_id), tenant="acme")
    assert wait(room, 20, due=20.0, tenant="globex") == 1
    assert wait(room, 21, due=21.0, tenant="globex") == 3  # 20, and two of acme's
    assert wait(room, 10, due=10.0, tenant="acme") == 12


def test_a_queue_counts_the_blocks_that_wait_in_it() -> None:
    room = WaitingRoom()
    wait(room, 1, due=1.0, blocks=30)
    wait(room, 2, due=2.0, blocks=12, tenant="globex")
    queue = room.queue(BULK)
    assert queue is not None and queue.blocks == 42
    room.leave(1)
    assert queue.blocks == 12


@pytest.mark.parametrize("seed", range(6))
def test_while_a_request_waits_no_other_tenant_gets_more_than_the_bound(seed: int) -> None:
    """Requests of three tenants come faster than one at a time is served; nobody has a target. The bound is
    what waits before it in its own line, and twice what one grant charges (answers are as expected)."""
    luck, room, numbers = Random(seed), WaitingRoom(), count()
    tenants = {name: Tenant(name, weight=luck.choice([0.5, 1.0, 2.0])) for name in ("a", "b", "c")}
    most = cost(Tenant("", weight=0.5), 1000, 100)
    sizes: dict[int, tuple[str, int]] = {}
    given = dict.fromkeys(tenants, 0.0)
    bounds: dict[int, tuple[dict[str, float], float]] = {}
    ahead = dict.fromkeys(tenants, 0.0)
    worst = 0.0
    for step in range(600):
        for _ in range(luck.choice([0, 1, 2, 3]) if step < 300 else 0):
            name, lease_id, prompt = luck.choice("abbccc"), next(numbers), luck.randint(1, 1000)
            bounds[lease_id] = dict(given), ahead[name] + 2 * most
            sizes[lease_id] = name, prompt
            ahead[name] += cost(tenants[name], prompt, 100)
            wait(room, lease_id, due=float(step), tenant=name)
        queue = room.queue(BULK)
        if queue is None:
            continue
        head = queue.head(float(step))
        assert head is not None
        name, prompt = sizes[head.lease_id]
        before, bound = bounds.pop(head.lease_id)
        for other in tenants:
            if other != name:
                worst = max(worst, (given[other] - before[other]) / bound)
        room.leave(head.lease_id)
        room.counters.granted(head.lease_id, tenants[name], prompt, 100)
        room.recount(name)
        given[name] += cost(tenants[name], prompt, 100)
        ahead[name] -= cost(tenants[name], prompt, 100)
    assert not bounds, "somebody was never served"
    assert 0.3 < worst <= 1.0


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
        wait(room, lease_id, due=2.0 * lease_id)
    assert wait(room, 9_999, due=4_001.0) == 2_001
    for lease_id in range(2_000):
        room.leave(lease_id)
    assert heads(room) == [2_000]
    assert wait(room, 9_998, due=4_003.0) == 3


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 20), st.integers(0, 5), st.booleans()),
        min_size=1,
        max_size=60,
    )
)
@settings(deadline=None)
def test_the_head_is_the_one_that_the_rule_names_whoever_comes_goes_or_is_charged(
    moves: list[tuple[int, int, int, bool]],
) -> None:
    room, there = WaitingRoom(), dict[int, tuple[str, Place]]()
    now = 0.0
    for lease_id, (who, due, what, pressing) in enumerate(moves):
        now += 0.5
        tenant = f"t{who}"
        if what == 0 and there:
            gone = sorted(there)[due % len(there)]
            del there[gone]
            room.leave(gone)
        elif what == 1:
            charge(room, tenant, 10 * due + 1, lease_id)
        else:
            place = Place(float(due), lease_id, pressed=due / 2 if pressing else float("inf"))
            there[lease_id] = tenant, place
            room.enter(BULK, 0, tenant, place)
        lines = {name: min(place for of, place in there.values() if of == name) for name, _ in there.values()}
        rule = min(
            ((head.pressed > now, room.counters.of(name), head.due, name) for name, head in lines.items()),
            default=None,
        )
        queue = room.queue(BULK)
        head = queue.head(now) if queue is not None else None
        assert head == (lines[rule[3]] if rule is not None else None)
        assert queue is None or (len(queue), {*queue}) == (len(there), {place for _, place in there.values()})
