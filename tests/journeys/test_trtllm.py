"""A worker whose engine is TensorRT-LLM, from configuration to answer; the package itself is a stand-in.

What the real package does is not shown here: only that diplex's side of it holds together in whole processes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diplex import AsyncClient
from diplex.wire.blocks import block_hashes

STAND_INS = Path(__file__).parents[1] / "stand_ins"
CONFIG = """\
models: {big: {profile: qwen2.5-72b, weights: nvfp4, kv_cache: fp8}}
packages:
  box0: {gpu: b200, model: big, slots: 8, engine: {kind: trtllm, checkpoint: /models/big, context: 4096}}
tiers:
  chat: {patterns: [A], max_output_tokens: 256, priority: 100}
"""
IDS = range(100, 200)


@pytest.fixture(scope="module")
def running(shared_fleet: Callable[..., Any]) -> Any:
    return shared_fleet(CONFIG, "--no-rest", env={"PYTHONPATH": str(STAND_INS)})


async def test_tokens_come_from_the_engine_and_each_of_them_once(running: Any):
    async with AsyncClient(running.router) as client:
        stream = client.stream(prompt_ids=IDS, max_tokens=20)
        async with stream:
            chunks = [chunk async for chunk in stream]
    assert stream.reply.ids == tuple(range(100, 120))
    assert [chunk.index for chunk in chunks] == sorted({chunk.index for chunk in chunks})
    assert stream.reply.serving.engine == "trtllm" and not stream.reply.serving.simulated


async def test_the_router_hears_what_the_engine_keeps(running: Any):
    prompt = range(5000, 5128)
    async with AsyncClient(running.router) as client:
        for cached in (0, 128):
            stream = client.stream(prompt_ids=prompt, max_tokens=4)
            async with stream:
                async for _ in stream:
                    pass
            assert stream.reply.usage.cached_tokens == cached

        async def kept() -> bool:
            fleet = await client.fleet()
            (worker,) = fleet.workers
            return not worker.residency_problem and worker.blocks.cached >= len(
                block_hashes(prompt, 32, "big")
            )

        await running.until(kept, "the prompt's four blocks are known to the router", within=10)


async def test_a_stream_that_is_left_is_aborted_and_holds_nothing(running: Any):
    async with AsyncClient(running.router) as client:
        stream = client.stream(prompt_ids=IDS, max_tokens=256)
        async with stream:
            async for _ in stream:
                break
    fleet = await running.settled()
    (worker,) = fleet.workers
    assert (worker.blocks.reserved, worker.leases) == (0, 0)
