"""A client that takes nothing of its stream: it is left after a while, and what ran for it ends."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from diplex.v1 import worker_pb2
from diplex.wire.status import Problem
from diplex_core.words import Claim
from diplex_workers import desk
from diplex_workers.session import serve_generate, serve_session


class Left(Exception):
    """What gRPC raises once a call was aborted."""


class Deaf:
    """The serving end of a call whose client lets the first `takes` messages through."""

    def __init__(self, takes: int = 0) -> None:
        self._takes = takes
        self.taken: asyncio.Queue[Any] = asyncio.Queue()
        self.problem: Problem | None = None

    async def write(self, message: Any) -> None:
        if not self._takes:
            await asyncio.Event().wait()
        self._takes -= 1
        self.taken.put_nowait(message)

    async def abort(self, code: grpc.StatusCode, details: str, trailer: Any) -> None:
        self.problem = Problem.from_bytes(trailer[0][1])
        raise Left

    def time_remaining(self) -> None:
        return None


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "WINDOW_SHUT", 0.05)


async def starts(house: Any, *leases: int) -> AsyncIterator[worker_pb2.WorkerSessionRequest]:
    """A client that starts these, and stays."""
    orders = [
        worker_pb2.Start(seq=lease, grant=house.keys.sign(house.grant(lease)), prompt={"text": "x" * 100})
        for lease in leases
    ]
    yield worker_pb2.WorkerSessionRequest(starts=orders)
    await asyncio.Event().wait()


async def said(house: Any, call: "asyncio.Task[None]", *leases: int) -> None:
    """The sequences run, and each has said a token."""
    while len(house.uncounted) < len(leases):
        await asyncio.sleep(0)
        assert not call.done()
    house.counted()
    for lease in leases:
        house.say(Claim(lease, 1))


async def test_a_session_ends_with_all_that_runs_on_it(house: Any) -> None:
    context = Deaf()
    call = asyncio.create_task(serve_session(house.reception, house.stream, starts(house, 1, 2), context))
    await said(house, call, 1, 2)
    with pytest.raises(Left):
        await call
    assert house.engine.cancelled == [Claim(1, 1), Claim(2, 1)]
    assert context.problem is not None
    assert (context.problem.code, context.problem.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "WINDOW_SHUT",
    )


async def test_a_single_request_ends_before_its_client_hears_of_it(house: Any) -> None:
    context = Deaf(takes=1)
    start = worker_pb2.Start(seq=1, grant=house.keys.sign(house.grant(1)), prompt={"text": "x" * 100})
    request = worker_pb2.WorkerGenerateRequest(start=start)
    call = asyncio.create_task(serve_generate(house.reception, house.stream, request, context))
    await said(house, call, 1)
    await context.taken.get()
    house.say(Claim(1, 1))
    with pytest.raises(Left):
        await call
    assert house.engine.cancelled == [Claim(1, 1)]
    assert context.problem is not None
    assert context.problem.reason == "WINDOW_SHUT"


async def test_one_that_takes_each_message_in_time_is_not_left(house: Any) -> None:
    context = Deaf(takes=100)
    call = asyncio.create_task(serve_session(house.reception, house.stream, starts(house, 1), context))
    await said(house, call, 1)
    for _ in range(20):
        await context.taken.get()
        house.say(Claim(1, 1))
    assert context.problem is None
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
