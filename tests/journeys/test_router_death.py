"""A router that dies and returns: no direct stream notices, and what runs is adopted from the reports."""

import asyncio
from typing import Any

import diplex
from diplex_core.sim import speech

STREAMS = 200
LONG = 600  # tokens: they outlive the router by far


async def test_200_direct_streams_outlive_their_router_and_their_leases_are_adopted(fleet: Any):
    running = fleet()
    epoch = (await running.state()).epoch
    async with diplex.AsyncClient(running.router) as client:
        streams = [
            client.stream(f"prompt {number}", tier=("standard", "bulk")[number % 2], max_tokens=LONG)
            for number in range(STREAMS)
        ]
        answers = [asyncio.create_task(whole(stream)) for stream in streams]
        await asyncio.gather(*(stream.started() for stream in streams))
        running.kill("router")

        async with diplex.AsyncClient(running.router) as newcomer:
            reply = await newcomer.generate("a new request", max_tokens=4, timeout=20)
        served_after = running.age_of("router")
        assert reply.text == spoken("a new request", 4)

        state = await running.state()
        assert state.epoch != epoch
        assert state.leases.adopted == sum(not answer.done() for answer in answers) > 0
        texts = await asyncio.wait_for(asyncio.gather(*answers), 120)

    assert [n for n, text in enumerate(texts) if text != spoken(f"prompt {n}", LONG)] == []
    assert served_after < 3.0
    assert (await running.settled()).leases.over_capacity == 0


async def whole(stream: Any) -> str:
    return "".join([chunk.text async for chunk in stream])


def spoken(prompt: str, tokens: int) -> str:
    digest = speech.prompt_digest("text", prompt.encode())
    return "".join(speech.token(digest, 0, place)[1] for place in range(tokens))
