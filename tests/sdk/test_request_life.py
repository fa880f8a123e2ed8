"""One request's life over real streams: what it asks, shows and says, whatever router and workers do."""

import asyncio
from typing import Any

import grpc
import pytest

import diplex
from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2
from diplex.wire import request
from diplex.wire.status import Problem

FULL = Problem(grpc.StatusCode.RESOURCE_EXHAUSTED, "needs 9 KV blocks, 2 are free", "NO_ROOM")


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "_FIRST_PAUSE", 0.0)


@pytest.fixture
async def desk(router: Any, client: Any) -> Any:
    return await router.desk()


async def started(client: Any, desk: Any, worker: Any, heard: Any, **options: Any) -> tuple[Any, Any, Any]:
    """A request that runs on a worker: its life, its consumer, and the worker's side of it."""
    consumer = heard()
    life = client.start(consumer, "a prompt", **options)
    await desk.grant(await desk.hears(), worker)
    return life, consumer, await worker.plays()


async def test_it_is_asked_for_granted_started_and_read_to_its_end(client, desk, worker, heard):
    consumer = heard()
    client.start(
        consumer, "a prompt", tier="bulk", max_tokens=5, seed=7, request_id="mine", api_key="k", timeout=9
    )
    ask = await desk.hears()
    assert (ask.request_id, ask.model, ask.tier, ask.api_key) == ("mine", "m", "bulk", "k")
    assert (ask.prompt_tokens, ask.exact, ask.max_tokens, ask.n) == (2, False, 5, 1)
    assert 8000 < ask.timeout_ms <= 9000
    assert not ask.HasField("again")
    await desk.say(queued=[router_pb2.Queued(ask_id=ask.ask_id, position=3)])
    await desk.grant(ask, worker)

    playing = await worker.plays()
    assert playing.grant.request_id == "mine"
    assert (playing.start.prompt.text, playing.start.model) == ("a prompt", "m")
    assert (playing.start.sampling.seed, playing.start.sampling.max_tokens_stated) == (7, True)
    assert not playing.start.HasField("resume")
    await playing.say("to", " be")
    await playing.say(" or")
    await playing.done(pb.END_REASON_STOP, usage=pb.Usage(prompt_tokens=2, completion_tokens=3))

    done = await consumer.end()
    assert (done.reason, done.usage.completion_tokens) == (pb.END_REASON_STOP, 3)
    assert (consumer.queued, consumer.served, consumer.text) == ([3], ["w1"], "to be or")


async def test_a_refusal_by_the_worker_is_asked_again_with_all_that_it_said(
    client, desk, worker, other, heard
):
    _, consumer, playing = await started(client, desk, worker, heard)
    await playing.done(pb.END_REASON_REFUSED, FULL, needed_blocks=9, free_blocks=2, prompt_tokens=280)

    again = await desk.hears()
    assert again.ask_id == 1
    assert (again.prompt_tokens, again.exact) == (280, True)
    assert (again.again.claim, again.again.reason) == (playing.grant.claim, pb.END_REASON_REFUSED)
    assert (again.again.needed_blocks, again.again.worker) == (9, "w1")
    await desk.grant(again, other)
    elsewhere = await other.plays()
    assert elsewhere.grant.claim.attempt == 2
    await elsewhere.done(pb.END_REASON_STOP)
    assert (await consumer.end()).reason == pb.END_REASON_STOP


async def test_more_than_20_refusals_end_in_unavailable(client, desk, worker, heard, no_pauses):
    consumer = heard()
    client.start(consumer, "a prompt")
    for _ in range(21):
        await desk.grant(await desk.hears(), worker)
        await (await worker.plays()).done(pb.END_REASON_REFUSED, FULL)
    assert (await consumer.end()).reason == pb.END_REASON_FAILED
    assert (consumer.problem.code, consumer.problem.reason) == (
        grpc.StatusCode.UNAVAILABLE,
        "REFUSED_TOO_OFTEN",
    )
    assert "w1" in consumer.problem.message
    assert isinstance(await desk.hears(), router_pb2.Withdraw)


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL]
)
async def test_a_refusal_that_no_other_attempt_can_mend_is_the_end(client, desk, worker, heard, code):
    _, consumer, playing = await started(client, desk, worker, heard)
    await playing.done(pb.END_REASON_REFUSED, Problem(code, "never"))
    assert (await consumer.end()).reason == pb.END_REASON_REFUSED
    assert consumer.problem.code is code


async def test_a_grant_of_an_older_epoch_is_asked_for_anew(client, desk, worker, heard):
    _, _, playing = await started(client, desk, worker, heard)
    await playing.done(pb.END_REASON_REFUSED, Problem(grpc.StatusCode.ABORTED, "old epoch", "OLD_EPOCH"))
    assert (await desk.hears()).again.claim == playing.grant.claim


async def test_a_claim_taken_back_after_its_start_is_asked_for_anew(client, desk, worker, heard):
    _, _, playing = await started(client, desk, worker, heard)
    await playing.done(pb.END_REASON_REVOKED, Problem(grpc.StatusCode.ABORTED, "taken back", "REVOKED"))
    assert (await desk.hears()).again.reason == pb.END_REASON_REVOKED


async def test_a_preempted_request_goes_on_behind_what_it_produced(client, desk, worker, other, heard):
    _, consumer, playing = await started(client, desk, worker, heard, max_tokens=4)
    await playing.say("to", " be")
    await playing.done(pb.END_REASON_PREEMPTED, prompt_tokens=2)

    again = await desk.hears()
    assert (again.again.reason, again.again.produced_tokens) == (pb.END_REASON_PREEMPTED, 2)
    await desk.grant(again, other)
    elsewhere = await other.plays()
    assert elsewhere.start.resume == pb.Resume(from_index=2, ids=[0, 1])
    await elsewhere.say(" or", " not")
    await elsewhere.done(pb.END_REASON_LENGTH)
    await consumer.end()
    assert consumer.text == "to be or not"
    assert consumer.served == ["w1", "w2"]
    assert [tokens.index for tokens in consumer.tokens] == [0, 2]
    assert consumer.preempted == [1]


async def test_preemptions_are_not_counted_as_refusals(client, desk, worker, heard):
    consumer = heard()
    client.start(consumer, "a prompt")
    for number in range(25):
        await desk.grant(await desk.hears(), worker)
        playing = await worker.plays()
        await playing.say(f" {number}")
        await playing.done(pb.END_REASON_PREEMPTED)
    await desk.grant(await desk.hears(), worker)
    playing = await worker.plays()
    assert list(playing.start.resume.ids) == list(range(25))
    await playing.done(pb.END_REASON_STOP)
    assert (await consumer.end()).reason == pb.END_REASON_STOP
    assert consumer.preempted == list(range(1, 26))


async def test_a_request_that_is_refused_or_cut_off_has_given_way_to_nobody(
    client, desk, worker, other, heard
):
    _, consumer, playing = await started(client, desk, worker, heard)
    await playing.say("to")
    await worker.kill()
    await desk.grant(await desk.hears(), other)
    elsewhere = await other.plays()
    await elsewhere.done(pb.END_REASON_REFUSED)
    await desk.grant(await desk.hears(), other)
    await (await other.plays()).done(pb.END_REASON_STOP)
    await consumer.end()
    assert consumer.preempted == []


async def test_the_prompts_block_hashes_go_to_router_and_worker_each_time(client, desk, worker, heard):
    life, _, playing = await started(client, desk, worker, heard)
    life._wanted.block_hashes, life._wanted.hash_block_tokens = (7, 8), 16
    await playing.done(pb.END_REASON_PREEMPTED)
    again = await desk.hears()
    await desk.grant(again, worker)
    start = (await worker.plays()).start
    assert (list(again.block_hashes), again.hash_block_tokens) == ([7, 8], 16)
    assert (list(start.block_hashes), start.hash_block_tokens) == ([7, 8], 16)


async def test_output_without_ids_is_resumed_by_its_text(client, desk, worker, heard):
    _, _, playing = await started(client, desk, worker, heard)
    await playing.say("to")
    await playing.say(" be", ids=False)
    await playing.done(pb.END_REASON_PREEMPTED)
    await desk.grant(await desk.hears(), worker)
    assert (await worker.plays()).start.resume == pb.Resume(from_index=2, text="to be")


async def test_an_unreachable_worker_is_named_to_the_router(router, worker, other, heard):
    await other.kill()
    consumer = heard()
    async with diplex.AsyncClient(router.address, direct="always") as client:
        desk = await router.desk()
        client.start(consumer, "a prompt")
        await desk.grant(await desk.hears(), other)
        again = await desk.hears()
        assert (again.again.reason, again.again.worker) == (pb.END_REASON_FAILED, "w2")
        assert again.again.produced_tokens == 0
        await desk.grant(again, worker)
        await (await worker.plays()).done(pb.END_REASON_STOP)
        assert (await consumer.end()).reason == pb.END_REASON_STOP


async def test_a_worker_that_dies_before_the_first_token_costs_nothing(client, desk, worker, other, heard):
    _, consumer, _ = await started(client, desk, worker, heard)
    await worker.kill()
    await desk.grant(await desk.hears(), other)
    elsewhere = await other.plays()
    assert not elsewhere.start.HasField("resume")
    await elsewhere.say("whole")
    await elsewhere.done(pb.END_REASON_STOP)
    await consumer.end()
    assert consumer.text == "whole"


async def test_a_worker_that_dies_later_is_gone_on_from(client, desk, worker, other, heard, wait_until):
    _, consumer, playing = await started(client, desk, worker, heard)
    await playing.say("to", " be")
    await wait_until(lambda: consumer.tokens)
    await worker.kill()
    await desk.grant(await desk.hears(), other)
    elsewhere = await other.plays()
    assert elsewhere.start.resume.from_index == 2
    await elsewhere.say(" or")
    await elsewhere.done(pb.END_REASON_STOP)
    await consumer.end()
    assert consumer.text == "to be or"


async def test_an_engine_that_cannot_resume_leaves_a_clear_error(client, desk, worker, heard, wait_until):
    consumer = heard()
    client.start(consumer, "a prompt")
    await desk.grant(await desk.hears(), worker, can_resume=False)
    playing = await worker.plays()
    await playing.say("to", " be")
    await wait_until(lambda: consumer.tokens)
    await worker.kill()
    assert (await consumer.end()).reason == pb.END_REASON_FAILED
    assert consumer.problem.code is grpc.StatusCode.UNAVAILABLE
    assert "w1" in consumer.problem.message
    assert "2 tokens" in consumer.problem.message
    assert isinstance(await desk.hears(), router_pb2.Withdraw)


async def test_a_grant_on_an_engine_that_cannot_go_on_is_not_shown(client, desk, worker, other, heard):
    _, consumer, playing = await started(client, desk, worker, heard)
    await playing.say("to")
    await playing.done(pb.END_REASON_PREEMPTED)
    await desk.grant(await desk.hears(), other, can_resume=False)
    assert (await consumer.end()).reason == pb.END_REASON_FAILED
    assert isinstance(await desk.hears(), router_pb2.Withdraw)
    assert other.shown == 0


async def test_several_choices_are_not_resumed(client, desk, worker, heard):
    _, consumer, playing = await started(client, desk, worker, heard, n=2)
    await playing.say("a", choice=0, index=0)
    await playing.say("b", choice=1, index=0)
    await playing.done(pb.END_REASON_PREEMPTED)
    assert (await consumer.end()).reason == pb.END_REASON_FAILED
    assert consumer.problem.code is grpc.StatusCode.UNAVAILABLE


async def test_several_choices_without_a_token_are_asked_for_again(client, desk, worker, heard):
    _, _, playing = await started(client, desk, worker, heard, n=2)
    await playing.done(pb.END_REASON_PREEMPTED)
    assert (await desk.hears()).n == 2


async def test_a_failure_of_the_engine_is_not_tried_elsewhere(client, desk, worker, heard):
    _, consumer, playing = await started(client, desk, worker, heard)
    await playing.done(pb.END_REASON_FAILED, Problem(grpc.StatusCode.INTERNAL, "NaN in the logits"))
    assert (await consumer.end()).reason == pb.END_REASON_FAILED
    assert consumer.problem.message == "NaN in the logits"


async def test_cancelled_while_it_waits_it_is_withdrawn_and_a_late_grant_is_not_shown(
    client, desk, worker, other, heard
):
    consumer = heard()
    life = client.start(consumer, "a prompt")
    ask = await desk.hears()
    life.cancel()
    assert (await consumer.end()).reason == pb.END_REASON_CANCELLED
    assert (await desk.hears()).ask_id == ask.ask_id
    await desk.grant(ask, worker)
    await started(client, desk, other, heard)  # the late grant was read before this one's
    assert worker.shown == 0
    assert len(consumer.dones) == 1


async def test_cancelled_while_it_runs_the_worker_says_the_last_word(client, desk, worker, heard, within):
    life, consumer, playing = await started(client, desk, worker, heard)
    life.cancel()
    life.cancel()
    await within(playing.cancelled.wait())
    await playing.say("late")
    await playing.done(pb.END_REASON_CANCELLED, usage=pb.Usage(completion_tokens=1))
    done = await consumer.end()
    assert (done.reason, done.usage.completion_tokens, consumer.text) == (pb.END_REASON_CANCELLED, 1, "late")
    assert not done.error


async def test_a_worker_that_does_not_hear_of_a_cancel_is_not_waited_for_long(
    client, desk, worker, heard, monkeypatch
):
    monkeypatch.setattr(request, "_GRACE", 0.05)
    life, consumer, _ = await started(client, desk, worker, heard)
    life.cancel()
    assert (await consumer.end()).reason == pb.END_REASON_CANCELLED
    assert isinstance(await desk.hears(), router_pb2.Withdraw)


async def test_refused_by_its_worker_for_good_the_router_is_told_not_to_wait(client, desk, worker, heard):
    _, consumer, playing = await started(client, desk, worker, heard)
    await playing.done(pb.END_REASON_REFUSED, Problem(grpc.StatusCode.INVALID_ARGUMENT, "too long"))
    assert (await consumer.end()).reason == pb.END_REASON_REFUSED
    assert isinstance(await desk.hears(), router_pb2.Withdraw)


async def test_cancelled_and_refused_at_once_it_is_cancelled_and_not_asked_again(client, desk, worker, heard):
    life, consumer, playing = await started(client, desk, worker, heard)
    life.cancel()
    await playing.done(pb.END_REASON_REFUSED, FULL)
    assert (await consumer.end()).reason == pb.END_REASON_CANCELLED
    assert isinstance(await desk.hears(), router_pb2.Withdraw)


async def test_a_deadline_that_passes_while_it_waits_withdraws_it(client, desk, heard):
    consumer = heard()
    client.start(consumer, "a prompt", timeout=0.1)
    ask = await desk.hears()
    assert 0 < ask.timeout_ms <= 100
    await consumer.end()
    assert consumer.problem.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert isinstance(await desk.hears(), router_pb2.Withdraw)


async def test_a_deadline_that_passes_while_it_runs_cancels_it_at_the_worker(
    client, desk, worker, heard, within
):
    _, consumer, playing = await started(client, desk, worker, heard, timeout=0.2)
    assert 0 < playing.start.timeout_ms <= 200
    await within(playing.cancelled.wait())
    await playing.done(pb.END_REASON_CANCELLED)
    await consumer.end()
    assert consumer.problem.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_what_the_router_refuses_ends_in_its_words(client, desk, heard):
    consumer = heard()
    client.start(consumer, "a prompt")
    await desk.refuse(
        await desk.hears(),
        Problem(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", "QUEUE_FULL", retry_after=2.5),
    )
    assert (await consumer.end()).reason == pb.END_REASON_REFUSED
    assert (consumer.problem.reason, consumer.problem.retry_after) == ("QUEUE_FULL", 2.5)


async def test_what_waits_when_the_session_breaks_is_asked_anew_with_its_age(
    client, desk, router, worker, heard
):
    consumer = heard()
    client.start(consumer, "a prompt")
    before = await desk.hears()
    desk.break_off()
    new_desk = await router.desk()
    after = await new_desk.hears()
    assert (after.ask_id, before.age_ms) == (before.ask_id, 0)
    assert after.age_ms > 0
    await new_desk.grant(after, worker)
    await (await worker.plays()).done(pb.END_REASON_STOP)
    assert (await consumer.end()).reason == pb.END_REASON_STOP


async def test_what_runs_does_not_notice_that_the_router_is_gone(client, desk, router, worker, heard):
    _, consumer, playing = await started(client, desk, worker, heard)
    await playing.say("to")
    await router.kill()
    await playing.say(" be")
    await playing.done(pb.END_REASON_STOP)
    assert (await consumer.end()).reason == pb.END_REASON_STOP
    assert consumer.text == "to be"


async def test_what_is_preempted_while_the_router_is_gone_is_asked_for_when_it_is_back(
    client, desk, router, worker, heard, wait_until
):
    _, consumer, playing = await started(client, desk, worker, heard)
    await router.kill()
    await wait_until(lambda: not client.ready)
    await playing.say("to")
    await playing.done(pb.END_REASON_PREEMPTED)
    await wait_until(lambda: consumer.tokens)
    await router.start()
    again = await (await router.desk()).hears()
    assert (again.again.produced_tokens, again.again.claim) == (1, playing.grant.claim)


async def test_a_revocation_after_the_start_has_no_effect(client, desk, worker, heard):
    _, consumer, playing = await started(client, desk, worker, heard)
    revoked = router_pb2.Revoked(ask_id=1, claim=playing.grant.claim, status=FULL.to_bytes())
    await desk.say(revoked=[revoked])
    await playing.say("to")
    await playing.done(pb.END_REASON_STOP)
    assert (await consumer.end()).reason == pb.END_REASON_STOP


async def test_a_second_done_and_one_of_an_older_attempt_find_nobody(
    client, desk, worker, other, heard, wait_until
):
    _, consumer, playing = await started(client, desk, worker, heard)
    await playing.done(pb.END_REASON_PREEMPTED)
    await desk.grant(await desk.hears(), other)
    elsewhere = await other.plays()
    await playing.say("from the past")
    await playing.done(pb.END_REASON_STOP)
    neighbour = heard()  # on the old worker's stream, so that the past has been read when it ends
    client.start(neighbour, "a prompt")
    await desk.grant(await desk.hears(), worker)
    await (await worker.plays()).done(pb.END_REASON_STOP)
    await neighbour.end()
    assert (consumer.dones, consumer.tokens) == ([], [])

    await elsewhere.say("now")
    await elsewhere.done(pb.END_REASON_STOP)
    await elsewhere.done(pb.END_REASON_STOP)
    await consumer.end()
    await asyncio.sleep(0)
    assert (len(consumer.dones), consumer.text) == (1, "now")


async def test_a_window_goes_to_the_worker_and_is_kept_for_the_next_attempt(
    client, desk, worker, heard, wait_until
):
    life, _, playing = await started(client, desk, worker, heard)
    assert playing.start.window_upto == 0
    life.window(8)
    await wait_until(lambda: playing.windows == [8])
    await playing.done(pb.END_REASON_PREEMPTED)
    await desk.grant(await desk.hears(), worker)
    assert (await worker.plays()).start.window_upto == 8
