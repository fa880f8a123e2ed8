"""The sink that writes to its connection itself: no await and no task between a token and the socket.

What all answers write in one turn of the event loop, typically because one frame brought a token for each of
them, goes out at the beginning of the next: each connection's pieces as one write.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from starlette.types import Receive, Send

from diplex_rest.connection import Connection
from diplex_rest.metrics import Metrics
from diplex_rest.openai.errors import Headers
from diplex_rest.sink import Owner

_LENGTH: Final = b"content-length"


class Turns:
    """All direct sinks of a process: it writes out, once a turn, those that have something."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.loop = asyncio.get_running_loop()
        self._due: list[DirectSink] = []

    def due(self, sink: "DirectSink") -> None:
        """Write this one out at the next turn."""
        if not self._due:
            self.loop.call_soon(self._write_out)
        self._due.append(sink)

    def wrote(self, pieces: int) -> None:
        """One write, outside of a turn."""
        if pieces:
            self._metrics.wrote(pieces, 1)

    def _write_out(self) -> None:
        due, self._due = self._due, []
        self._metrics.wrote(sum([sink.write_out() for sink in due]), len(due))


class DirectSink:
    """One response on one connection.

    Its head and its end go through uvicorn's `send`, from the request's own task, and so does a response that
    comes in one piece. Between head and end pieces go straight to the transport; while its client lags they
    gather here.
    """

    def __init__(self, connection: Connection, turns: Turns) -> None:
        self._connection = connection
        self._turns = turns
        self._parts: list[bytes] = []
        self._head: tuple[int, Headers] | None = None
        self._owner: Owner | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._chunked = True
        self._started = False  # the head is out
        self._flowing = False  # and the client keeps up
        self._due = False
        self._over = False
        self._left = False

    # What the answer calls.

    def open(self, status: int, headers: Headers) -> None:
        self._head = status, headers

    def write(self, data: bytes) -> None:
        self._parts.append(data)
        if self._flowing:
            if not self._due:
                self._due = True
                self._turns.due(self)
        elif not self._started:
            self._wake()

    def end(self) -> None:
        self._over = True
        self._wake()

    # What the turn calls.

    def write_out(self) -> int:
        """Everything that gathered, as one write; how many pieces that were."""
        self._due = False
        parts = self._parts
        if not parts or self._left:
            return 0
        count = len(parts)
        data = parts[0] if count == 1 else b"".join(parts)
        self._parts = []
        self._connection.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        return count

    # What the connection tells.

    def on_paused(self) -> None:
        if self._flowing:
            self._flowing = False
            if self._owner is not None and not self._over:
                self._owner.hold()

    def on_resumed(self) -> None:
        if self._started and not self._flowing and not self._left:
            self._flowing = True
            if self._parts and not self._due:
                self._due = True
                self._turns.due(self)
            if self._owner is not None and not self._over:
                self._owner.go_on()

    def on_lost(self) -> None:
        self._left, self._flowing = True, False
        if self._owner is not None and not self._over:
            self._owner.leave()
        self._wake()

    # What the request's task awaits.

    async def carry(self, receive: Receive, send: Send, owner: Owner) -> None:
        connection = self._connection
        self._owner = owner
        connection.lend(self)
        try:
            if connection.lost:
                self.on_lost()
            await self._until(lambda: self._parts or self._over)
            if self._left or self._head is None:
                return
            status, headers = self._head
            head = {"type": "http.response.start", "status": status, "headers": headers}
            if self._over and any(name == _LENGTH for name, _ in headers):
                parts, self._parts = self._parts, []
                self._turns.wrote(len(parts))
                await send(head)
                await send({"type": "http.response.body", "body": b"".join(parts), "more_body": False})
                return
            self._chunked = connection.without_length()
            await send(head)
            self._started, self._flowing = True, not connection.paused
            if not self._flowing:
                owner.hold()
            self._turns.wrote(self.write_out())
            await self._until(lambda: self._over)
            if not self._left:
                # What is left is little: whoever lags has a window that is shut.
                self._turns.wrote(self.write_out())
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._flowing, self._owner = False, None
            connection.lend(None)

    async def _until(self, reached: Callable[[], object]) -> None:
        """Wait until it is reached, or the client has left."""
        while not (self._left or reached()):
            self._waiter = self._turns.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
