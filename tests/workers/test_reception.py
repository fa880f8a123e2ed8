"""What may start, what it holds from then on, and what a client and its router hear of one that may not."""

from dataclasses import replace

import grpc
import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import worker_pb2
from diplex.wire.grants import Keys
from diplex.wire.status import Problem
from diplex_workers.stream import TokenStream

REFUSED, FAILED = pb.END_REASON_REFUSED, pb.END_REASON_FAILED


def code(done: pb.Done) -> grpc.StatusCode:
    return Problem.from_bytes(done.error).code


def test_a_claim_is_taken_whole_before_its_prompt_is_counted(house):
    house.begin(blocks=10, slots=2)
    assert house.used == (10, 2)
    assert house.engine.jobs == {}


def test_a_counted_claim_is_lowered_to_the_true_need(house):
    claim = house.begin(blocks=10, max_tokens=64)
    house.counted(100)
    assert house.used == (6, 1)  # 164 tokens, 32 a block
    assert house.engine.jobs[claim].max_tokens == 64


def test_the_router_is_told_of_a_claim_when_it_is_accepted_and_when_it_shrinks(house):
    house.begin(blocks=10)
    (accepted,) = house.report().held
    house.counted(100)
    (lowered,) = house.report().held
    assert (accepted.blocks, accepted.prompt_tokens, accepted.prefilled) == (10, 0, False)
    assert (lowered.blocks, lowered.prompt_tokens, lowered.tier, lowered.tenant) == (
        6,
        100,
        "standard",
        "acme",
    )


def test_a_grant_that_is_too_small_is_refused_with_the_numbers_and_never_stretched(house):
    house.begin(blocks=5, max_tokens=64)
    house.counted(100)
    done = house.done()
    assert (done.reason, done.needed_blocks, done.free_blocks, done.prompt_tokens) == (REFUSED, 6, 100, 100)
    assert code(done) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert house.used == (0, 0)
    assert house.engine.jobs == {}
    assert [ended.reason for ended in house.report().ended] == [REFUSED]


def test_a_claim_has_room_for_what_the_engine_drafts_ahead(new_house):
    house = new_house(facts=replace(new_house().account.facts, draft_tokens=29))
    house.begin(blocks=10, max_tokens=64)
    house.counted(100)
    assert house.used == (7, 1)  # 164 tokens are 6 blocks, 193 are 7


def test_choices_share_the_whole_blocks_of_their_prompt(house):
    house.begin(blocks=20, slots=3, choices=3, max_tokens=64)
    house.counted(100)
    assert house.used == (3 + 3 * 3, 3)


def test_a_resumed_request_counts_what_it_produced_as_prompt(house):
    claim = house.begin(blocks=10, max_tokens=64, resume=pb.Resume(from_index=40, ids=[1] * 40))
    house.counted(100)
    assert house.used == (6, 1)  # 140 to read, 24 to produce
    assert house.engine.jobs[claim].resume.from_index == 40


def test_a_resumed_request_with_nothing_left_to_produce_is_done(house):
    house.begin(max_tokens=40, resume=pb.Resume(from_index=40))
    house.counted(100)
    done = house.done()
    assert (done.reason, done.usage.completion_tokens) == (pb.END_REASON_LENGTH, 40)


def test_a_start_that_finds_no_room_is_refused_with_what_is_free(house):
    house.begin(1, blocks=95)
    house.begin(2, blocks=6)
    done = house.done()
    assert (done.seq, done.reason, done.needed_blocks, done.free_blocks) == (2, REFUSED, 6, 5)
    assert house.used == (95, 1)


def test_a_start_that_finds_no_slot_is_refused(house):
    house.begin(1, slots=8)
    house.begin(2)
    assert "1 sequence slots, 0 are free" in Problem.from_bytes(house.done().error).message


def test_the_router_hears_of_a_refused_start(house):
    house.begin(1, blocks=101)
    assert [(e.claim.lease_id, e.reason) for e in house.report().ended] == [(1, REFUSED)]


def test_a_forged_grant_ends_nothing_and_is_not_worth_asking_again(house):
    house.show(Keys.of("forged").sign(house.grant(1)), 1)
    done = house.done()
    assert (done.reason, code(done)) == (FAILED, grpc.StatusCode.UNAUTHENTICATED)
    assert not house.report().ended


@pytest.mark.parametrize("bent", [{"boot": 1}, {"epoch": 1}, {"start_by_ms": 0}])
def test_a_stale_grant_is_worth_asking_again(house, bent: dict[str, int]):
    house.clock.pass_time(1)
    house.begin(**bent)
    done = house.done()
    assert (done.reason, code(done)) == (REFUSED, grpc.StatusCode.ABORTED)
    assert house.used == (0, 0)


def test_a_grant_shown_twice_leaves_the_first_showing_alone(house):
    grant = house.keys.sign(house.grant(1))
    house.show(grant, 1)
    house.counted()
    house.report()
    house.show(grant, 2)
    house.clock.pass_time(10)
    house.show(grant, 3)
    assert [done.seq for done in house.frame().done] == [2, 3]
    assert house.used == (6, 1)
    assert not house.report().ended, "`ended` for this claim would free what still runs"


def test_a_grant_shown_again_after_its_end_does_not_make_the_router_wait_for_its_client(house):
    grant = house.keys.sign(house.grant(1))
    house.show(grant, 1)
    house.desk.cancel(house.stream, 1)
    assert len(house.report().ended) == 1
    house.show(grant, 2)
    assert not house.report().ended


def test_a_number_that_is_in_use_on_the_stream_is_a_broken_promise(house):
    house.begin(1, seq=4)
    with pytest.raises(Problem, match="sequence 4 still runs"):
        house.begin(2, seq=4)


@pytest.mark.parametrize(("tokens", "fits"), [(2047, True), (2048, False), (5000, False)])
def test_a_prompt_beyond_the_context_is_invalid_with_the_numbers(house, tokens: int, fits: bool):
    house.begin(blocks=100)
    house.counted(tokens)
    if fits:
        assert len(house.engine.jobs) == 1
        return
    done = house.done()
    problem = Problem.from_bytes(done.error)
    assert (done.reason, problem.code) == (FAILED, grpc.StatusCode.INVALID_ARGUMENT)
    assert str(tokens) in problem.message
    assert "2048" in problem.message


def test_a_bound_beyond_the_context_is_left_to_the_engine(house):
    claim = house.begin(blocks=100, max_tokens=64)
    house.counted(2100, exact=False)
    assert house.engine.jobs[claim].max_tokens == 64


def test_output_is_cut_to_what_the_context_leaves(house):
    claim = house.begin(blocks=100, max_tokens=64)
    house.counted(2000)
    assert house.engine.jobs[claim].max_tokens == 48


def test_a_prompt_that_the_engine_cannot_read_fails_and_frees_its_claim(house):
    house.begin()
    problem = Problem(grpc.StatusCode.INVALID_ARGUMENT, "no JSON", "BAD_PROMPT")
    house.reception.uncountable(house.uncounted[0], problem)
    assert (house.done().reason, house.used) == (FAILED, (0, 0))


def test_a_chat_for_a_model_without_a_template_is_invalid(house):
    chat = pb.Prompt(chat=pb.Chat(messages=b'[{"role":"user","content":"hi"}]'))
    house.begin(model="plain", prompt=chat)
    assert code(house.done()) is grpc.StatusCode.INVALID_ARGUMENT


def test_a_model_that_is_not_served_is_not_found_and_none_is_the_first(house):
    house.begin(1, model="other")
    assert code(house.done()) is grpc.StatusCode.NOT_FOUND
    claim = house.run(2)
    assert house.engine.jobs[claim].model == "chatty"


def test_nothing_starts_before_the_engine_is_ready(new_house):
    house = new_house(facts=None)
    house.begin()
    assert (house.done().reason, house.used) == (REFUSED, (0, 0))


def test_a_draining_worker_takes_nothing_new_until_it_is_told_to(house):
    house.desk.drain(True)
    house.begin(1)
    assert code(house.done()) is grpc.StatusCode.UNAVAILABLE
    house.desk.drain(False)
    assert house.run(2) in house.engine.jobs


def open_start(**more: object) -> worker_pb2.Start:
    return worker_pb2.Start(seq=1, prompt=pb.Prompt(text="hi"), **more)  # type: ignore[arg-type]


def test_a_closed_worker_takes_no_request_without_a_grant(house):
    with pytest.raises(Problem) as refused:
        house.reception.start_open(open_start(), house.stream, 10, 1)
    assert refused.value.code is grpc.StatusCode.UNAUTHENTICATED


def test_an_open_worker_takes_a_request_without_a_grant_and_shows_it_as_foreign(new_house):
    house = new_house(open_to_all=True)
    house.reception.start_open(open_start(), house.stream, 60, 2)
    assert house.used == (0, 0)
    house.counted(100)
    assert house.used == (3 + 2 * 2, 2)
    house.feed.full_due()
    report = house.report()
    assert (report.foreign_blocks, report.foreign_slots, list(report.held)) == (7, 2, [])


def test_an_open_request_that_finds_no_room_is_refused(new_house):
    house = new_house(open_to_all=True)
    house.begin(1, blocks=100)
    house.uncounted.clear()  # the engine is still at its prompt
    mine = TokenStream()
    house.reception.start_open(open_start(), mine, 60, 1)
    house.counted(100)
    assert house.done(mine).reason == REFUSED
    assert house.used == (100, 1)
