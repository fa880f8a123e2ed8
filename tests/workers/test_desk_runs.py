"""What a running sequence says, and how it ends, whoever ends it: once, last, and with its claim freed."""

import grpc
import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import worker_pb2
from diplex.wire.status import Problem
from diplex_core.words import Claim, EndReason
from diplex_workers.engines.engine import Output
from diplex_workers.stream import TokenStream

CANCELLED, FAILED = pb.END_REASON_CANCELLED, pb.END_REASON_FAILED
PREEMPTED, REVOKED = pb.END_REASON_PREEMPTED, pb.END_REASON_REVOKED
STOP, LENGTH = pb.END_REASON_STOP, pb.END_REASON_LENGTH


def stop(lease: int = 1, reason: pb.EndReason.ValueType = PREEMPTED) -> worker_pb2.Stop:
    status = Problem(grpc.StatusCode.ABORTED, "gave way", "GAVE_WAY").to_bytes()
    return worker_pb2.Stop(claim=pb.Claim(lease_id=lease, attempt=1), reason=reason, status=status)


def test_an_iteration_is_one_frame_with_every_sequences_tokens(house):
    claims = [house.run(lease) for lease in (1, 2, 3)]
    house.news.deliver([Output(claim, 0, 1, (n,), f" t{n}") for n, claim in enumerate(claims)])
    frame = house.frame()
    assert [(t.seq, t.index, list(t.ids), t.text, t.count) for t in frame.tokens] == [
        (1, 0, [0], " t0", 1),
        (2, 0, [1], " t1", 1),
        (3, 0, [2], " t2", 1),
    ]


def test_each_stream_hears_of_its_own_sequences(house):
    other = TokenStream()
    mine, theirs = house.run(1), house.run(2, stream=other)
    house.news.deliver([Output(mine, 0, 1, (1,), "m"), Output(theirs, 0, 1, (2,), "t")])
    assert [t.text for t in house.frame().tokens] == ["m"]
    assert [t.text for t in house.frame(other).tokens] == ["t"]


def test_a_reader_that_lags_finds_what_gathered_in_one_entry(house):
    claim = house.run()
    house.say(claim, 5)
    (tokens,) = house.frame().tokens
    assert (tokens.index, tokens.count, len(tokens.ids), tokens.text) == (0, 5, 5, " a" * 5)
    house.say(claim, 2)
    (tokens,) = house.frame().tokens
    assert (tokens.index, tokens.count) == (5, 2)


def test_the_last_word_has_usage_timing_and_every_choices_reason(house):
    claim = house.run(choices=2, slots=2, blocks=20)
    house.clock.pass_time(0.1)
    house.news.prefilling(claim)
    house.clock.pass_time(0.2)
    house.say(claim, 3, end=EndReason.STOP)
    house.clock.pass_time(0.3)
    house.say(claim, 4, choice=1, end=EndReason.LENGTH)
    done = house.done()
    assert (done.reason, list(done.choice_reasons)) == (STOP, [STOP, LENGTH])
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (100, 7)
    assert done.timing.prefill_began_ms == pytest.approx(100)
    assert done.timing.first_token_ms == pytest.approx(300)
    assert done.timing.total_ms == pytest.approx(600)
    assert (done.error, house.used) == (b"", (0, 0))


def test_the_router_hears_what_the_user_hears(house):
    claim = house.run()
    house.say(claim, 3, end=EndReason.STOP)
    (ended,), done = house.report().ended, house.done()
    assert (ended.reason, ended.usage, ended.timing) == (done.reason, done.usage, done.timing)


def test_the_first_token_and_no_later_one_is_reported(house):
    claim = house.run()
    house.report()
    house.say(claim, 1)
    (held,) = house.report().held
    assert (held.prefilled, held.output_tokens) == (True, 1)
    house.say(claim, 5)
    assert not house.report().held


def test_tokens_of_a_resumed_request_are_numbered_on(house):
    claim = house.run(resume=pb.Resume(from_index=12, text="…"))
    house.say(claim, 1)
    assert house.frame().tokens[0].index == 12


def test_an_engine_that_goes_on_is_held_to_the_grant(house):
    claim = house.run(max_tokens=10)
    house.say(claim, 9)
    house.news.deliver([Output(claim, 0, 3, (1, 2, 3), "xyz")])
    assert house.engine.cancelled == [claim]
    house.say(claim, 2)
    house.let_go(claim)
    frame = house.frame()
    assert sum(tokens.count for tokens in frame.tokens) == 10
    assert (frame.done[0].reason, frame.done[0].usage.completion_tokens) == (LENGTH, 10)


def test_a_cancelled_sequence_is_freed_only_when_the_engine_has_let_go(house):
    claim = house.run()
    house.say(claim, 2)
    house.frame()
    house.desk.cancel(house.stream, 1)
    house.say(claim, 1)
    assert house.used == (6, 1)
    house.let_go(claim)
    frame = house.frame()
    assert (list(frame.tokens), [d.reason for d in frame.done], house.used) == ([], [CANCELLED], (0, 0))


def test_a_sequence_that_is_cancelled_while_it_is_counted_ends_at_once(house):
    house.begin()
    house.desk.cancel(house.stream, 1)
    assert (house.done().reason, house.used) == (CANCELLED, (0, 0))
    house.counted(100)
    assert (house.engine.jobs, house.used) == ({}, (0, 0))


def test_done_comes_once_however_often_it_is_cancelled(house):
    claim = house.run()
    for _ in range(3):
        house.desk.cancel(house.stream, 1)
    house.let_go(claim)
    house.let_go(claim)
    house.desk.cancel(house.stream, 1)
    house.desk.stream_ended(house.stream)
    assert len(house.frame().done) == 1
    assert len(house.report().ended) == 1


def test_a_client_that_leaves_ends_all_that_lived_on_its_stream(house):
    running, counting = house.run(1), house.begin(2)
    house.desk.stream_ended(house.stream)
    assert house.engine.cancelled == [running]
    assert counting not in house.account.live
    house.let_go(running)
    assert house.used == (0, 0)
    assert {e.claim.lease_id: e.reason for e in house.report().ended} == {1: CANCELLED, 2: CANCELLED}


def test_a_deadline_ends_a_sequence_with_its_status(house):
    claim = house.run(timeout_ms=2000)
    house.clock.pass_time(1.9)
    assert house.engine.cancelled == []
    house.clock.pass_time(0.2)
    assert house.engine.cancelled == [claim]
    house.let_go(claim)
    done = house.done()
    assert done.reason == CANCELLED
    assert Problem.from_bytes(done.error).code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_deadline_of_a_sequence_that_ended_in_time_does_nothing(house):
    claim = house.run(timeout_ms=2000)
    house.say(claim, 1, end=EndReason.STOP)
    house.frame()
    house.clock.pass_time(5)
    assert (house.engine.cancelled, list(house.frame().done)) == ([], [])


def test_a_preempted_sequence_first_says_all_that_it_produced(house):
    claim = house.run()
    house.desk.stop("r1", stop())
    house.say(claim, 2)
    house.let_go(claim)
    frame = house.frame()
    assert (frame.tokens[0].count, frame.done[0].reason) == (2, PREEMPTED)
    assert Problem.from_bytes(frame.done[0].error).message == "gave way"
    assert [e.reason for e in house.report().ended] == [PREEMPTED]


def test_a_sequence_that_ends_by_itself_while_it_is_preempted_has_ended_by_itself(house):
    claim = house.run()
    house.desk.stop("r1", stop())
    house.say(claim, 2, end=EndReason.STOP)
    assert house.done().reason == STOP


def test_a_stop_for_a_claim_that_is_not_held_is_answered_and_its_late_start_refused(house):
    house.desk.stop("r1", stop(1, REVOKED))
    assert [(e.claim.lease_id, e.reason) for e in house.report().ended] == [(1, REVOKED)]
    house.begin(1)
    assert (house.done().reason, house.used) == (pb.END_REASON_REFUSED, (0, 0))
    assert [e.claim.lease_id for e in house.report().ended] == [1]


def test_every_stop_is_answered(house):
    claim = house.run()
    house.report()
    house.desk.stop("r1", stop())
    assert not house.report().ended, "it still runs"
    house.let_go(claim)
    assert len(house.report().ended) == 1
    house.desk.stop("r1", stop())
    assert len(house.report().ended) == 1


def test_a_router_cannot_stop_anothers_claim(house):
    claim = house.run()
    house.link("r2")
    house.desk.stop("r2", stop())
    assert house.engine.cancelled == []
    assert claim in house.account.live


def raise_(blocks: int, number: int, lease: int = 1) -> worker_pb2.Raise:
    return worker_pb2.Raise(claim=pb.Claim(lease_id=lease, attempt=1), blocks=blocks, id=number)


def test_a_raise_is_answered_with_the_new_size(house):
    house.run()
    house.report()
    house.desk.raise_claim("r1", raise_(9, 41))
    (held,) = house.report().held
    assert (held.blocks, held.answers_raise, house.used) == (9, 41, (9, 1))


def test_a_raise_without_room_is_answered_with_the_old_size(house):
    house.run()
    house.report()
    house.desk.raise_claim("r1", raise_(101, 42))
    assert [(h.blocks, h.answers_raise) for h in house.report().held] == [(6, 42)]


def test_an_order_never_lowers_a_claim(house):
    house.run()
    house.report()
    house.desk.raise_claim("r1", raise_(2, 7))
    assert [(h.blocks, h.answers_raise) for h in house.report().held] == [(6, 7)]


def test_each_of_two_raises_is_answered(house):
    house.run()
    house.report()
    house.desk.raise_claim("r1", raise_(7, 1))
    house.desk.raise_claim("r1", raise_(8, 2))
    assert [h.answers_raise for h in house.report().held] == [1, 2]


def test_a_raise_for_a_claim_that_is_gone_is_answered_by_its_end(house):
    house.desk.raise_claim("r1", raise_(7, 1))
    assert [e.claim.lease_id for e in house.report().ended] == [1]


def test_an_engine_that_goes_silent_fails_everything_at_once(house):
    running, counting = house.run(1), house.begin(2)
    house.report()
    house.news.unready("it does not answer on port 8000")
    frame, report = house.frame(), house.report()
    assert [d.reason for d in frame.done] == [FAILED, FAILED]
    assert {Problem.from_bytes(d.error).code for d in frame.done} == {grpc.StatusCode.UNAVAILABLE}
    assert (report.engine_ready, report.engine_problem) == (False, "it does not answer on port 8000")
    assert {running.lease_id, counting.lease_id} == {e.claim.lease_id for e in report.ended}
    assert house.used == (0, 0)


def test_an_engine_that_comes_back_is_used_again_and_the_peak_is_kept(house):
    house.run(1, blocks=50)
    facts = house.account.facts
    house.news.unready("gone")
    house.news.ready(facts)
    assert house.report().peak_blocks == 50
    assert house.run(2) in house.engine.jobs


def test_what_a_silent_engine_says_late_is_nobodys(house):
    claim = house.run()
    facts = house.account.facts
    house.news.unready("gone")
    house.news.ready(facts)
    house.frame()
    house.say(claim, 2, end=EndReason.STOP)
    assert house.frame() == worker_pb2.WorkerSessionResponse()


def test_an_engines_failure_reaches_the_client_with_its_words(house):
    claim = house.run()
    problem = Problem(grpc.StatusCode.INTERNAL, "out of memory", "OOM")
    house.news.deliver([Output(claim, end=EndReason.FAILED, problem=problem)])
    done = house.done()
    assert (done.reason, Problem.from_bytes(done.error).message) == (FAILED, "out of memory")


def test_one_failed_choice_fails_the_request_when_all_have_ended(house):
    claim = house.run(choices=2, slots=2, blocks=20)
    problem = Problem(grpc.StatusCode.INTERNAL, "out of memory", "OOM")
    house.news.deliver([Output(claim, 1, end=EndReason.FAILED, problem=problem)])
    assert not house.frame().done
    house.say(claim, 1, end=EndReason.STOP)
    assert (house.done().reason, house.used) == (FAILED, (0, 0))


def test_exact_counts_teach_the_bound(house):
    house.begin(blocks=40)
    house.counted(400)  # of 100 bytes: four tokens a byte
    bound = house.account.info().models[0].bound
    assert 100 / bound.bytes_per_token >= 400


def test_claims_that_run_are_listed_for_their_router_only(house):
    other = house.link("r2")
    house.run(1)
    house.run(2, router="r2")
    for feed in (house.feed, other):
        feed.full_due()
    mine, theirs = house.report(), house.report(other)
    assert [h.claim.lease_id for h in mine.held] == [1]
    assert [h.claim.lease_id for h in theirs.held] == [2]
    assert (mine.used_blocks, mine.foreign_blocks, mine.foreign_slots) == (12, 6, 1)
    assert Claim(2, 1) in house.account.live
