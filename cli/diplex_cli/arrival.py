"""Waits until everything that `up` spawned serves."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from diplex_cli.announcement import Arrived
from diplex_cli.deployment import Deployment
from diplex_core.config.values import reachable

if TYPE_CHECKING:
    from diplex.v1 import router_pb2

LOOK_EVERY: Final = 0.05
PATIENCE: Final = 10.0
"""Seconds of waiting after which it is said, again and again, what is being waited for."""


async def arrived(deployment: Deployment, *, rest: bool, say: Callable[[str], None]) -> Arrived:
    """Wait until the router is ready, every worker spawned here is up, and the shim says so too."""
    config = deployment.config
    waiting = _Waiting(say)
    # A bare connection first: loading gRPC here would only slow down the children, who load it too.
    while not await _listens(config.router.address):
        await waiting.another_look("router")

    from diplex import AsyncClient
    from diplex.errors import DiplexError

    ours = {worker.name for worker in deployment.workers}
    async with AsyncClient(config.router.address) as client:
        while True:
            try:
                fleet = await client.fleet()
                missing = _missing(fleet, ours)
            except DiplexError:
                missing = "router"
            if not missing and rest and not await _answers(config.rest.host, config.rest.port):
                missing = "REST shim"
            if not missing:
                return Arrived(deployment, fleet, rest, waiting.so_far)
            await waiting.another_look(missing)


class _Waiting:
    """Paces the looks, and says now and then what is still missing."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._began = time.monotonic()
        self._say_after = PATIENCE

    @property
    def so_far(self) -> float:
        return time.monotonic() - self._began

    async def another_look(self, missing: str) -> None:
        if self.so_far > self._say_after:
            self._say(f"still waiting for {missing}")
            self._say_after += PATIENCE
        await asyncio.sleep(LOOK_EVERY)


async def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except OSError:
        return False
    writer.close()
    return True


def _missing(fleet: "router_pb2.Fleet", ours: set[str]) -> str:
    """What does not serve yet, in words; "": nothing."""
    if not fleet.ready:
        return "router"
    return ", ".join(
        f"{one.info.name} ({one.problem or one.state})"
        for one in fleet.workers
        if one.info.name in ours and one.state != "up"
    )


async def _answers(host: str, port: int) -> bool:
    """Whether `/ready` of the shim answers 200. Two lines of HTTP cost less than a client library."""
    host = reachable(host, port).rpartition(":")[0].strip("[]")
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    try:
        writer.write(b"GET /ready HTTP/1.1\r\nHost: diplex\r\nConnection: close\r\n\r\n")
        status = await reader.readline()
    except OSError:
        return False
    finally:
        writer.close()
    return b" 200" in status
