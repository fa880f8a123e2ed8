"""Where an answer's bytes go. Putting them in never waits, and what comes in one turn goes out together.

A sink is told synchronously, from the calls that bring tokens. Whoever owns the request awaits `carry` until
the response is out. There are two: `direct.py` has the one that writes to the connection itself; the one here
goes through ASGI, for servers other than ours.
"""

from collections.abc import Callable
from typing import Final, Protocol

from starlette.types import Receive, Send

from diplex.wire.coalesce import Outbox
from diplex_rest.departure import Departure
from diplex_rest.metrics import Metrics
from diplex_rest.openai.errors import Headers

_HIGH: Final = 64 * 1024
"""Bytes that gather before their owner is told to wait; asyncio's transports take as much."""


class Sink(Protocol):
    """One HTTP response, as it is made."""

    def open(self, status: int, headers: Headers) -> None:
        """Its head. Said once and first; sent together with what comes first behind it."""

    def write(self, data: bytes) -> None:
        """More of its body."""

    def end(self) -> None:
        """Nothing more comes."""


class Owner(Protocol):
    """Whose response it is: told how its client takes it."""

    def hold(self) -> None:
        """The client does not keep up: let nothing more come, if that can be."""

    def go_on(self) -> None:
        """It has caught up."""

    def leave(self) -> None:
        """It has closed the connection: what comes from now on is dropped."""


class Carrier(Sink, Protocol):
    """A sink as its request's task sees it."""

    async def carry(self, receive: Receive, send: Send, owner: Owner) -> None:
        """Carry the response out, until its end or until the client leaves."""


class GatheringSink:
    """A sink in front of any ASGI server; what gathers during one write is the next."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._parts: Outbox[bytes] = Outbox()
        self._head: tuple[int, Headers] | None = None
        self._size = 0
        self._hold: Callable[[], None] | None = None

    def open(self, status: int, headers: Headers) -> None:
        self._head = status, headers

    def write(self, data: bytes) -> None:
        self._parts.put(data)
        below, self._size = self._size < _HIGH, self._size + len(data)
        if below and self._size >= _HIGH and self._hold is not None:
            self._hold()

    def end(self) -> None:
        self._hold = None
        self._parts.close()

    async def carry(self, receive: Receive, send: Send, owner: Owner) -> None:
        left = False

        def leave() -> None:
            nonlocal left
            left, self._hold = True, None
            self._parts.close()
            owner.leave()

        async with Departure(receive, leave):
            self._hold = owner.hold
            parts = await self._parts.gather()
            if left or self._head is None:
                return
            status, headers = self._head
            await send({"type": "http.response.start", "status": status, "headers": headers})
            while not left:
                held, self._size = self._size >= _HIGH, 0
                self._metrics.wrote(len(parts), 1)
                more = not self._parts.closed or len(self._parts) > 0
                await send({"type": "http.response.body", "body": b"".join(parts), "more_body": more})
                if not more:
                    return
                if held:
                    owner.go_on()
                parts = await self._parts.gather()
