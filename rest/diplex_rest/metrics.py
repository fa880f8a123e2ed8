"""The shim's own metrics: of this process, or summed over all that serve the same port.

Processes that share a port count in files of one folder, which prometheus_client maps into memory: it does so
where its environment variable names a folder when it is imported. Counts outlive the process that made them,
until the folder goes; so a process that dies and comes back takes nothing from a sum.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

# Status of a request whose client was gone before it was answered; nginx's number, never sent.
CLIENT_CLOSED: Final = 499
SHARED_IN: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable with the folder; prometheus_client's own name."""


class Metrics:
    """Counts of this shim."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        if folder := os.environ.get(SHARED_IN):
            _forget_the_dead(Path(folder))
            # What is shown is read from the folder; what is counted here goes there by itself.
            self._registry, registry = CollectorRegistry(), registry
            MultiProcessCollector(self._registry, folder)  # type: ignore[no-untyped-call]
        processes = _gauge("processes", "Processes that serve this port", registry)
        processes.set(1)
        self._requests = Counter(
            "diplex_rest_requests",
            "HTTP requests by the status they were answered with; 499: the client left before",
            ["route", "status"],
            registry=registry,
        )
        self._open = _gauge("requests_open", "HTTP requests under way", registry)
        self._streams = _gauge("streams_open", "Streamed answers under way", registry)
        self._wholes = _gauge("wholes_open", "Unstreamed answers under way", registry)
        self._left = Counter("diplex_rest_disconnects", "Clients gone before their end", registry=registry)
        self._chunks = Counter("diplex_rest_chunks", "Pieces of answers written", registry=registry)
        self._writes = Counter("diplex_rest_writes", "Writes that carried them", registry=registry)
        # The process that was asked last knows best.
        self._router_up = Gauge(
            "diplex_rest_router_up",
            "1: the router answered",
            registry=registry,
            multiprocess_mode="livemostrecent",
        )

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


def _gauge(name: str, about: str, registry: CollectorRegistry) -> Gauge:
    """A gauge that is summed over the processes that live."""
    return Gauge(f"diplex_rest_{name}", about, registry=registry, multiprocess_mode="livesum")


def _forget_the_dead(folder: Path) -> None:
    """What processes that were killed had under way is under way no more."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        if not Path("/proc", pid).exists():
            mark_process_dead(int(pid), str(folder))  # type: ignore[no-untyped-call]
