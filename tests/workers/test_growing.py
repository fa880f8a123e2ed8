"""Claims that hold less than they may need: they ask in time, and nothing is lost where nobody answers."""

from dataclasses import replace
from typing import Any

import grpc
import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import worker_pb2
from diplex.wire.status import Problem
from diplex_core.growth import LEAD
from diplex_core.words import Claim, EndReason
from diplex_workers.engines.engine import Facts, Output

REFUSED, PREEMPTED = pb.END_REASON_REFUSED, pb.END_REASON_PREEMPTED


@pytest.fixture
def pauses(facts: Facts) -> Facts:
    return replace(facts, can_grow=True, can_pause=True)


@pytest.fixture
def house(new_house: Any, pauses: Facts) -> Any:
    return new_house(facts=pauses)


@pytest.fixture
def never_pauses(new_house: Any, facts: Facts) -> Any:
    return new_house(facts=replace(facts, can_grow=True))


def grow(house: Any, lease: int = 1, **more: object) -> Claim:
    """A prompt of 100 tokens, and up to 600 of output, in blocks for 256 (or as many as are said)."""
    claim: Claim = house.run(lease, **{"grows": True, "blocks": 8, "max_tokens": 600, **more})
    house.report()
    return claim


def raise_(house: Any, blocks: int, number: int = 1, lease: int = 1, router: str = "r1") -> None:
    order = worker_pb2.Raise(claim=pb.Claim(lease_id=lease, attempt=1), blocks=blocks, id=number)
    house.desk.raise_claim(router, order)


def wants(report: worker_pb2.WorkerLinkResponse) -> list[tuple[int, int]]:
    return [(want.claim.lease_id, want.blocks) for want in report.wants]


def full(house: Any) -> worker_pb2.WorkerLinkResponse:
    house.feed.full_due()
    report: worker_pb2.WorkerLinkResponse = house.report()
    return report


def test_a_growing_claim_begins_with_a_limit_and_one_that_holds_all_with_none(house):
    growing, whole = grow(house, 1), grow(house, 2, blocks=30)
    assert house.engine.jobs[growing].limit == 8 * 32
    assert house.engine.jobs[whole].limit == 0
    assert house.account.pool.holding(whole).blocks == 22  # 700 tokens


def test_what_is_drafted_ahead_lies_below_the_limit(new_house, pauses):
    house = new_house(facts=replace(pauses, draft_tokens=5))
    claim = grow(house)
    assert house.engine.jobs[claim].limit == 8 * 32 - 5


def test_a_held_claim_says_that_it_grows_and_its_priority(house):
    grow(house, priority=7)
    (held,) = full(house).held
    assert (held.grows, held.priority, held.blocks) == (True, 7, 8)


def test_a_prompt_larger_than_the_granted_room_is_refused_with_what_it_needs(house):
    house.begin(blocks=3, grows=True, max_tokens=600)
    house.counted(100)
    done = house.done()
    assert (done.reason, done.needed_blocks, done.prompt_tokens) == (REFUSED, 4, 100)
    assert Problem.from_bytes(done.error).reason == "GRANT_TOO_SMALL"
    assert house.used == (0, 0)


@pytest.mark.parametrize(("grows", "choices"), [(True, 2), (False, 1)])
def test_where_nothing_can_grow_the_claim_must_hold_all(new_house, pauses, grows: bool, choices: int):
    house = new_house(facts=replace(pauses, can_grow=grows))
    house.begin(blocks=8, grows=True, max_tokens=600, choices=choices, slots=choices)
    house.counted(100)
    assert house.done().reason == REFUSED


def test_it_asks_for_its_next_size_some_tokens_before_its_limit_and_once(house):
    claim = grow(house)
    house.say(claim, 256 - LEAD - 100 - 1)
    assert wants(house.report()) == []
    house.say(claim, 1)
    assert wants(house.report()) == [(1, 12)]
    house.say(claim, 20)
    assert wants(house.report()) == []


def test_full_reports_repeat_what_it_asks_for_while_it_stands(house):
    claim = grow(house)
    house.say(claim, 100)
    assert wants(full(house)) == [(1, 12)]
    assert wants(full(house)) == [(1, 12)]
    raise_(house, 12)
    assert wants(full(house)) == []


def test_a_prompt_close_to_its_limit_asks_before_its_first_token(house):
    house.begin(blocks=4, grows=True, max_tokens=600)
    house.counted(100)
    assert wants(house.report()) == [(1, 8)]


def test_a_raise_gives_the_engine_the_new_limit_and_is_answered_once(house):
    claim = grow(house)
    house.say(claim, 100)
    house.report()
    raise_(house, 12, 41)
    report = house.report()
    assert [(held.blocks, held.answers_raise) for held in report.held] == [(12, 41)]
    assert wants(report) == []
    assert house.engine.limits == [(claim, 12 * 32)]
    house.say(claim, 384 - LEAD - 200)
    assert wants(house.report()) == [(1, 16)]


def test_a_raise_that_does_not_take_it_far_is_followed_by_the_next_want(house):
    claim = grow(house)
    house.say(claim, 150)
    house.report()
    raise_(house, 9)
    report = house.report()
    assert ([held.blocks for held in report.held], wants(report)) == ([9], [(1, 13)])


def test_a_raise_without_room_is_answered_with_the_old_size_and_what_it_still_wants(house):
    claim = grow(house)
    house.begin(2, blocks=90)
    house.say(claim, 100)
    house.report()
    raise_(house, 12, 42)
    report = house.report()
    assert [(held.blocks, held.answers_raise) for held in report.held] == [(8, 42)]
    assert (wants(report), house.engine.limits) == ([(1, 12)], [])


def test_a_claim_that_holds_all_that_it_may_need_asks_no_more(house):
    claim = grow(house)
    house.say(claim, 100)
    raise_(house, 22)
    house.report()
    house.say(claim, 490)
    assert wants(full(house)) == []
    house.say(claim, 10, end=EndReason.LENGTH)
    assert house.done().reason == pb.END_REASON_LENGTH


def test_a_claim_that_is_being_stopped_asks_no_more(house):
    claim = grow(house)
    house.desk.stop("r1", worker_pb2.Stop(claim=pb.Claim(lease_id=1, attempt=1), reason=PREEMPTED))
    house.say(claim, 100)
    assert wants(full(house)) == []


def test_while_its_router_is_not_linked_it_grows_from_what_is_free(house):
    claim = grow(house)
    house.desk.unlink(house.feed)
    house.say(claim, 100)
    assert house.engine.limits == [(claim, 12 * 32)]
    assert house.used == (12, 1)
    again = house.link()
    again.full_due()
    report = house.report(again)
    assert ([held.blocks for held in report.held], wants(report)) == ([12], [])


def test_what_waits_for_a_raise_helps_itself_when_the_link_breaks(house):
    claim = grow(house)
    house.say(claim, 100)
    assert house.engine.limits == []
    house.desk.unlink(house.feed)
    assert house.engine.limits == [(claim, 12 * 32)]


def test_without_link_and_room_it_takes_what_a_neighbour_leaves(house):
    claim, other = grow(house, 1), house.run(2, blocks=92, max_tokens=2000)
    house.counted(1000)
    house.desk.unlink(house.feed)
    house.account.pool.resize(other, 92)
    house.say(claim, 156)
    assert house.engine.limits == []
    house.say(other, 1, end=EndReason.STOP)
    assert house.engine.limits == [(claim, 12 * 32)]


def test_a_link_that_a_newer_one_replaced_leaves_claims_to_the_newer_one(house):
    claim = grow(house)
    older = house.feed
    house.feed = house.link()
    house.desk.unlink(older)
    house.say(claim, 100)
    assert (wants(house.report()), house.engine.limits) == ([(1, 12)], [])


def test_another_routers_link_does_not_matter(house):
    claim = grow(house, router="r2")
    house.say(claim, 100)
    assert house.used == (12, 1), "r2 has no link"


def test_an_engine_that_pauses_is_left_alone_at_the_limit(house):
    claim = grow(house)
    house.say(claim, 156)
    assert house.engine.cancelled == []


def test_where_the_engine_cannot_pause_it_gives_way_with_all_that_it_produced(never_pauses):
    house = never_pauses
    claim = grow(house)
    house.say(claim, 155)
    assert house.engine.cancelled == []
    house.say(claim, 1)
    assert house.engine.cancelled == [claim]
    house.say(claim, 1)  # one more was on its way
    house.let_go(claim)
    frame = house.frame()
    assert sum(tokens.count for tokens in frame.tokens) == 157
    assert frame.done[0].reason == PREEMPTED
    problem = Problem.from_bytes(frame.done[0].error)
    assert (problem.code, problem.reason) == (grpc.StatusCode.ABORTED, "GAVE_WAY")
    assert [ended.reason for ended in house.report().ended] == [PREEMPTED]


def test_raised_in_time_it_does_not_give_way(never_pauses):
    house = never_pauses
    claim = grow(house)
    house.say(claim, 150)
    raise_(house, 12)
    house.say(claim, 50)
    assert house.engine.cancelled == []


def test_an_answer_that_ends_at_its_limit_has_ended(never_pauses):
    house = never_pauses
    claim = grow(house)
    house.say(claim, 156)
    house.say(claim, 1, end=EndReason.STOP)
    assert house.done().reason == pb.END_REASON_STOP


def test_what_the_window_holds_back_comes_before_the_word_that_it_gave_way(never_pauses):
    house = never_pauses
    claim = grow(house, window_upto=100)
    house.say(claim, 156)
    house.let_go(claim)
    frame = house.frame()
    assert (sum(tokens.count for tokens in frame.tokens), list(frame.done)) == (100, [])
    assert house.used == (0, 0), "its claim does not wait for its reader"
    house.desk.window(house.stream, 1, 0)
    frame = house.frame()
    assert [(t.index, t.count) for t in frame.tokens] == [(100, 56)]
    assert frame.done[0].reason == PREEMPTED


def test_a_resumed_request_has_its_limit_behind_what_it_produced(house):
    claim = grow(house, resume=pb.Resume(from_index=60, ids=[1] * 60))
    assert house.engine.jobs[claim].limit == 256
    house.say(claim, 256 - LEAD - 160 - 1)
    assert wants(house.report()) == []
    house.say(claim, 1)
    assert wants(house.report()) == [(1, 12)]


def test_an_iteration_with_several_tokens_asks_all_the_same(house):
    claim = grow(house)
    house.news.deliver([Output(claim, 0, 120, (7,) * 120, "x")])
    assert wants(house.report()) == [(1, 12)]
