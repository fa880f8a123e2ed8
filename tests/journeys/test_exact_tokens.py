"""200 streams at once end with exactly the tokens that their prompts determine, and leave nothing behind."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

import diplex
from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2, router_pb2_grpc
from diplex.wire.serving import channel
from diplex_core.sim import speech

STREAMS = 200
TIERS = ("standard", "bulk")

Asked = tuple[bytes, str, int]  # the messages as JSON, the tier, the tokens wanted
Answered = tuple[str, str]  # the whole text, why it ended


def asks() -> list[Asked]:
    """Half standard, half bulk; every prompt is another, and so is every length."""
    return [
        (messages(f"question {number} " + "and so on " * (number % 40)), TIERS[number % 2], 20 + number % 150)
        for number in range(STREAMS)
    ]


def messages(text: str) -> bytes:
    return json.dumps([{"role": "user", "content": text}], separators=(",", ":")).encode()


def determined_by(asked: Asked) -> Answered:
    payload, _, tokens = asked
    digest = speech.prompt_digest("chat", payload)
    return "".join(speech.token(digest, 0, place)[1] for place in range(tokens)), "length"


async def over_sdk(fleet: Any, asked: list[Asked]) -> list[Answered]:
    async with diplex.AsyncClient(fleet.router) as client:

        async def one(payload: bytes, tier: str, tokens: int) -> Answered:
            stream = client.stream(messages=json.loads(payload), tier=tier, max_tokens=tokens)
            text = "".join([chunk.text async for chunk in stream])
            return text, stream.reply.finish_reason

        return await asyncio.gather(*(one(*ask) for ask in asked))


async def over_generate(fleet: Any, asked: list[Asked]) -> list[Answered]:
    async with channel(fleet.router) as to_router:
        stub = router_pb2_grpc.RouterStub(to_router)

        async def one(payload: bytes, tier: str, tokens: int) -> Answered:
            call = stub.Generate(
                router_pb2.RouterGenerateRequest(
                    tier=tier,
                    max_tokens=tokens,
                    prompt=pb.Prompt(chat=pb.Chat(messages=payload)),
                )
            )
            text, place, end = "", 0, ""
            async for answer in call:
                for news in answer.tokens:
                    assert news.index == place
                    place += news.count
                    text += news.text
                if answer.HasField("done"):
                    end = pb.EndReason.Name(answer.done.reason).removeprefix("END_REASON_").lower()
            return text, end

        return await asyncio.gather(*(one(*ask) for ask in asked))


async def over_rest(fleet: Any, asked: list[Asked]) -> list[Answered]:
    url = f"{fleet.rest}/v1/chat/completions"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one(payload: bytes, tier: str, tokens: int) -> Answered:
            body = {
                "model": "qwen2.5-72b-instruct",
                "messages": json.loads(payload),
                "max_tokens": tokens,
                "service_tier": tier,
                "stream": True,
            }
            text, end, closed = "", "", False
            async with session.post(url, json=body) as response:
                assert response.status == 200, await response.text()
                async for line in response.content:
                    data = line.decode().removeprefix("data: ").strip()
                    if data == "[DONE]":
                        closed = True
                    elif data:
                        (choice,) = json.loads(data)["choices"]
                        text += choice["delta"].get("content") or ""
                        end = choice["finish_reason"] or end
            assert closed
            return text, end

        return await asyncio.gather(*(one(*ask) for ask in asked))


@pytest.mark.parametrize("road", [over_sdk, over_generate, over_rest])
async def test_200_streams_are_exact_and_leave_nothing_behind(
    fleet: Any, road: Callable[[Any, list[Asked]], Awaitable[list[Answered]]]
):
    running = fleet()
    asked = asks()
    answered = await asyncio.wait_for(road(running, asked), 120)
    wrong = [ask for ask, answer in zip(asked, answered, strict=True) if answer != determined_by(ask)]
    assert wrong == []

    state = await running.settled()
    assert state.leases.opened >= STREAMS
    assert state.leases.over_capacity == 0
    for worker in running.workers:
        pool = await running.pool_of(worker)
        assert 0 < pool.peak_blocks <= pool.info.capacity_blocks
        assert 0 < pool.peak_slots <= pool.info.capacity_slots
