"""An OpenAI-compatible server whose answers a test writes, and an engine that is attached to it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from diplex_workers.engines.attach import AttachEngine, AttachSettings

Chunk = dict[str, object]
ANSWER: list[Chunk] = [
    {"choices": [{"index": 0, "text": "a"}]},
    {"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 1}},
]


class Server:
    """An OpenAI-compatible server whose answers a test writes. `asked` holds the bodies that came."""

    def __init__(self) -> None:
        self.asked: list[dict[str, object]] = []
        self.paths: list[str] = []
        self.left = asyncio.Event()  # a client went away in mid-stream
        self.chunks: list[Chunk | Callable[[], Awaitable[None]]] = [*ANSWER]
        self.refusal: tuple[int, object, dict[str, str]] | None = None
        self.says_done = True
        self.healthy = True
        self.hangs: set[str] = set()  # paths that are never answered
        self.models: list[dict[str, object]] = [{"id": "served", "max_model_len": 4096}]
        self.pages: dict[str, object] = {}
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = f"/{request.match_info['path']}"
        self.paths.append(path)
        if path in self.hangs:
            await self.forever()
        if path in ("/v1/completions", "/v1/chat/completions"):
            return await self._stream(request)
        if path in self.pages:
            page = self.pages[path]
            if callable(page):
                page = page(await request.json())
            if isinstance(page, web.Response):
                return page
            return web.Response(text=page) if isinstance(page, str) else web.json_response(page)
        if path == "/health":
            return web.Response(status=200 if self.healthy else 503)
        if path == "/v1/models":
            return web.json_response({"data": self.models})
        return web.json_response({"detail": "Not Found"}, status=404)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        if not body.get("stream") and self.refusal is None:
            return web.json_response({"choices": [{"text": "1"}]})
        if self.refusal is not None:
            status, body, headers = self.refusal
            return web.json_response(body, status=status, headers=headers)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            for chunk in self.chunks:
                if callable(chunk):
                    await chunk()
                else:
                    await response.write(b": ping\n\ndata: " + json.dumps(chunk).encode() + b"\n\n")
        except (ConnectionResetError, asyncio.CancelledError):
            self.left.set()
            raise
        if self.says_done:
            await response.write(b"data: [DONE]\n\n")
        return response

    async def forever(self) -> None:
        await asyncio.Event().wait()

    async def die(self) -> None:
        """Break every connection, and listen no more."""
        runner, self._runner = self._runner, None
        for site in list(runner.sites):
            await site.stop()
        for connection in runner.server.connections:
            connection.transport.abort()
        await self.forever()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def attached(server, on_stage):
    """`async with attached(api=…) as stage`: an engine on the server, ready."""

    @asynccontextmanager
    async def attach(*, wait: bool = True, restart=None, every: float = 1.0, **settings: object):
        known = {"capacity_blocks": 640, "context": 2048, "block_tokens": 16}
        whole = AttachSettings(**{"url": server.url, "model": "m", **known, **settings})
        engine = AttachEngine(whole, restart=restart, every=every)
        async with on_stage(engine) as stage:
            if wait:
                await stage.host.until(lambda: stage.host.facts)
            yield stage

    return attach
