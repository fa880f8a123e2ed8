"""The shim's own metrics, and one page that joins them with the router's."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

# Status of a request whose client was gone before it was answered; nginx's number, never sent.
CLIENT_CLOSED: Final = 499


class Metrics:
    """Counts of one shim process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "diplex_rest_requests",
            "HTTP requests answered; status 499: the client left before its answer began",
            ["route", "status"],
            registry=self._registry,
        )
        self._open = Gauge("diplex_rest_requests_open", "HTTP requests being answered", registry=self._registry)
        self._streams = Gauge("diplex_rest_streams_open", "Streamed answers under way", registry=self._registry)
        self._left = Counter(
            "diplex_rest_disconnects", "Clients that left before their answer ended", registry=self._registry
        )
        self._chunks = Counter(
            "diplex_rest_chunks", "Pieces of answers handed to connections", registry=self._registry
        )
        self._writes = Counter("diplex_rest_writes", "Writes that carried them", registry=self._registry)

    def began(self) -> None:
        self._open.inc()

    def ended(self, route: str, status: int) -> None:
        self._open.dec()
        self._requests.labels(route, str(status)).inc()

    def stream_opened(self) -> None:
        self._streams.inc()

    def stream_closed(self) -> None:
        self._streams.dec()

    def client_left(self) -> None:
        self._left.inc()

    def wrote(self, chunks: int) -> None:
        """One write, of that many chunks that had gathered."""
        self._chunks.inc(chunks)
        self._writes.inc()

    def text(self) -> str:
        return generate_latest(self._registry).decode()


def joined(*pages: str) -> str:
    """Several pages in Prometheus' text form as one, in which each family stands once and whole.

    The form allows one HELP and one TYPE a family, and wants its samples in one group.

    >>> print(joined("# TYPE a gauge\\na 1\\n", "# TYPE b gauge\\nb 1\\n# TYPE a gauge\\na{x=\\"y\\"} 2\\n"), end="")
    # TYPE a gauge
    a 1
    a{x="y"} 2
    # TYPE b gauge
    b 1
    """
    families: dict[str, tuple[dict[str, str], list[str]]] = {}
    for page in pages:
        family = ""
        for line in page.splitlines():
            words = line.split(maxsplit=3)
            if line.startswith(("# HELP ", "# TYPE ")) and len(words) > 2:
                family = words[2]
                # Several names of one family (`_created`, say) are declared on their own; the first word holds.
                families.setdefault(family, ({}, []))[0].setdefault(words[1], line)
            elif words and words[0] != "#":
                families.setdefault(family, ({}, []))[1].append(line)
    lines = [line for told, samples in families.values() for line in (*told.values(), *samples)]
    return "".join(f"{line}\n" for line in lines)
