"""The table of a request's life: complete, final at its end, and deaf to what comes too late."""

import itertools

import pytest

from diplex.wire.life import AT_A_WORKER, AT_THE_ROUTER, NEXT, State, Turn


def test_every_state_can_be_reached_and_be_left_for_the_end():
    reached = {State.NEW}
    for _ in State:
        reached |= {to for (state, _), to in NEXT.items() if state in reached}
    assert reached == set(State)
    ends = {State.OVER}
    for _ in State:
        ends |= {state for (state, _), to in NEXT.items() if to in ends}
    assert ends == set(State)


@pytest.mark.parametrize("turn", Turn)
def test_nothing_happens_after_the_end(turn: Turn):
    assert (State.OVER, turn) not in NEXT


@pytest.mark.parametrize("state", set(State) - {State.OVER, State.LEAVING})
def test_it_can_be_left_at_any_time(state: State):
    assert NEXT[state, Turn.LEFT] in (State.LEAVING, State.OVER)


@pytest.mark.parametrize("state", set(State) - {State.ASKING})
def test_a_grant_counts_only_while_it_is_asked_for(state: State):
    assert (state, Turn.GRANTED) not in NEXT


@pytest.mark.parametrize("state", AT_A_WORKER)
def test_what_runs_does_not_notice_the_loss_of_its_router(state: State):
    assert (state, Turn.LOST) not in NEXT


def test_no_state_is_at_the_router_and_at_a_worker():
    assert not AT_THE_ROUTER & AT_A_WORKER


def test_a_start_is_only_ever_made_from_a_grant():
    into_started = [turn for (_, turn), to in NEXT.items() if to is State.STARTED]
    assert into_started == [Turn.GRANTED]
    assert len(NEXT) == len(set(itertools.chain(NEXT)))
