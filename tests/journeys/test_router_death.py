"""A router that dies and returns: no direct stream notices, and what runs is adopted from the reports."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc

import diplex
from diplex_core.sim import speech

STREAMS = 200
LONG = 600  # tokens: each stream runs for about ten seconds beside a hundred others

# As many slots as streams, so that every one of them is running when the router dies.
ROOMY = """\
models:
  qwen2.5-72b-instruct: {profile: qwen2.5-72b, weights: mxfp4-mixed, kv_cache: mxfp8}
default_model: qwen2.5-72b-instruct
packages:
  pkg0: {gpu: b200, pattern: C, model: qwen2.5-72b-instruct, slots: 100,
         engine: {kind: sim, calibration: chapter}}
  pkg1: {gpu: b200, pattern: A, model: qwen2.5-72b-instruct, slots: 100,
         engine: {kind: sim, calibration: chapter}}
tiers:
  standard: {patterns: [A, C], max_output_tokens: 4096, priority: 50}
  bulk: {patterns: [C, A], max_output_tokens: 8192}
default_tier: standard
"""


async def test_200_direct_streams_outlive_their_router_and_their_leases_are_adopted(fleet: Any):
    running = fleet(ROOMY)
    epoch = (await running.state()).epoch
    async with diplex.AsyncClient(running.router) as client:
        streams = [
            client.stream(f"prompt {number}", tier=("standard", "bulk")[number % 2], max_tokens=LONG)
            for number in range(STREAMS)
        ]
        answers = [asyncio.create_task(whole(stream)) for stream in streams]
        await asyncio.gather(*(stream.started() for stream in streams))
        await state_when(running, lambda state: state.leases.running == STREAMS)
        running.kill("router")

        async with diplex.AsyncClient(running.router) as newcomer:
            waiting = asyncio.create_task(newcomer.generate("a new request", max_tokens=4, timeout=30))
            state = await state_when(running, lambda state: state.epoch != epoch and state.ready)
            assert state.leases.adopted == STREAMS
            assert not any(answer.done() for answer in answers)
            assert sum(worker.slots.reserved for worker in state.workers) == STREAMS
            assert (await waiting).text == spoken("a new request", 4)
        texts = await asyncio.wait_for(asyncio.gather(*answers), 120)

    assert [n for n, text in enumerate(texts) if text != spoken(f"prompt {n}", LONG)] == []
    assert (await running.settled()).leases.over_capacity == 0


async def test_a_new_request_is_served_within_three_seconds_of_the_new_router(fleet: Any):
    running = fleet()
    async with diplex.AsyncClient(running.router) as client:
        assert (await client.generate("before", max_tokens=4)).text == spoken("before", 4)
        running.kill("router")
        assert (await client.generate("after", max_tokens=4, timeout=20)).text == spoken("after", 4)
        assert running.age_of("router") < 3.0


async def state_when(running: Any, true: Callable[[Any], bool]) -> Any:
    """The router's account as soon as something is true of it; a router that is away is asked again."""

    async def look() -> Any:
        with suppress(grpc.aio.AioRpcError):
            state = await running.state()
            return state if true(state) else None

    return await running.until(look, "the router says so", within=20)


async def whole(stream: Any) -> str:
    return "".join([chunk.text async for chunk in stream])


def spoken(prompt: str, tokens: int) -> str:
    digest = speech.prompt_digest("text", prompt.encode())
    return "".join(speech.token(digest, 0, place)[1] for place in range(tokens))
