"""Answers that hold what such answers mostly come to, on pools far too small for all that they may need.

They grow, and where a pool runs short some give way and go on elsewhere. On every road each stream is exactly
what its prompt determines, whoever gave way is told, and in the end nothing is held.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

import diplex
from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2, router_pb2_grpc
from diplex.wire.serving import channel
from diplex_core.sim import speech

CONFIG = """\
models:
  qwen2.5-72b-instruct: {profile: qwen2.5-72b, weights: mxfp4-mixed, kv_cache: mxfp8}
packages:
  pkg0: {gpu: b200, pattern: A, model: qwen2.5-72b-instruct, kv_blocks: 60,
         engine: {kind: sim, calibration: chapter, time_scale: 2}}
  pkg1: {gpu: b200, pattern: A, model: qwen2.5-72b-instruct, kv_blocks: 60,
         engine: {kind: sim, calibration: chapter, time_scale: 2}}
tiers:
  steady: {patterns: [A], max_output_tokens: 1024, priority: 50}
  batch: {patterns: [A], max_output_tokens: 1536, priority: 0, reserve: expected, preemptible: true}
default_tier: batch
"""
POOL = 60
MOST = 1536  # in full, each request would hold 49 of a pool's 60 blocks, or more
SHORT = 34  # a tier's requests are known when thirty of them have ended
LONG, LENGTH = 15, 480  # 16 blocks and more each: twice what both pools have


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    tokens: int
    preemptions: int


def messages(words: str) -> bytes:
    return json.dumps([{"role": "user", "content": words}], separators=(",", ":")).encode()


def prompt(number: int) -> bytes:
    """Each is another from its first word on."""
    return messages(f"{number} is what this question begins with, and it goes " + "on and " * (number % 9))


def determined_by(payload: bytes, tokens: int) -> str:
    digest = speech.prompt_digest("chat", payload)
    return "".join(speech.token(digest, 0, place)[1] for place in range(tokens))


async def over_sdk(fleet: Any, payload: bytes, tokens: int, tier: str) -> Answer:
    async with diplex.AsyncClient(fleet.router) as client:
        stream = client.stream(messages=payload, tier=tier, max_tokens=MOST, min_tokens=tokens)
        chunks = [chunk async for chunk in stream]
    place = 0
    for before, chunk in zip([None, *chunks], chunks, strict=False):
        assert chunk.index == place
        assert before is None or before.preemptions <= chunk.preemptions
        place += chunk.count
    reply = stream.reply
    assert (reply.finish_reason, reply.usage.completion_tokens) == ("stop", place)
    return Answer("".join(chunk.text for chunk in chunks), place, reply.preemptions)


async def over_generate(fleet: Any, payload: bytes, tokens: int, tier: str) -> Answer:
    request = router_pb2.RouterGenerateRequest(
        tier=tier,
        max_tokens=MOST,
        prompt=pb.Prompt(chat=pb.Chat(messages=payload)),
        sampling=pb.Sampling(min_tokens=tokens),
    )
    text, place, preemptions = "", 0, 0
    async with channel(fleet.router) as to_router:
        async for message in router_pb2_grpc.RouterStub(to_router).Generate(request):
            if message.HasField("serving"):
                preemptions = message.serving.preemptions
            for news in message.tokens:
                assert news.index == place
                place += news.count
                text += news.text
            end = message.done.reason
    assert end == pb.END_REASON_STOP
    return Answer(text, place, preemptions)


async def over_rest(fleet: Any, payload: bytes, tokens: int, tier: str) -> Answer:
    body = {
        "model": "qwen2.5-72b-instruct",
        "messages": json.loads(payload),
        "max_tokens": MOST,
        "min_tokens": tokens,
        "service_tier": tier,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    text, last = "", {}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{fleet.rest}/v1/chat/completions", json=body) as response,
    ):
        assert response.status == 200, await response.text()
        async for line in response.content:
            data = line.decode().removeprefix("data: ").strip()
            if data.startswith("{"):
                last = json.loads(data)
                text += "".join(choice["delta"].get("content") or "" for choice in last["choices"])
    return Answer(text, last["usage"]["completion_tokens"], last["diplex"]["preemptions"])


Road = Callable[[Any, bytes, int, str], Awaitable[Answer]]
ROADS: tuple[Road, ...] = (over_sdk, over_generate, over_rest)


async def watch(fleet: Any, over: asyncio.Event) -> list[router_pb2.Fleet]:
    """The router's account, again and again; no pool is ever over what it has."""
    seen = []
    async with diplex.AsyncClient(fleet.router) as client:
        async for state in client.watch_fleet(every=0.1):
            seen.append(state)
            for worker in state.workers:
                blocks = worker.blocks
                assert blocks.reserved + blocks.pinned + blocks.reclaiming <= POOL
            if over.is_set():
                return seen
    return seen


@pytest.fixture(scope="module")
def running(shared_fleet: Callable[..., Any]) -> Any:
    return shared_fleet(CONFIG)


Asked = tuple[Road, bytes, int, str]


async def all_of(fleet: Any, asked: list[Asked]) -> list[Answer]:
    """Each is exactly what its prompt determines."""
    roads = (road(fleet, payload, tokens, tier) for road, payload, tokens, tier in asked)
    answers = await asyncio.wait_for(asyncio.gather(*roads), 120)
    for (_, payload, tokens, _), answer in zip(asked, answers, strict=True):
        assert (answer.text, answer.tokens) == (determined_by(payload, tokens), tokens)
    return answers


def short_ones() -> list[Asked]:
    """From these the router learns how long such answers mostly are. Held in full, nobody gives way."""
    return [(over_sdk, prompt(1000 + number), 20, "batch") for number in range(SHORT)]


async def test_answers_grow_and_give_way_and_every_stream_is_exact(running: Any):
    assert {answer.preemptions for answer in await all_of(running, short_ones())} == {0}

    asked = [(ROADS[number % 3], prompt(number), LENGTH + 9 * number, "batch") for number in range(LONG)]
    asked += [(over_sdk, prompt(2000 + number), 200, "steady") for number in range(3)]
    over = asyncio.Event()
    watching = asyncio.create_task(watch(running, over))
    answers = await all_of(running, asked)
    over.set()
    seen = await watching

    grown, steady = answers[:LONG], answers[LONG:]
    assert {answer.preemptions for answer in steady} == {0}
    assert sum(answer.preemptions for answer in grown) > 0, "these pools are too small for all of them"
    assert max(state.leases.running for state in seen) > 3, "in full, one would have run on each worker"

    settled = await running.settled()
    assert settled.leases.preempted == sum(answer.preemptions for answer in grown)
    assert (settled.leases.over_capacity, settled.leases.drift_max <= POOL) == (0, True)
    for worker in running.workers:
        pool = await running.pool_of(worker)
        assert POOL / 2 < pool.peak_blocks <= POOL


async def test_a_router_that_dies_while_answers_grow_loses_nothing(fleet: Any):
    running = fleet(CONFIG)
    await all_of(running, short_ones())
    asked: list[Asked] = [
        ((over_sdk, over_rest)[number % 2], prompt(number), LENGTH, "batch") for number in range(LONG)
    ]
    answering = asyncio.create_task(all_of(running, asked))

    async def some_have_given_way() -> bool:
        return (await running.state()).leases.preempted > 1

    await running.until(some_have_given_way, "two have given way", within=60)
    running.kill("router")
    await answering
    settled = await running.settled(within=20)
    assert settled.leases.adopted > 0
    for worker in running.workers:
        assert (await running.pool_of(worker)).peak_blocks <= POOL
