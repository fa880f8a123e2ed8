"""Ports, before anybody listens: which are free, and which option mends one that is not."""

import random
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from diplex_core.config.values import METRICS_ABOVE

# Below the range from which the system hands out ports itself, so that a port picked here stays free.
_PICK_FROM: Final = range(20_000, 32_000)
_TRIES: Final = 1000


class Listener(NamedTuple):
    """Where a part is going to listen, and what to type for another port."""

    what: str
    host: str
    port: int
    option: str


def taken(listeners: Iterable[Listener]) -> Iterator[str]:
    """The complaint about each port that is in use, with the mend."""
    for listener in listeners:
        if not is_free(listener.host, listener.port):
            yield (
                f"port {listener.port} on {listener.host} is taken, the {listener.what} wants it. "
                f"Mend: end what uses it, or {listener.option}"
            )


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            probe.listen()
    except OSError:
        return False
    return True


class Picker:
    """Picks free ports of a host, none of them twice."""

    def __init__(self, host: str, free: Callable[[str, int], bool] = is_free) -> None:
        self._host = host
        self._free = free
        self._picked: set[int] = set()

    def one(self) -> int:
        """A free port.

        Raises:
            OSError: none was found.
        """
        return self._first(lambda port: [port])

    def run_of(self, count: int) -> int:
        """The first of so many free ports in a row, for workers: their metrics ports are free too."""
        return self._first(
            lambda port: [p + up for p in range(port, port + count) for up in (0, METRICS_ABOVE)]
        )

    def _first(self, wanted: Callable[[int], list[int]]) -> int:
        for _ in range(_TRIES):
            port = random.choice(_PICK_FROM)
            ports = wanted(port)
            if not self._picked & set(ports) and all(self._free(self._host, one) for one in ports):
                self._picked.update(ports)
                return port
        raise OSError(f"no free port on {self._host} among {_PICK_FROM.start} to {_PICK_FROM.stop}")
