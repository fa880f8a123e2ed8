"""Where an answer's bytes go. Putting them in never waits; one task carries out what has gathered.

A sink is told synchronously, from the calls that bring tokens. Whoever owns the connection awaits `pump`: it
wakes once for everything that came since its last write, and while a write waits for a slow client more
gathers.
"""

from typing import Protocol

from starlette.types import Send

from diplex.wire.coalesce import Outbox
from diplex_rest.metrics import Metrics
from diplex_rest.openai.errors import Headers


class Sink(Protocol):
    """One HTTP response, as it is made."""

    def open(self, status: int, headers: Headers) -> None:
        """Its head. Said once and first; sent together with what comes first behind it."""

    def write(self, data: bytes) -> None:
        """More of its body."""

    def end(self) -> None:
        """Nothing more comes."""


class GatheringSink:
    """A sink in front of an ASGI connection."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._parts: Outbox[bytes] = Outbox()
        self._head: tuple[int, Headers] | None = None
        self._abandoned = False

    def open(self, status: int, headers: Headers) -> None:
        self._head = status, headers

    def write(self, data: bytes) -> None:
        self._parts.put(data)

    def end(self) -> None:
        self._parts.close()

    def abandon(self) -> None:
        """The client is gone: what comes from now on is dropped, and `pump` returns."""
        self._abandoned = True
        self._parts.close()

    async def pump(self, send: Send) -> None:
        """Carry the response out, until its end or until it is abandoned."""
        parts = await self._parts.gather()
        if self._abandoned or self._head is None:
            return
        status, headers = self._head
        await send({"type": "http.response.start", "status": status, "headers": headers})
        while True:
            self._metrics.wrote(len(parts))
            more = not self._parts.closed or len(self._parts) > 0
            await send({"type": "http.response.body", "body": b"".join(parts), "more_body": more})
            if not more or self._abandoned:
                return
            parts = await self._parts.gather()
