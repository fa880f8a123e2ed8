"""A stream gives tokens as they come, and ends its request when it is left."""

import asyncio
import gc
from typing import Any

import grpc
import pytest

import diplex
from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2
from diplex.wire.status import Problem


@pytest.fixture
async def desk(router: Any, client: Any) -> Any:
    return await router.desk()


async def begun(client: Any, desk: Any, worker: Any, **options: Any) -> tuple[diplex.TokenStream, Any]:
    """A stream that a worker plays, and that worker's side of it."""
    stream = client.stream("a prompt", **options)
    first = asyncio.create_task(stream.started())
    await desk.grant(await desk.hears(), worker)
    playing = await worker.plays()
    await playing.say("to")
    assert (await first).worker == worker.name
    return stream, playing


async def test_a_reader_that_keeps_up_gets_each_token_by_itself(client, desk, worker):
    stream, playing = await begun(client, desk, worker)
    chunks = [await anext(stream)]
    for word in (" be", " or"):
        await playing.say(word)
        chunks.append(await anext(stream))
    await playing.done(pb.END_REASON_STOP)
    assert [chunk async for chunk in stream] == []
    assert chunks == [
        diplex.Chunk("to", (0,), 0, 0, 1),
        diplex.Chunk(" be", (1,), 0, 1, 1),
        diplex.Chunk(" or", (2,), 0, 2, 1),
    ]
    assert stream.reply.text == "to be or"


async def test_a_reader_that_lags_finds_what_gathered_in_one_chunk_a_choice(client, desk, worker, wait_until):
    stream, playing = await begun(client, desk, worker, n=2)
    await playing.say("x", choice=1, index=0)
    await playing.say(" be", choice=0, index=1)
    await playing.say("y", choice=1, index=1)
    await playing.done(pb.END_REASON_STOP)
    await wait_until(lambda: stream._reading.over.done())
    assert [chunk async for chunk in stream] == [
        diplex.Chunk("to be", (0, 1), 0, 0, 2),
        diplex.Chunk("xy", (0, 1), 1, 0, 2),
    ]


async def test_chunks_and_reply_tell_how_often_the_request_gave_way(client, desk, worker):
    stream, playing = await begun(client, desk, worker)
    chunks = [await anext(stream)]
    await playing.done(pb.END_REASON_PREEMPTED)
    await desk.grant(await desk.hears(), worker)
    playing = await worker.plays()
    await playing.say(" be")
    chunks.append(await anext(stream))
    await playing.done(pb.END_REASON_STOP)
    chunks += [chunk async for chunk in stream]
    assert [(chunk.text, chunk.preemptions) for chunk in chunks] == [("to", 0), (" be", 1)]
    assert (stream.reply.text, stream.reply.preemptions) == ("to be", 1)


async def test_ids_of_which_some_are_unknown_are_left_out_of_a_gathered_chunk(
    client, desk, worker, wait_until
):
    stream, playing = await begun(client, desk, worker)
    await playing.say(" be", ids=False)
    await playing.done(pb.END_REASON_STOP)
    await wait_until(lambda: stream._reading.over.done())
    assert [(chunk.ids, chunk.count) async for chunk in stream] == [((), 2)]


async def test_a_reader_that_lags_far_shuts_its_window_and_opens_it_as_it_reads(
    client, desk, worker, wait_until, monkeypatch
):
    monkeypatch.setattr("diplex.stream.AHEAD", 4)
    stream, playing = await begun(client, desk, worker)
    await playing.say(*"abcd")
    await wait_until(lambda: playing.windows == [5])
    assert (await anext(stream)).text == "toabcd"
    after = asyncio.create_task(anext(stream))  # asking for more says that it has read what it got
    await wait_until(lambda: playing.windows == [5, 9])
    await playing.say("e")
    assert (await after).text == "e"
    reading = asyncio.create_task(anext(stream))
    await wait_until(lambda: playing.windows == [5, 9, 0])
    await playing.done(pb.END_REASON_STOP)
    with pytest.raises(StopAsyncIteration):
        await reading


async def test_a_stream_that_nobody_reads_asks_for_nothing(client, desk, heard):
    client.stream("never read")
    client.start(heard(), "a prompt", request_id="next")
    assert (await desk.hears()).request_id == "next"


async def test_started_waits_for_the_first_token_because_a_worker_may_refuse(client, desk, worker, other):
    stream = client.stream("a prompt")
    started = asyncio.create_task(stream.started())
    await desk.grant(await desk.hears(), worker)
    full = Problem(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
    await (await worker.plays()).done(pb.END_REASON_REFUSED, full)
    await desk.grant(await desk.hears(), other)
    playing = await other.plays()
    await playing.say("to")
    assert (await started).worker == "w2"
    await playing.done(pb.END_REASON_STOP)
    assert [chunk.text async for chunk in stream] == ["to"]


async def test_leaving_the_loop_early_ends_the_request(client, desk, worker, within):
    stream, playing = await begun(client, desk, worker)
    async for chunk in stream:
        assert chunk.text == "to"
        break
    await within(playing.cancelled.wait())


async def test_leaving_the_loop_of_a_stream_without_a_name_ends_the_request(client, desk, worker, within):
    async def read() -> None:
        async for _ in client.stream("a prompt"):
            return

    reader = asyncio.create_task(read())
    await desk.grant(await desk.hears(), worker)
    playing = await worker.plays()
    await playing.say("to")
    await reader
    gc.collect()
    await within(playing.cancelled.wait())


async def test_an_exception_inside_async_with_ends_the_request(client, desk, worker, within):
    async def end_once_cancelled(playing: Any) -> None:
        await within(playing.cancelled.wait())
        await playing.done(pb.END_REASON_CANCELLED)

    stream, playing = await begun(client, desk, worker)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(end_once_cancelled(playing))
        with pytest.raises(KeyError):
            async with stream:
                raise KeyError("the caller's own")
    assert stream.reply.finish_reason == "cancelled"


async def test_closing_waits_for_the_workers_last_word_and_keeps_what_came(client, desk, worker, within):
    stream, playing = await begun(client, desk, worker)
    closing = asyncio.create_task(stream.aclose())
    await within(playing.cancelled.wait())
    await playing.done(pb.END_REASON_CANCELLED, usage=pb.Usage(completion_tokens=1))
    await closing
    await stream.aclose()
    assert (stream.reply.text, stream.reply.finish_reason) == ("to", "cancelled")
    assert stream.reply.usage.completion_tokens == 1
    assert [chunk.text async for chunk in stream] == ["to"]


async def test_closing_a_stream_that_waits_withdraws_it(client, desk):
    stream = client.stream("a prompt")
    started = asyncio.create_task(stream.started())
    ask = await desk.hears()
    await stream.aclose()
    withdraw = await desk.hears()
    assert isinstance(withdraw, router_pb2.Withdraw) and withdraw.ask_id == ask.ask_id
    with pytest.raises(RuntimeError, match="closed before"):
        await started


async def test_cancelling_a_reader_task_ends_the_request(client, desk, worker, within):
    stream, playing = await begun(client, desk, worker)

    async def read() -> list[str]:
        return [chunk.text async for chunk in stream]

    reader = asyncio.create_task(read())
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    await within(playing.cancelled.wait())


async def test_an_error_comes_where_the_next_chunk_would_have_come(client, desk, worker):
    stream, playing = await begun(client, desk, worker)
    await playing.done(pb.END_REASON_FAILED, Problem(grpc.StatusCode.INTERNAL, "NaN in the logits"))
    texts = []
    with pytest.raises(diplex.EngineFailed, match="NaN"):
        async for chunk in stream:
            texts.append(chunk.text)
    assert texts == ["to"]
    assert (stream.reply.text, stream.reply.finish_reason) == ("to", "failed")
    with pytest.raises(diplex.EngineFailed):
        await anext(stream)


async def test_what_is_refused_is_raised_by_started_too(client, desk):
    stream = client.stream("a prompt")
    started = asyncio.create_task(stream.started())
    await desk.refuse(await desk.hears(), Problem(grpc.StatusCode.NOT_FOUND, "unknown model"))
    with pytest.raises(diplex.UnknownModel):
        await started
    with pytest.raises(diplex.UnknownModel):
        await anext(stream)


async def test_a_deadline_is_raised_as_such(client, desk, worker, within):
    stream, playing = await begun(client, desk, worker, timeout=0.3)
    await within(playing.cancelled.wait())
    await playing.done(pb.END_REASON_CANCELLED)
    with pytest.raises(diplex.DeadlineExceeded, match=r"0\.3 s"):
        [chunk async for chunk in stream]


async def test_there_is_no_reply_before_the_end(client, desk, worker):
    assert isinstance(client.stream("a prompt"), diplex.TokenStream)
    with pytest.raises(RuntimeError, match="has not ended"):
        client.stream("a prompt").reply  # noqa: B018
    stream, _ = await begun(client, desk, worker)
    with pytest.raises(RuntimeError, match="has not ended"):
        stream.reply  # noqa: B018
