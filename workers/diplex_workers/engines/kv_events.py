"""Listens to the KV events that vLLM or SGLang publish over ZeroMQ (extra `events`).

    PUB   [topic, number (8 bytes, big-endian), batch (msgpack)]   numbers from 0, anew with each start
    ROUTER, to [number]: [number, batch]… from that one on, as far as it still has them; then [-1, ""]

A subscriber that comes late, or is too slow, misses some: they are asked for again. A publisher that is gone
says nothing, like one that has nothing to say; its connection tells.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any, Final

from grpc import StatusCode

from diplex.wire.status import Problem
from diplex_core.words import Seconds, Tokens
from diplex_workers.engines.kv_blocks import Blocks, Unreadable
from diplex_workers.residency import BlockEvent

_END: Final = (-1).to_bytes(8, "big", signed=True)
_NUMBER_BYTES: Final = 8
# What a replay may take before it is given up until the next hole.
_REPLAY: Final[Seconds] = 5.0


class KvEvents:
    """One publisher's events, for as long as `listen` runs.

    Args:
        replay: where missing batches are asked for; "": nowhere.
        told: hears what the worker should know.
    """

    def __init__(
        self,
        endpoint: str,
        replay: str,
        topic: str,
        *,
        model: str,
        block_tokens: Tokens,
        epoch: int,
        told: Callable[[BlockEvent], None],
    ) -> None:
        self._endpoint, self._replay, self._topic = endpoint, replay, topic
        self._model, self._block_tokens, self._told = model, block_tokens, told
        self.epoch = epoch
        self._blocks = Blocks(model, block_tokens, epoch)
        self._last = -1  # the number that was published last
        self._cut = False  # the line was cut since: who publishes now may be another
        self._asked = -1  # the hole that was asked for last
        self._decode: Callable[[bytes], Any] = lambda data: None

    async def listen(self) -> None:
        """Runs until cancelled.

        Raises:
            Problem: pyzmq or msgspec is not installed.
        """
        zmq, msgspec = _packages()
        self._decode = msgspec.msgpack.decode
        context = zmq.asyncio.Context()
        line = context.socket(zmq.SUB)
        line.setsockopt(zmq.LINGER, 0)
        line.setsockopt_string(zmq.SUBSCRIBE, self._topic)
        states = line.get_monitor_socket(zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED)
        try:
            line.connect(self._endpoint)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch(zmq, states), name="line of KV events")
                if self._replay:
                    await self._ask(zmq, context)  # what was published before anybody listened
                while True:
                    _, number, batch = await line.recv_multipart()
                    await self._published(int.from_bytes(number, "big"), batch, zmq, context)
        finally:
            line.disable_monitor()
            line.close()
            context.destroy(0)

    async def _published(self, number: int, batch: bytes, zmq: Any, context: Any) -> None:
        if number <= self._last or (self._cut and number < self._blocks.due):  # it counts anew
            self.epoch += 1
            self._blocks = Blocks(self._model, self._block_tokens, self.epoch)
            self._asked = -1
        self._last, self._cut = number, False
        self._take(number, batch)
        if self._replay and self._blocks.due < number and self._asked < self._blocks.due:
            await self._ask(zmq, context)

    async def _ask(self, zmq: Any, context: Any) -> None:
        """Ask for everything from the first missing batch on."""
        self._asked = self._blocks.due
        line = context.socket(zmq.DEALER)
        line.setsockopt(zmq.LINGER, 0)
        line.connect(self._replay)
        try:
            async with asyncio.timeout(_REPLAY):
                await line.send_multipart([b"", self._blocks.due.to_bytes(_NUMBER_BYTES, "big")])
                while True:
                    _, number, batch = await line.recv_multipart()
                    if number == _END:
                        return
                    self._take(int.from_bytes(number, "big"), batch)
        except TimeoutError:
            pass  # the hole stays, and routers are told of it
        finally:
            line.close()

    def _take(self, number: int, data: bytes) -> None:
        try:
            for event in self._blocks.take(number, self._decode(data)):
                self._told(event)
        except (Unreadable, ValueError, KeyError, TypeError) as error:
            self.lost(f"its engine's KV events cannot be read: {error}")

    async def _watch(self, zmq: Any, states: Any) -> None:
        """The line's own ups and downs: a publisher that is gone says nothing more."""
        while True:
            state = zmq.utils.monitor.parse_monitor_message(await states.recv_multipart())
            if state["event"] == zmq.EVENT_DISCONNECTED:
                self._cut = True
                self.lost(f"nobody publishes its engine's KV events at {self._endpoint} any more")

    def lost(self, why: str) -> None:
        """Its events cannot be believed from here on, until they come again."""
        self._told(BlockEvent(self.epoch, self._blocks.due, self._block_tokens, lost=why))


def needed() -> None:
    """Raises: Problem: what this needs is not installed."""
    _packages()


def _packages() -> tuple[ModuleType, ModuleType]:
    with suppress(ImportError):
        import msgspec
        import zmq
        import zmq.asyncio
        import zmq.utils.monitor

        return zmq, msgspec
    message = "KV events need pyzmq and msgspec. Mend: pip install 'diplex[events]', or no engine.events_url"
    raise Problem(StatusCode.FAILED_PRECONDITION, message, "ENGINE_UNSAID")
