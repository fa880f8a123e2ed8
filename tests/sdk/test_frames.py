"""The reading end of a worker's stream: many sequences on one, each whole or ended in an error."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import worker_pb2
from diplex.wire.frames import WorkerStreams, folded
from diplex.wire.status import Problem


@pytest.fixture
async def streams() -> AsyncIterator[WorkerStreams]:
    streams = WorkerStreams()
    yield streams
    await streams.close()


def start_of(resume: int = 0) -> worker_pb2.Start:
    start = worker_pb2.Start(model="m")
    if resume:
        start.resume.from_index = resume
    return start


async def opened(streams: WorkerStreams, worker: Any, heard: Any, resume: int = 0) -> tuple[Any, Any, Any]:
    consumer = heard()
    handle = streams.open(worker.address, start_of(resume), consumer)
    return handle, consumer, await worker.plays()


async def test_sequences_of_one_worker_share_a_stream_and_have_numbers_of_their_own(streams, worker, heard):
    one, _, _ = await opened(streams, worker, heard)
    two, _, _ = await opened(streams, worker, heard)
    assert one.seq != two.seq
    assert worker.streams.qsize() == 1


async def test_what_is_started_in_one_go_goes_up_as_one_message(streams, worker, heard):
    for _ in range(5):
        streams.open(worker.address, start_of(), heard())
    stream = (await worker.plays()).stream
    assert [len(request.starts) for request in stream.requests] == [5]


def test_long_prompts_get_messages_of_their_own():
    long = [worker_pb2.Start(seq=n, prompt=pb.Prompt(text="x" * 3_000_000)) for n in (1, 2)]
    first, second = folded([*long, 1])
    assert [[start.seq for start in message.starts] for message in (first, second)] == [[1], [2]]
    assert list(second.cancels) == [1]


def test_orders_are_folded_by_kind_in_their_order():
    (message,) = folded(
        [worker_pb2.Start(seq=1), 7, worker_pb2.Window(seq=1, upto=4), worker_pb2.Start(seq=2), 8]
    )
    assert [start.seq for start in message.starts] == [1, 2]
    assert [window.upto for window in message.windows] == [4]
    assert list(message.cancels) == [7, 8]


async def test_tokens_reach_their_sequence_in_order(streams, worker, heard, wait_until):
    _, first, one = await opened(streams, worker, heard)
    _, second, two = await opened(streams, worker, heard)
    await one.say("a")
    await two.say("x")
    await one.say("b", "c")
    await wait_until(lambda: len(first.tokens) == 2 and second.tokens)
    assert (first.text, second.text) == ("abc", "x")


async def test_each_choice_has_its_own_indexes(streams, worker, heard, wait_until):
    _, consumer, playing = await opened(streams, worker, heard)
    await playing.say("a", choice=0, index=0)
    await playing.say("x", choice=1, index=0)
    await playing.say("b", choice=0, index=1)
    await playing.say("y", choice=1, index=1)
    await wait_until(lambda: len(consumer.tokens) == 4)
    assert not consumer.dones


async def test_a_resumed_sequence_begins_at_its_index(streams, worker, heard, wait_until):
    _, consumer, playing = await opened(streams, worker, heard, resume=5)
    await playing.say("f", index=5)
    await wait_until(lambda: consumer.tokens)
    assert not consumer.dones


@pytest.mark.parametrize(("index", "word"), [(3, "hole"), (1, "repeat"), (0, "start over")])
async def test_a_hole_or_a_repeat_is_an_error_and_never_skipped(streams, worker, heard, within, index, word):
    _, consumer, playing = await opened(streams, worker, heard)
    await playing.say("a", "b")
    await playing.say("?", index=index)
    assert (await consumer.end()).reason == pb.END_REASON_FAILED
    problem = Problem.from_bytes(consumer.dones[0].error)
    assert (problem.code.name, problem.reason) == ("INTERNAL", "LOST_TOKENS")
    assert f"token {index}" in problem.message
    await within(playing.cancelled.wait())


async def test_ids_that_are_not_as_many_as_the_tokens_are_an_error(streams, worker, heard):
    _, consumer, playing = await opened(streams, worker, heard)
    wrong = pb.Tokens(seq=playing.start.seq, count=2, ids=[1], text="ab")
    await playing.stream.context.write(worker_pb2.WorkerSessionResponse(tokens=[wrong]))
    await consumer.end()
    assert Problem.from_bytes(consumer.dones[0].error).reason == "LOST_TOKENS"


async def test_after_lost_tokens_its_neighbours_go_on(streams, worker, heard, wait_until):
    _, broken, one = await opened(streams, worker, heard)
    _, whole, two = await opened(streams, worker, heard)
    await one.say("?", index=9)
    await broken.end()
    await one.say("more", index=0)
    await two.say("a")
    await wait_until(lambda: whole.tokens)
    assert (len(broken.dones), broken.tokens) == (1, [])


async def test_a_stream_that_breaks_ends_each_open_sequence_once(streams, worker, heard):
    _, first, one = await opened(streams, worker, heard)
    _, second, _ = await opened(streams, worker, heard)
    _, ended, three = await opened(streams, worker, heard)
    done = pb.Done(seq=three.start.seq, reason=pb.END_REASON_STOP)
    await three.stream.context.write(worker_pb2.WorkerSessionResponse(done=[done]))
    await ended.end()
    one.stream.break_off()
    for consumer in (first, second):
        assert (await consumer.end()).reason == pb.END_REASON_FAILED
        problem = Problem.from_bytes(consumer.dones[0].error)
        assert problem.code.name == "UNAVAILABLE"
        assert worker.address in problem.message
        assert "the script broke it off" in problem.message
    assert [done.reason for done in ended.dones] == [pb.END_REASON_STOP]


async def test_after_a_break_the_next_start_dials_again(streams, worker, heard):
    _, consumer, playing = await opened(streams, worker, heard)
    playing.stream.break_off()
    await consumer.end()
    _, again, playing = await opened(streams, worker, heard)
    done = pb.Done(seq=playing.start.seq, reason=pb.END_REASON_STOP)
    await playing.stream.context.write(worker_pb2.WorkerSessionResponse(done=[done]))
    assert (await again.end()).reason == pb.END_REASON_STOP
    assert worker.streams.qsize() == 2


async def test_a_restarted_worker_is_reached_at_once(streams, worker, heard):
    _, consumer, _ = await opened(streams, worker, heard)
    await worker.kill()
    await consumer.end()
    await worker.start()
    await opened(streams, worker, heard)


async def test_where_nobody_listens_a_start_fails_as_unavailable(streams, worker, heard):
    await worker.kill()
    consumer = heard()
    streams.open(worker.address, start_of(), consumer)
    assert (await consumer.end()).reason == pb.END_REASON_FAILED
    assert Problem.from_bytes(consumer.dones[0].error).code.name == "UNAVAILABLE"


async def test_cancel_and_window_reach_the_worker_and_after_the_end_do_nothing(
    streams, worker, heard, wait_until, within
):
    handle, consumer, playing = await opened(streams, worker, heard)
    handle.window(5)
    handle.cancel()
    await within(playing.cancelled.wait())
    await wait_until(lambda: playing.windows == [5])
    playing.stream.break_off()
    await consumer.end()
    handle.cancel()
    handle.window(9)


async def test_closing_ends_every_stream_and_every_sequence(streams, worker, other, heard, within):
    _, first, one = await opened(streams, worker, heard)
    _, second, two = await opened(streams, other, heard)
    await streams.close()
    assert (len(first.dones), len(second.dones)) == (1, 1)
    await within(one.stream.ended.wait())
    await within(two.stream.ended.wait())
    assert not [task for task in asyncio.all_tasks() if "session with" in task.get_name()]
