"""`/health`, `/ready` and `/metrics`: what those ask who keep the shim running."""

import asyncio
from typing import Final

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from diplex import AsyncClient, DiplexError
from diplex_rest.joining import joined
from diplex_rest.metrics import Metrics

# Seconds that the router has to answer; those who probe wait about a second themselves.
_PATIENCE: Final = 1.0


class StatusPages:
    """The three routes; `/ready` and `/metrics` ask the router each time."""

    def __init__(self, client: AsyncClient, metrics: Metrics) -> None:
        self._client = client
        self._metrics = metrics

    async def health(self, request: Request) -> JSONResponse:
        """200 for as long as the process lives."""
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> JSONResponse:
        """200 when a request would find a worker, else 503 with the reason."""
        reason = await self._why_not_ready()
        if reason:
            return JSONResponse({"ready": False, "reason": reason}, 503, {"retry-after": "1"})
        return JSONResponse({"ready": True})

    async def metrics(self, request: Request) -> Response:
        """The shim's own figures, then the router's if it answers."""
        try:
            async with asyncio.timeout(_PATIENCE):
                routers = await self._client.metrics()
        except (DiplexError, TimeoutError):
            routers = ""
        page = joined(self._metrics.text(router_up=bool(routers)), routers)
        return Response(page, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    async def _why_not_ready(self) -> str:
        try:
            async with asyncio.timeout(_PATIENCE):
                fleet = await self._client.fleet()
        except (DiplexError, TimeoutError) as error:
            return f"the router does not answer: {error or 'too slow'}"
        if not fleet.ready:
            return "the router is rebuilding its ledger from the workers' reports"
        if not any(worker.state == "up" for worker in fleet.workers):
            states = ", ".join(f"{worker.info.name} is {worker.state}" for worker in fleet.workers)
            return f"no worker is up: {states or 'none is configured'}"
        return "" if self._client.ready else f"no session with the router at {self._client.target} yet"
