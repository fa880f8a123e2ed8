"""Runs the shim: an SDK client, the application on it, and uvicorn in front."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil
from typing import Final

import uvicorn

from diplex import AsyncClient
from diplex.tokens.counter import Tokenizers
from diplex.wire.serving import PortTaken, why_not
from diplex_rest.app import make_app
from diplex_rest.body import Reader
from diplex_rest.connection import DirectProtocol
from diplex_rest.underway import Underway

OPTION: Final = "--rest-port"
_BACKLOG: Final = 2048
# Seconds that an idle connection stays open. Longer than clients keep theirs: they must be the first to
# close, or one sends a request into a connection that is just being closed.
_KEEP_ALIVE: Final = 75
# Seconds that clients have, after the drain, to take in that their answer was ended.
_FORCE_AFTER: Final = 5.0
# Clients that vanished without a word, or take nothing at all, are let go after three quarters of a minute:
# later than a worker ends what its client lets wait for half a minute, so that a slow reader can still read
# why. What waits for a reader waits at its worker, not in the system's buffers, which grow to megabytes.
# Accepted connections inherit these from the listening socket.
_SOCKET_OPTIONS: Final = (
    (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 45_000),
    (socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024),
)


@dataclass(frozen=True, slots=True)
class RestSettings:
    """One shim. `port` 0 is any free one, `router` host:port, `drain` seconds for what runs at the end,
    `tokenizers` by model name, as the SDK takes them; `shared`: other processes listen on the port too."""

    host: str
    port: int
    router: str
    drain: float = 30.0
    tokenizers: Tokenizers | None = None
    shared: bool = False


async def run(
    settings: RestSettings, *, stop: asyncio.Event, started: Callable[[int], None] = lambda port: None
) -> None:
    """Serve until `stop` is set; then take nothing new, and let running requests end, or end them.

    The router need not be there: `/ready` tells when it is.

    Args:
        started: told the port once connections are accepted.
    Raises:
        PortTaken: the port is in use.
    """
    with listening(settings.host, settings.port, shared=settings.shared) as listener, Reader() as reader:
        async with AsyncClient(settings.router, tokenizers=settings.tokenizers) as client:
            underway = Underway()
            config = uvicorn.Config(
                make_app(client, underway, reader),
                http=DirectProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=_BACKLOG,
                timeout_keep_alive=_KEEP_ALIVE,
                timeout_graceful_shutdown=ceil(settings.drain + _FORCE_AFTER),
            )
            server = Uvicorn(config, lambda: started(listener.getsockname()[1]))

            async def end() -> None:
                await stop.wait()
                server.should_exit = True
                await asyncio.sleep(settings.drain)
                underway.end_all()

            async with asyncio.TaskGroup() as tasks:
                ending = tasks.create_task(end(), name="rest ending")
                await server.serve(sockets=[listener])
                ending.cancel()


def listening(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket that listens there.

    Args:
        shared: other processes of this user may, too; the system spreads connections over them.
    Raises:
        PortTaken: it cannot.
    """
    listener = _bound(host, port, shared=shared)
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def kept(host: str, port: int) -> socket.socket:
    """A socket that keeps a port for processes that are going to share it, and takes no connections itself.

    Raises:
        PortTaken: somebody listens there.
    """
    # Asked for as nobody else's first: with SO_REUSEPORT alone, a second shim would join in silently.
    with listening(host, port) as alone:
        port = alone.getsockname()[1]
    return _bound(host, port, shared=True)


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
    except OSError as error:
        raise PortTaken(why_not(host, port, OPTION)) from error
    try:
        for level, name, value in _SOCKET_OPTIONS:
            listener.setsockopt(level, name, value)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(place)
    except OSError as error:
        listener.close()
        raise PortTaken(why_not(host, port, OPTION)) from error
    return listener


class Uvicorn(uvicorn.Server):
    """uvicorn's server inside somebody else's process: it leaves signals alone, and says when it is up."""

    def __init__(self, config: uvicorn.Config, up: Callable[[], None]) -> None:
        super().__init__(config)
        self._up = up

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._up()
