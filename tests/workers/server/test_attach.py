"""What a worker tells its router of an attached engine that is not well: the account stays true."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from diplex.v1 import generation_pb2 as pb
from diplex_workers.engines.attach import AttachEngine, AttachSettings

OFTEN = 0.02
WORD = b'data: {"choices":[{"index":0,"text":"a","token_ids":[5]}]}\n\n'
LAST = b'data: {"choices":[{"index":0,"text":"","finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


class Vllm:
    """A vLLM that says what a test wants, and sends a token each hundredth of a second until it may end."""

    def __init__(self) -> None:
        self.page = ""
        self.may_end = asyncio.Event()
        self.hangs = False
        self.url = ""

    async def get(self, request: web.Request) -> web.Response:
        match request.path:
            case "/v1/models":
                return web.json_response({"data": [{"id": "m", "max_model_len": 4096}]})
            case "/metrics":
                return web.Response(text=self.page)
        return web.json_response({})

    async def post(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if request.path == "/tokenize":
            return web.json_response({"count": 16})
        if self.hangs or not body.get("stream"):
            await asyncio.Event().wait()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while not self.may_end.is_set():
            await response.write(WORD)
            await asyncio.sleep(0.01)
        await response.write(LAST)
        return response


@pytest.fixture
async def vllm() -> AsyncIterator[Vllm]:
    vllm, app = Vllm(), web.Application()
    app.router.add_get("/{path:.*}", vllm.get)
    app.router.add_post("/{path:.*}", vllm.post)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    vllm.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield vllm
    await runner.cleanup()


@pytest.fixture
def engine(vllm: Vllm) -> AttachEngine:
    settings = AttachSettings(vllm.url, "m", api="vllm", capacity_blocks=100, block_tokens=16, stall=0.3)
    return AttachEngine(settings, every=OFTEN)


async def test_wrong_about_its_cache_it_drains_and_what_runs_is_accounted_to_its_end(serve, vllm, engine):
    vllm.page = "vllm:kv_cache_usage_perc 0\nvllm:num_requests_running 1\n"
    async with serve(engine=engine) as worker:
        link, client = await worker.link(), worker.client()
        await link.until(lambda: link.last.engine_ready)
        await client.send(starts=[worker.start(1, grant=worker.grant(1, blocks=70, max_tokens=1000))])
        await link.until(lambda: link.last.draining)
        assert (link.last.engine_ready, link.last.used_blocks) == (True, 64)
        assert "is wrong about its KV cache" in link.last.engine_alarm

        await client.send(starts=[worker.start(2)])
        await client.until(lambda: 2 in client.done)
        assert client.done[2].reason == pb.END_REASON_REFUSED

        vllm.may_end.set()
        await client.until(lambda: 1 in client.done)
        assert client.done[1].reason == pb.END_REASON_STOP
        await link.until(lambda: link.ended(1) and link.last.used_blocks == 0)


async def test_one_that_hangs_fails_what_it_has_and_every_block_is_free(serve, vllm, engine):
    vllm.hangs = True
    async with serve(engine=engine) as worker:
        link, client = await worker.link(), worker.client()
        await link.until(lambda: link.last.engine_ready)
        await client.send(starts=[worker.start(1)])
        await client.until(lambda: 1 in client.done)
        assert client.done[1].reason == pb.END_REASON_FAILED
        await link.until(lambda: not link.last.engine_ready)
        assert "hangs: no token in 0.3 s" in link.last.engine_problem
        assert (link.last.used_blocks, len(link.ended(1))) == (0, 1)


async def test_what_others_use_past_diplex_is_foreign_and_no_drift(serve, vllm, engine):
    vllm.page = "vllm:kv_cache_usage_perc 0.4\nvllm:num_requests_running 3\nvllm:num_requests_waiting 2\n"
    async with serve(engine=engine) as worker:
        link = await worker.link()
        await link.until(lambda: link.last.foreign_slots == 3)
        last = link.last
        assert (last.foreign_blocks, last.used_blocks, last.observed_blocks) == (40, 40, 40)
        assert "it keeps 2 requests waiting by itself" in last.engine_alarm
