"""Flow control: nothing beyond the window is sent, nothing is lost, and nobody waits for ever."""

import grpc
import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import worker_pb2
from diplex.wire.status import Problem
from diplex_core.words import EndReason


def sent(house) -> list[tuple[int, int]]:
    """First index and count of everything that goes out now."""
    return [(tokens.index, tokens.count) for tokens in house.frame().tokens]


def test_tokens_below_the_window_are_sent_and_the_rest_wait(house):
    claim = house.run(window_upto=3)
    house.say(claim, 5)
    assert sent(house) == [(0, 3)]
    assert sent(house) == []


def test_what_gathered_goes_out_as_one_message_when_the_window_opens(house):
    claim = house.run(window_upto=3)
    house.say(claim, 5)
    sent(house)
    house.desk.window(house.stream, 1, 10)
    assert sent(house) == [(3, 2)]


@pytest.mark.parametrize(("upto", "then"), [(4, [(3, 1)]), (0, [(3, 2)]), (3, []), (1, [])])
def test_a_window_is_absolute_and_none_is_no_bound(house, upto: int, then: list[tuple[int, int]]):
    claim = house.run(window_upto=3)
    house.say(claim, 5)
    sent(house)
    house.desk.window(house.stream, 1, upto)
    assert sent(house) == then


def test_done_waits_behind_what_the_window_holds_back_while_the_claim_is_free(house):
    claim = house.run(window_upto=3)
    house.say(claim, 5, end=EndReason.STOP)
    frame = house.frame()
    assert (len(frame.done), house.used) == (0, (0, 0))
    house.desk.window(house.stream, 1, 4)
    assert not house.frame().done
    house.desk.window(house.stream, 1, 5)
    frame = house.frame()
    assert (frame.tokens[0].index, frame.done[0].reason) == (4, pb.END_REASON_STOP)


def test_each_choice_has_the_whole_window_to_itself(house):
    claim = house.run(window_upto=2, choices=2, slots=2, blocks=20)
    house.say(claim, 4, choice=0)
    house.say(claim, 2, choice=1)
    assert {(t.choice, t.count) for t in house.frame().tokens} == {(0, 2), (1, 2)}


def test_a_window_shut_for_half_a_minute_ends_the_sequence_and_sends_nothing_more(house):
    claim = house.run(window_upto=1)
    house.say(claim, 3)
    sent(house)
    house.clock.pass_time(29)
    assert house.engine.cancelled == []
    house.clock.pass_time(2)
    assert house.engine.cancelled == [claim]
    house.let_go(claim)
    frame = house.frame()
    assert (list(frame.tokens), frame.done[0].reason) == ([], pb.END_REASON_FAILED)
    assert Problem.from_bytes(frame.done[0].error).code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert house.used == (0, 0)


def test_a_window_that_moves_a_little_starts_the_half_minute_anew(house):
    claim = house.run(window_upto=1)
    house.say(claim, 5)
    for upto in (2, 3):
        house.clock.pass_time(20)
        house.desk.window(house.stream, 1, upto)
    house.clock.pass_time(20)
    assert house.engine.cancelled == []


def test_saying_the_same_window_again_does_not(house):
    claim = house.run(window_upto=1)
    house.say(claim, 5)
    house.clock.pass_time(20)
    house.desk.window(house.stream, 1, 1)
    house.clock.pass_time(11)
    assert house.engine.cancelled == [claim]


def test_a_shut_window_with_nothing_behind_it_harms_nobody(house):
    claim = house.run(window_upto=3)
    house.say(claim, 3)
    house.clock.pass_time(60)
    house.desk.window(house.stream, 1, 10)
    house.say(claim, 1, end=EndReason.STOP)
    assert house.done().reason == pb.END_REASON_STOP


def test_a_sequence_that_has_ended_behind_a_shut_window_fails_its_client_alone(house):
    claim = house.run(window_upto=1)
    house.say(claim, 3, end=EndReason.STOP)
    house.frame()
    house.clock.pass_time(31)
    frame = house.frame()
    assert (list(frame.tokens), frame.done[0].reason) == ([], pb.END_REASON_FAILED)
    assert [e.reason for e in house.report().ended] == [pb.END_REASON_STOP]


@pytest.mark.parametrize("ends_first", [True, False])
def test_a_cancel_drops_what_the_window_held_back(house, ends_first: bool):
    claim = house.run(window_upto=1)
    house.say(claim, 3, end=EndReason.STOP if ends_first else None)
    house.frame()
    house.desk.cancel(house.stream, 1)
    if not ends_first:
        house.let_go(claim)
    frame = house.frame()
    assert (list(frame.tokens), [d.reason for d in frame.done]) == ([], [pb.END_REASON_CANCELLED])
    house.clock.pass_time(60)
    assert not house.frame().done


def test_all_that_a_preempted_sequence_produced_comes_before_its_done(house):
    claim = house.run(window_upto=1)
    house.say(claim, 3)
    house.frame()
    order = worker_pb2.Stop(claim=pb.Claim(lease_id=1, attempt=1), reason=pb.END_REASON_PREEMPTED)
    house.desk.stop("r1", order)
    house.let_go(claim)
    assert not house.frame().done
    house.desk.window(house.stream, 1, 0)
    frame = house.frame()
    assert (frame.tokens[0].count, frame.done[0].reason) == (2, pb.END_REASON_PREEMPTED)


def test_a_client_that_leaves_takes_what_was_held_back_with_it(house):
    claim = house.run(window_upto=1)
    house.say(claim, 3, end=EndReason.STOP)
    house.desk.stream_ended(house.stream)
    house.clock.pass_time(60)
    assert house.used == (0, 0)
