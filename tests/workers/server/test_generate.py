"""`Worker.Generate` over a real connection."""

import grpc
import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import worker_pb2, worker_pb2_grpc
from diplex.wire.serving import channel
from diplex.wire.status import Problem

OPEN = {"settings": {"open": True}}


async def read(call) -> tuple[str, pb.Done | None, Problem | None]:
    """All that a call says: its text, its last message's done, and its status where that is not OK."""
    text, done = "", None
    try:
        while isinstance(message := await call.read(), worker_pb2.WorkerGenerateResponse):
            assert done is None, "nothing comes behind the last word"
            text += "".join(tokens.text for tokens in message.tokens)
            done = message.done if message.HasField("done") else None
    except grpc.aio.AioRpcError as error:
        return text, done, Problem.from_rpc(error)
    return text, done, None


async def test_a_granted_request_is_served(serve, said):
    async with serve() as worker:
        call = worker.stub().Generate(worker_pb2.WorkerGenerateRequest(start=worker.start(1)))
        text, done, problem = await read(call)
        assert (text, done.reason, problem) == (said("prompt 1", 20), pb.END_REASON_LENGTH, None)


async def test_a_request_without_a_grant_is_refused(serve):
    async with serve() as worker:
        start = worker_pb2.Start(prompt=pb.Prompt(text="hi"))
        call = worker.stub().Generate(worker_pb2.WorkerGenerateRequest(start=start))
        assert (await read(call))[2].code is grpc.StatusCode.UNAUTHENTICATED


async def test_an_open_worker_serves_a_request_without_a_grant(serve, said):
    async with serve(**OPEN) as worker:
        start = worker_pb2.Start(prompt=pb.Prompt(text="hi"), sampling=pb.Sampling(ignore_eos=True))
        request = worker_pb2.WorkerGenerateRequest(start=start, max_tokens=12, choices=1)
        text, done, _ = await read(worker.stub().Generate(request))
        assert (text, done.usage.completion_tokens) == (said("hi", 12), 12)


async def test_a_worker_without_a_key_still_serves_when_it_is_open(serve):
    async with serve(settings={"open": True, "keys": None}) as worker:
        start = worker_pb2.Start(prompt=pb.Prompt(text="hi"))
        text, done, problem = await read(
            worker.stub().Generate(worker_pb2.WorkerGenerateRequest(start=start))
        )
        assert (bool(text), done.reason, problem) == (True, pb.END_REASON_STOP, None)
        call = worker.stub().Generate(worker_pb2.WorkerGenerateRequest(start=worker.start(1)))
        assert (await read(call))[2].reason == "NO_KEY"


async def test_a_refusal_is_the_last_message_and_the_calls_status(serve):
    async with serve() as worker:
        start = worker.start(1, grant=worker.grant(1, blocks=10**6))
        call = worker.stub().Generate(worker_pb2.WorkerGenerateRequest(start=start))
        _, done, problem = await read(call)
        assert (done.reason, done.needed_blocks) == (pb.END_REASON_REFUSED, 10**6)
        assert (problem.code, problem.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "NO_ROOM")


async def test_the_calls_deadline_ends_the_sequence(serve):
    async with serve(time_scale=1.0) as worker:
        link = await worker.link()
        start = worker.start(1, grant=worker.grant(1, max_tokens=5000, blocks=200))
        call = worker.stub().Generate(worker_pb2.WorkerGenerateRequest(start=start), timeout=0.2)
        assert (await read(call))[2].code is grpc.StatusCode.DEADLINE_EXCEEDED
        await link.until(lambda: link.ended(1), within=2)
        assert link.last.used_blocks == 0


@pytest.mark.parametrize("how", ["cancel", "hang up"])
async def test_a_client_that_leaves_ends_its_sequence_within_a_second(serve, how: str):
    async with serve(time_scale=1.0) as worker:
        link = await worker.link()
        start = worker.start(1, grant=worker.grant(1, max_tokens=5000, blocks=200))
        own = channel(f"127.0.0.1:{worker.port}")
        call = worker_pb2_grpc.WorkerStub(own).Generate(worker_pb2.WorkerGenerateRequest(start=start))
        await call.read()
        if how == "cancel":
            call.cancel()
        else:
            await own.close()
        await link.until(lambda: link.ended(1), within=1)
        assert link.ended(1)[0].reason == pb.END_REASON_CANCELLED
        await own.close()


async def test_a_reader_that_lags_loses_nothing(serve, said):
    async with serve(time_scale=50.0) as worker:
        link = await worker.link()
        start = worker.start(1, grant=worker.grant(1, max_tokens=3000, blocks=200))
        call = worker.stub().Generate(worker_pb2.WorkerGenerateRequest(start=start))
        first = await call.read()
        await link.until(lambda: link.ended(1))
        text, done, _ = await read(call)
        assert first.tokens[0].text + text == said("prompt 1", 3000)
        assert done.reason == pb.END_REASON_LENGTH
