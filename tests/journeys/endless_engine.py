"""Stands in for a running OpenAI-compatible server: a word every 20 ms for as long as anybody listens.

Prints the port that it listens on.
"""

import asyncio
import json

from aiohttp import web

MODEL = {"id": "echoed", "object": "model", "max_model_len": 8192}
WORD = {"choices": [{"index": 0, "delta": {"content": " word"}, "text": " word", "finish_reason": None}]}
EVENT = b"data: " + json.dumps(WORD).encode() + b"\n\n"


async def models(request: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [MODEL]})


async def well(request: web.Request) -> web.Response:
    return web.Response()


async def complete(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await answer.prepare(request)
    while True:
        await answer.write(EVENT)
        await asyncio.sleep(0.02)


async def main() -> None:
    app = web.Application()
    app.router.add_get("/v1/models", models)
    app.router.add_get("/health", well)
    app.router.add_get("/metrics", well)
    app.router.add_post("/v1/chat/completions", complete)
    app.router.add_post("/v1/completions", complete)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
