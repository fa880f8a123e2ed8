"""Waits until everything that `up` spawned serves, and tells where each part listens."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from diplex_cli.deployment import Deployment
from diplex_core.config.values import reachable

if TYPE_CHECKING:
    from diplex.v1 import router_pb2

LOOK_EVERY: Final = 0.05
PATIENCE: Final = 10.0
"""Seconds of waiting after which it is said, again and again, what is being waited for."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A fleet that serves: what was asked for, and what each worker says of itself."""

    deployment: Deployment
    fleet: "router_pb2.Fleet"
    rest: bool
    took: float

    def addresses(self) -> dict[str, Any]:
        """What `up --json` prints."""
        config = self.deployment.config
        return {
            "router": config.router.address,
            "rest": f"http://{self._rest}" if self.rest else None,
            "metrics": f"http://{reachable(config.router.host, config.router.metrics_port)}/metrics",
            "workers": {one.info.name: one.info.address for one in self.fleet.workers},
            "fleet": {
                one.info.name: {
                    "package": one.info.package,
                    "pattern": one.info.pattern,
                    "engine": one.info.engine,
                    "models": [model.name for model in one.info.models],
                    "simulated": one.info.simulated,
                    "calibration": one.info.calibration or None,
                    "state": one.state,
                }
                for one in self.fleet.workers
            },
            "left_out": dict(self.deployment.left_out),
            "ready_s": round(self.took, 3),
        }

    def table(self) -> str:
        """What `up` prints: a row for each part, and a request to try."""
        config = self.deployment.config
        rows = [("", "pattern", "engine", "model", "address")]
        for one in self.fleet.workers:
            info = one.info
            engine = f"{info.engine}, simulated ({info.calibration})" if info.simulated else info.engine
            models = ", ".join(model.name for model in info.models) or f"({one.state}: {one.problem})"
            rows.append((info.name, info.pattern, engine, models, info.address))
        rows.append(("router", "", "", "", config.router.address))
        rows.append(
            ("", "", "", "", f"http://{reachable(config.router.host, config.router.metrics_port)}/metrics")
        )
        if self.rest:
            rows.append(("rest", "", "", "", f"http://{self._rest}/v1"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows
        ]
        return "\n".join(
            [
                f"diplex is up ({self.took:.1f} s)",
                "",
                *(f"  {line.rstrip()}" for line in lines),
                "",
                self._to_try(),
            ]
        )

    @property
    def _rest(self) -> str:
        return reachable(self.deployment.config.rest.host, self.deployment.config.rest.port)

    def _to_try(self) -> str:
        """A request for a model that is real, where there is one."""
        serving = [one.info for one in self.fleet.workers if one.info.models]
        model = next(
            (info.models[0].name for info in sorted(serving, key=lambda info: info.simulated)),
            self.deployment.config.rules.default_model,
        )
        if not self.rest:
            url = self.deployment.config.router.address
            return f"  try: diplex chat 'Name three rivers.' --model {model} --url {url}"
        body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Name three rivers."}}]}}'
        url = f"http://{self._rest}/v1/chat/completions"
        return f"  try: curl {url} -H 'content-type: application/json' -d '{body}'"


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
