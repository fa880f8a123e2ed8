"""`Worker.Session` and `Generate`: a client's orders in, frames of tokens out.

While a client takes nothing, what is said to it gathers, at most what its leases allow; one that has taken
nothing for half a minute is left, and what ran for it ends.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc

from diplex.v1 import worker_pb2
from diplex.wire.status import Problem
from diplex_workers import desk, refusals
from diplex_workers.reception import Reception
from diplex_workers.stream import TokenStream

Requests: TypeAlias = AsyncIterator[worker_pb2.WorkerSessionRequest]
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Message: TypeAlias = worker_pb2.WorkerSessionResponse | worker_pb2.WorkerGenerateResponse


async def serve_session(
    reception: Reception, stream: TokenStream, requests: Requests, context: Context
) -> None:
    """Many sequences on one stream, until the client leaves, or half-closes and its last one is done.

    Raises:
        grpc.aio.AbortError: the client broke the protocol, or took nothing for too long.
    """
    taken = True
    try:
        async with asyncio.TaskGroup() as tasks:
            orders = tasks.create_task(_take_orders(reception, stream, requests))
            while taken and (frame := await stream.frame()) is not None:
                taken = await _taken(context, frame)
            orders.cancel()
    finally:
        reception.desk.stream_ended(stream)
    if not taken:
        await refusals.nothing_taken(desk.WINDOW_SHUT).abort(context)
    if not orders.cancelled() and (problem := orders.result()) is not None:
        await problem.abort(context)


async def serve_generate(
    reception: Reception, stream: TokenStream, request: worker_pb2.WorkerGenerateRequest, context: Context
) -> None:
    """One sequence. Its last message holds `done`; what went wrong is the call's status besides.

    Raises:
        grpc.aio.AbortError: it did not end well.
    """
    start = request.start
    left = context.time_remaining()
    if left is not None:
        left_ms = max(1, round(left * 1000))
        start.timeout_ms = min(start.timeout_ms or left_ms, left_ms)
    error = b""
    try:
        if start.HasField("grant"):
            reception.start(start, stream)
        else:
            reception.start_open(start, stream, request.max_tokens, request.choices)
        stream.half_close()
        while (frame := await stream.frame()) is not None:
            done = frame.done[0] if frame.done else None
            message = worker_pb2.WorkerGenerateResponse(tokens=frame.tokens, done=done)
            if not await _taken(context, message):
                raise refusals.nothing_taken(desk.WINDOW_SHUT)
            error = done.error if done is not None else b""
    except Problem as problem:
        reception.desk.stream_ended(stream)  # before the client takes this last word, if it ever does
        await problem.abort(context)
    finally:
        reception.desk.stream_ended(stream)
    if error:
        await Problem.from_bytes(error).abort(context)


async def _taken(context: Context, message: Message) -> bool:
    """Write a message; false: its client let it wait for too long."""
    try:
        async with asyncio.timeout(desk.WINDOW_SHUT):
            await context.write(message)
    except TimeoutError:
        return False
    return True


async def _take_orders(reception: Reception, stream: TokenStream, requests: Requests) -> Problem | None:
    """Carry out what the client says, in its order; answers what it did wrong, if that ended it."""
    try:
        async for request in requests:
            for start in request.starts:
                reception.start(start, stream)
            for window in request.windows:
                reception.desk.window(stream, window.seq, window.upto)
            for seq in request.cancels:
                reception.desk.cancel(stream, seq)
    except Problem as problem:
        stream.break_off()
        return problem
    stream.half_close()
    return None
