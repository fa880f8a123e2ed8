"""`Worker.Session` over a real connection."""

import asyncio

import grpc
import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.wire.status import Problem


async def test_many_sequences_on_one_stream_each_end_with_their_own_words(serve, said):
    async with serve() as worker:
        client = worker.client()
        await client.send(starts=[worker.start(seq) for seq in range(1, 33)])
        await client.until(lambda: len(client.done) == 32)
        assert [client.text(seq) for seq in range(1, 33)] == [
            said(f"prompt {seq}", 20) for seq in range(1, 33)
        ]
        assert {done.reason for done in client.done.values()} == {pb.END_REASON_LENGTH}
        info = await worker.info()
        assert (info.used_blocks, info.used_slots, info.sequences, info.observed_blocks) == (0, 0, 0, 0)
        assert info.peak_slots == 32


async def test_a_frame_holds_an_iterations_tokens_of_all_sequences(serve):
    async with serve(time_scale=1.0) as worker:
        client = worker.client()
        await client.send(starts=[worker.start(seq) for seq in range(1, 17)])
        await client.until(lambda: len(client.done) == 16)
        assert len(client.frames) < 40, "20 iterations, and no message per token"


async def test_choices_come_on_one_sequence(serve, said):
    async with serve() as worker:
        client = worker.client()
        grant = worker.grant(1, choices=3, slots=3, blocks=9)
        await client.send(starts=[worker.start(1, grant=grant)])
        await client.until(lambda: client.done)
        assert [client.text(1, c) for c in range(3)] == [said("prompt 1", 20, c) for c in range(3)]
        assert len(client.done[1].choice_reasons) == 3


async def test_a_start_without_room_is_refused_and_the_others_go_on(serve):
    async with serve() as worker:
        client = worker.client()
        await client.send(starts=[worker.start(1), worker.start(2, grant=worker.grant(2, blocks=10**6))])
        await client.until(lambda: len(client.done) == 2)
        refused = client.done[2]
        assert (refused.reason, refused.needed_blocks) == (pb.END_REASON_REFUSED, 10**6)
        assert Problem.from_bytes(refused.error).code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert client.done[1].reason == pb.END_REASON_LENGTH


async def test_a_prompt_beyond_the_context_is_refused_with_the_numbers(serve):
    async with serve(context=1000) as worker:
        client = worker.client()
        await client.send(starts=[worker.start(1, text="x" * 8000, grant=worker.grant(1, blocks=1000))])
        await client.until(lambda: client.done)
        problem = Problem.from_bytes(client.done[1].error)
        assert problem.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "2000 tokens" in problem.message
        assert "1000" in problem.message


async def test_messages_that_are_no_json_are_invalid(serve):
    async with serve() as worker:
        client = worker.client()
        prompt = pb.Prompt(chat=pb.Chat(messages=b"{nope"))
        await client.send(starts=[worker.start(1, prompt=prompt)])
        await client.until(lambda: client.done)
        assert Problem.from_bytes(client.done[1].error).code is grpc.StatusCode.INVALID_ARGUMENT
        assert (await worker.info()).used_blocks == 0


async def test_a_cancel_ends_one_sequence_and_no_other(serve):
    async with serve(time_scale=1.0) as worker:
        client = worker.client()
        long = {"grant": worker.grant(1, max_tokens=5000, blocks=200)}
        await client.send(starts=[worker.start(1, **long), worker.start(2)])
        await client.until(lambda: client.text(1))
        await client.send(cancels=[1])
        await client.until(lambda: len(client.done) == 2)
        assert client.done[1].reason == pb.END_REASON_CANCELLED
        assert client.done[2].reason == pb.END_REASON_LENGTH


async def test_a_deadline_ends_a_sequence(serve):
    async with serve(time_scale=1.0) as worker:
        client = worker.client()
        grant = worker.grant(1, max_tokens=5000, blocks=200)
        await client.send(starts=[worker.start(1, grant=grant, timeout_ms=150)])
        await client.until(lambda: client.done)
        assert client.done[1].reason == pb.END_REASON_CANCELLED
        assert Problem.from_bytes(client.done[1].error).code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_half_close_means_no_more_starts(serve, said):
    async with serve() as worker:
        client = worker.client()
        await client.send(starts=[worker.start(1)])
        await client.call.done_writing()
        await client.until(lambda: client.over)
        assert client.text(1) == said("prompt 1", 20)
        assert await client.call.code() is grpc.StatusCode.OK


async def test_a_connection_that_breaks_frees_everything_on_it_within_a_second(serve):
    async with serve(time_scale=1.0) as worker:
        link = await worker.link()
        client = worker.client()
        grants = [worker.grant(seq, max_tokens=5000, blocks=200) for seq in (1, 2, 3)]
        await client.send(starts=[worker.start(n, grant=grant) for n, grant in enumerate(grants, 1)])
        await client.until(lambda: all(client.text(seq) for seq in (1, 2, 3)))
        client.call.cancel()
        await link.until(lambda: all(link.ended(seq) for seq in (1, 2, 3)), within=1)
        assert (link.last.used_blocks, link.last.used_slots) == (0, 0)


async def test_windows_hold_a_sequence_back_and_let_it_go(serve, said):
    async with serve() as worker:
        client = worker.client()
        await client.send(starts=[worker.start(1, window_upto=5), worker.start(2)])
        await client.until(lambda: 2 in client.done)
        assert client.text(1) == said("prompt 1", 5)
        await client.send(windows=[{"seq": 1, "upto": 0}])
        await client.until(lambda: 1 in client.done)
        assert client.text(1) == said("prompt 1", 20)


async def test_a_number_used_twice_ends_the_stream_with_the_reason(serve):
    async with serve(time_scale=1.0) as worker:
        client = worker.client()
        await client.send(starts=[worker.start(1, grant=worker.grant(9, max_tokens=500, blocks=50))])
        await client.until(lambda: client.text(1))
        await client.send(starts=[worker.start(1)])
        assert await asyncio.wait_for(client.call.code(), 5) is grpc.StatusCode.INVALID_ARGUMENT
        assert "sequence 1 still runs" in await client.call.details()


@pytest.mark.parametrize(
    ("bent", "code"),
    [
        ({"epoch": 4}, grpc.StatusCode.ABORTED),
        ({"boot": 1}, grpc.StatusCode.ABORTED),
        ({"worker": "w1"}, grpc.StatusCode.ABORTED),
        ({"start_by_ms": 0}, grpc.StatusCode.ABORTED),
    ],
)
async def test_a_grant_that_is_not_good_now_is_refused_and_may_be_asked_again(serve, bent, code):
    async with serve() as worker:
        await worker.link()
        client = worker.client()
        await client.send(starts=[worker.start(1, grant=worker.grant(1, **bent))])
        await client.until(lambda: client.done)
        assert client.done[1].reason == pb.END_REASON_REFUSED
        assert Problem.from_bytes(client.done[1].error).code is code
