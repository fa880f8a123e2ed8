"""uvicorn's HTTP protocol, but for one thing: a response may write its body to the connection itself.

An ASGI server takes each piece of a body through an await, and that await costs three times what the write
does. Here the response finds its `Connection` in the scope, and writes from whatever call brought the piece.
Head, chunking, keep-alive, pipelining and the end stay uvicorn's. What is relied on of uvicorn's inside is in
this file and in tests/rest/test_uvicorn.py, and pyproject.toml bounds the versions.
"""

from typing import Any, Final, Protocol, cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

_EXTENSION: Final = "diplex.connection"


class Writer(Protocol):
    """Who writes to a connection at the moment, and is told what becomes of it."""

    def on_paused(self) -> None:
        """The client does not keep up: what is written from now on only gathers in this process."""

    def on_resumed(self) -> None:
        """It has taken what had gathered."""

    def on_lost(self) -> None:
        """The connection is closed."""


class DirectProtocol(HttpToolsProtocol):
    """One connection; whoever writes to it hears when its client lags or leaves."""

    writer: Writer | None = None

    def on_headers_complete(self) -> None:
        # The request's task begins at the loop's next turn, so it finds this in its scope.
        super().on_headers_complete()
        scope = cast(dict[str, Any], self.scope)
        scope["extensions"] = {_EXTENSION: Connection(self, self.cycle)}

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.writer is not None:
            self.writer.on_paused()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.writer is not None:
            self.writer.on_resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.writer is not None:
            self.writer.on_lost()
        # Scope and protocol would keep each other alive until the collector comes by.
        self.scope = None  # type: ignore[assignment]


class Connection:
    """A connection as one response sees it."""

    __slots__ = ("_cycle", "_protocol", "write")

    def __init__(self, protocol: DirectProtocol, cycle: RequestResponseCycle) -> None:
        self._protocol = protocol
        self._cycle = cycle
        self.write = protocol.transport.write
        """Puts bytes on the wire as they are. Never waits; TLS is the transport's business."""

    @property
    def lost(self) -> bool:
        """Nobody is there any more."""
        return self._cycle.disconnected or self._protocol.transport.is_closing()

    @property
    def paused(self) -> bool:
        """The client does not keep up."""
        return self._protocol.flow.write_paused

    def lend(self, writer: Writer | None) -> None:
        """From now on this writer is told what becomes of the connection; `None`: nobody is."""
        self._protocol.writer = writer

    def without_length(self) -> bool:
        """Prepare for a body of unknown length, before its head is sent.

        Returns:
            Whether it goes in HTTP's chunks. HTTP/1.0 has none: there the body ends with the connection.
        """
        if self._cycle.scope["http_version"] != "1.0":
            return True
        # Decided beforehand, uvicorn announces no chunks, and closes behind the end as it does for 1.0.
        self._cycle.chunked_encoding = False
        return False


def connection_of(scope: Scope) -> Connection | None:
    """The connection that a request came on; `None` where another server, or none, is in front."""
    connection: Connection | None = scope.get("extensions", {}).get(_EXTENSION)
    return connection
