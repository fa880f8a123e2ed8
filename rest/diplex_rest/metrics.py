"""The shim's own metrics."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

# Status of a request whose client was gone before it was answered; nginx's number, never sent.
CLIENT_CLOSED: Final = 499


class Metrics:
    """Counts of one shim process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "diplex_rest_requests",
            "HTTP requests by the status they were answered with; 499: the client left before",
            ["route", "status"],
            registry=registry,
        )
        self._open = Gauge("diplex_rest_requests_open", "HTTP requests under way", registry=registry)
        self._streams = Gauge("diplex_rest_streams_open", "Streamed answers under way", registry=registry)
        self._wholes = Gauge("diplex_rest_wholes_open", "Unstreamed answers under way", registry=registry)
        self._left = Counter("diplex_rest_disconnects", "Clients gone before their end", registry=registry)
        self._chunks = Counter("diplex_rest_chunks", "Pieces of answers written", registry=registry)
        self._writes = Counter("diplex_rest_writes", "Writes that carried them", registry=registry)
        self._router_up = Gauge("diplex_rest_router_up", "1: the router answered", registry=registry)

    @contextmanager
    def answering(self, *, streamed: bool) -> Iterator[None]:
        """A generation request is under way inside the `with` block."""
        gauge = self._streams if streamed else self._wholes
        gauge.inc()
        try:
            yield
        finally:
            gauge.dec()

    def began(self) -> None:
        self._open.inc()

    def ended(self, route: str, status: int) -> None:
        self._open.dec()
        self._requests.labels(route, str(status)).inc()

    def client_left(self) -> None:
        self._left.inc()

    def wrote(self, chunks: int, writes: int) -> None:
        """So many writes, with that many chunks in all; told once for all that one turn wrote."""
        self._chunks.inc(chunks)
        self._writes.inc(writes)

    def text(self, *, router_up: bool) -> str:
        """The page in Prometheus' text form. The router's state is told now, because nobody counts it."""
        self._router_up.set(router_up)
        return generate_latest(self._registry).decode()
