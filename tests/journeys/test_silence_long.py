"""Two minutes of silence end neither a session nor a stream."""

import asyncio
from typing import Any

import pytest

import diplex
from diplex.v1 import router_pb2, router_pb2_grpc
from diplex.wire.serving import channel
from diplex_core.sim import speech

SILENCE = 125.0  # seconds; gRPC's own defaults cut quiet streams after 50

pytestmark = pytest.mark.long


def spoken(prompt: str, tokens: int) -> str:
    digest = speech.prompt_digest("text", prompt.encode())
    return "".join(speech.token(digest, 0, place)[1] for place in range(tokens))


# A simulated millisecond takes half a minute: the first token of the stream is more than two minutes away.
SLOW = """\
models:
  qwen2.5-72b-instruct: {profile: qwen2.5-72b, weights: mxfp4-mixed, kv_cache: mxfp8}
default_model: qwen2.5-72b-instruct
packages:
  pkg0:
    gpu: b200
    pattern: A
    model: qwen2.5-72b-instruct
    engine: {kind: sim, calibration: chapter, time_scale: 0.000035}
tiers:
  standard: {patterns: [A], max_output_tokens: 8192}
default_tier: standard
"""


async def test_a_session_that_says_nothing_for_two_minutes_still_answers(fleet: Any):
    running = fleet()
    async with channel(running.router) as to_router:
        session = router_pb2_grpc.RouterStub(to_router).Session()
        await session.read()  # who answers; after that there is nothing to say
        silent = asyncio.ensure_future(session.read())
        said, _ = await asyncio.wait({silent}, timeout=SILENCE)
        assert said == set()
        ask = router_pb2.Ask(ask_id=1, prompt_tokens=8, max_tokens=4)
        await session.write(router_pb2.RouterSessionRequest(asks=[ask]))
        answer = await asyncio.wait_for(silent, 5)
        assert [granted.ask_id for granted in answer.granted] == [1]
        await session.done_writing()


async def test_a_stream_that_is_silent_for_two_minutes_still_brings_its_tokens(fleet: Any):
    running = fleet(SLOW)
    async with diplex.AsyncClient(running.router) as client:
        reply = await client.generate("a patient prompt", max_tokens=1)
    assert reply.text == spoken("a patient prompt", 1)
    assert reply.ttft_s > 120
