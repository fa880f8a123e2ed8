"""The reading end of `Worker.Session`: one stream a worker, every sequence's tokens in its frames.

A frame is handed out by plain calls, token by token and without an await or a wake-up each: that is what
makes Python fast enough here. A stream that breaks ends every sequence on it; the next request dials again.
"""

import asyncio
import time
from collections.abc import Iterator
from typing import Final, Protocol, TypeAlias

import grpc

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import worker_pb2, worker_pb2_grpc
from diplex.wire.coalesce import Outbox
from diplex.wire.reach import Reach
from diplex.wire.serving import channel, connected
from diplex.wire.status import Problem

WORKER_GONE: Final = "WORKER_GONE"
WORKER_UNREACHABLE: Final = "WORKER_UNREACHABLE"
LOST_TOKENS: Final = "LOST_TOKENS"

_PROMPTS_PER_MESSAGE: Final = 4 * 1024 * 1024
"""Bytes of prompts that share a message."""

Order: TypeAlias = worker_pb2.Start | worker_pb2.Window | int
"""What goes up: a start, a window, or the number of a sequence to cancel."""

Call: TypeAlias = grpc.aio.StreamStreamCall[worker_pb2.WorkerSessionRequest, worker_pb2.WorkerSessionResponse]


class SequenceSink(Protocol):
    """Who hears of one sequence. `on_done` comes once and last."""

    def on_tokens(self, tokens: pb.Tokens) -> None: ...

    def on_done(self, done: pb.Done) -> None: ...


class SequenceHandle:
    """One sequence on a worker's stream."""

    def __init__(self, stream: "_Stream", start: worker_pb2.Start, sink: SequenceSink) -> None:
        self._stream = stream
        self._sink = sink
        self._next: dict[int, int] = {0: start.resume.from_index} if start.HasField("resume") else {}
        self.seq = start.seq

    def cancel(self) -> None:
        """Ask the worker to end it; its `on_done` still comes."""
        self._stream.send(self.seq)

    def window(self, upto: int) -> None:
        """Tokens below index `upto` may be sent; 0: all."""
        self._stream.send(worker_pb2.Window(seq=self.seq, upto=upto))

    def take(self, tokens: pb.Tokens) -> None:
        choice, index, count, ids = tokens.choice, tokens.index, tokens.count, len(tokens.ids)
        expected = self._next.get(choice, 0)
        if index != expected:
            self._give_up(f"token {index} where token {expected} was due")
        elif ids and ids != count:
            self._give_up(f"{ids} ids for {count} tokens")
        else:
            self._next[choice] = expected + count
            self._sink.on_tokens(tokens)

    def _give_up(self, sent: str) -> None:
        """What is lost cannot be made good: end it here, and at the worker."""
        self._stream.drop(self.seq)
        self._stream.send(self.seq)
        self._sink.on_done(_failed(self.seq, _lost_tokens(self._stream.address, sent)))

    def finish(self, done: pb.Done) -> None:
        self._sink.on_done(done)


class WorkerStreams:
    """One shared `Worker.Session` for each worker that this process uses."""

    def __init__(self) -> None:
        self._streams: dict[str, _Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._reach = Reach(time.monotonic)

    def out_of_reach(self, address: str) -> bool:
        """Whether the worker at this address cannot be reached from here, as far as was tried."""
        self._try_again()
        return self._reach.out_of_reach(address)

    def nothing_in_reach(self) -> bool:
        """Whether that is so of every address that was tried."""
        self._try_again()
        return self._reach.nothing_in_reach()

    def _try_again(self) -> None:
        """Dial what is due, beside the requests: none of them waits for it."""
        for address in self._reach.due():
            if address not in self._streams:
                self._stream(address)

    def open(self, address: str, start: worker_pb2.Start, sink: SequenceSink) -> SequenceHandle:
        """Start a sequence. Never raises: a worker that cannot be reached is an `on_done`, FAILED.

        Args:
            start: its `seq` is set here.
        """
        stream = self._streams.get(address) or self._stream(address)
        return stream.open(start, sink)

    def _stream(self, address: str) -> "_Stream":
        stream = self._streams[address] = _Stream(address, self._reach)
        task = asyncio.get_running_loop().create_task(self._run(stream), name=f"session with {address}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return stream

    async def _run(self, stream: "_Stream") -> None:
        problem = Problem(
            grpc.StatusCode.UNAVAILABLE, f"the session with {stream.address} was closed", WORKER_GONE
        )
        try:
            problem = await stream.run()
        finally:
            if self._streams.get(stream.address) is stream:
                del self._streams[stream.address]
            stream.break_off(problem)

    async def close(self) -> None:
        """End every stream, and with it every sequence."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Stream:
    """One `Worker.Session` from its dialling to its end."""

    def __init__(self, address: str, reach: Reach) -> None:
        self.address = address
        self._reach = reach
        self._handles: dict[int, SequenceHandle] = {}
        self._orders: Outbox[Order] = Outbox()
        self._last_seq = 0

    def open(self, start: worker_pb2.Start, sink: SequenceSink) -> SequenceHandle:
        self._last_seq += 1
        start.seq = self._last_seq
        handle = self._handles[start.seq] = SequenceHandle(self, start, sink)
        self._orders.put(start)
        return handle

    def send(self, order: Order) -> None:
        self._orders.put(order)

    def drop(self, seq: int) -> None:
        """Nothing more is heard of this sequence."""
        self._handles.pop(seq, None)

    async def run(self) -> Problem:
        """Carry orders and frames for as long as the stream lasts; answers why it ended."""
        async with channel(self.address) as dialled:
            if reached := await connected(dialled):
                self._reach.reached(self.address)
            else:
                self._reach.failed(self.address)
            stub: worker_pb2_grpc.WorkerAsyncStub = worker_pb2_grpc.WorkerStub(dialled)
            call: Call = stub.Session()
            writer = asyncio.create_task(self._write(call), name=f"orders to {self.address}")
            try:
                while isinstance(frame := await call.read(), worker_pb2.WorkerSessionResponse):
                    self._hand_out(frame)
                return _gone(self.address, "it closed the session")
            except grpc.aio.AioRpcError as error:
                why = Problem.from_rpc(error).message
                return _gone(self.address, why) if reached else _unreachable(self.address, why)
            finally:
                writer.cancel()
                call.cancel()
                await asyncio.gather(writer, return_exceptions=True)

    async def _write(self, call: Call) -> None:
        while orders := await self._orders.gather():
            for message in folded(orders):
                await call.write(message)

    def _hand_out(self, frame: worker_pb2.WorkerSessionResponse) -> None:
        handles = self._handles
        for tokens in frame.tokens:
            handle = handles.get(tokens.seq)
            if handle is not None:
                handle.take(tokens)
        for done in frame.done:
            handle = handles.pop(done.seq, None)
            if handle is not None:
                handle.finish(done)

    def break_off(self, problem: Problem) -> None:
        """Every sequence without its `done` fails with the stream."""
        self._orders.close()
        handles, self._handles = self._handles, {}
        for seq, handle in handles.items():
            handle.finish(_failed(seq, problem))


def folded(orders: list[Order]) -> Iterator[worker_pb2.WorkerSessionRequest]:
    """Everything that gathered, in as few messages as may be.

    Long prompts get messages of their own: one larger than gRPC takes would break the stream for everybody.
    """
    message, prompts = worker_pb2.WorkerSessionRequest(), 0
    for order in orders:
        match order:
            case worker_pb2.Start():
                size = order.ByteSize()
                if message.starts and prompts + size > _PROMPTS_PER_MESSAGE:
                    yield message
                    message, prompts = worker_pb2.WorkerSessionRequest(), 0
                message.starts.append(order)
                prompts += size
            case worker_pb2.Window():
                message.windows.append(order)
            case int():
                message.cancels.append(order)
    yield message


def _failed(seq: int, problem: Problem) -> pb.Done:
    return pb.Done(seq=seq, reason=pb.END_REASON_FAILED, error=problem.to_bytes())


def _gone(address: str, why: str) -> Problem:
    return Problem(grpc.StatusCode.UNAVAILABLE, f"the worker at {address} is gone: {why}", WORKER_GONE)


def _unreachable(address: str, why: str) -> Problem:
    return Problem(
        grpc.StatusCode.UNAVAILABLE, f"the worker at {address} cannot be reached: {why}", WORKER_UNREACHABLE
    )


def _lost_tokens(address: str, sent: str) -> Problem:
    return Problem(
        grpc.StatusCode.INTERNAL,
        f"the worker at {address} sent {sent}. Mend: send the request again, and report this",
        LOST_TOKENS,
    )
