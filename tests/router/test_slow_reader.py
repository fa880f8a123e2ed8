"""A client of the proxied `Generate` that does not read: it holds up nobody, and little waits for it."""

import asyncio
from typing import Any

import grpc
import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2
from diplex.wire.status import Problem
from diplex_core.words import Pattern, Rules, Tier
from diplex_router import proxy

TOKENS = 400
LONG = Rules(frozenset({"m"}), "m", {"standard": Tier("standard", (Pattern.A,))}, "standard")


@pytest.fixture(autouse=True)
def ahead(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(proxy, "AHEAD", 16)
    return 16


def request(tokens: int = TOKENS) -> router_pb2.RouterGenerateRequest:
    return router_pb2.RouterGenerateRequest(prompt=pb.Prompt(text="to be"), max_tokens=tokens)


async def stopped(worker: Any) -> int:
    """The index at which the worker waits for a window."""
    async with asyncio.timeout(10), worker.moved:
        await worker.moved.wait_for(lambda: worker.stopped_at)
    return int(worker.stopped_at)


async def begun(stub: Any, tokens: int = TOKENS) -> Any:
    """A call of which the first message has been read, and nothing since."""
    messages = aiter(stub.Generate(request(tokens)))
    assert (await anext(messages)).serving.worker == "w1"
    return messages


async def rest(messages: Any) -> list[pb.Tokens]:
    return [tokens async for message in messages for tokens in message.tokens]


async def test_the_worker_is_stopped_for_a_client_that_does_not_read(
    flooding_worker: Any, new_router: Any
) -> None:
    async with new_router(flooding_worker, rules=LONG) as stub:
        messages = await begun(stub)
        assert await stopped(flooding_worker) < TOKENS / 2
        await messages.aclose()


async def test_a_client_that_reads_again_gets_every_token_once(flooding_worker: Any, new_router: Any) -> None:
    async with new_router(flooding_worker, rules=LONG) as stub:
        messages = await begun(stub)
        await stopped(flooding_worker)
        async with asyncio.timeout(10):
            words = await rest(messages)
        ids = [token for piece in words for token in piece.ids]
        assert ids == list(range(TOKENS))
        assert sum(piece.count for piece in words) == TOKENS


async def test_what_gathers_for_it_comes_as_one_message_of_one_piece(
    flooding_worker: Any, new_router: Any
) -> None:
    async with new_router(flooding_worker, rules=LONG) as stub:
        messages = await begun(stub)
        await stopped(flooding_worker)
        async with asyncio.timeout(10):
            read = [message async for message in messages]
        assert all(len(message.tokens) <= 1 for message in read)
        assert max(piece.count for message in read for piece in message.tokens) > 8


async def test_its_neighbour_on_the_same_worker_is_not_held_up(flooding_worker: Any, new_router: Any) -> None:
    async with new_router(flooding_worker, rules=LONG) as stub:
        slow = await begun(stub)
        await stopped(flooding_worker)
        async with asyncio.timeout(10):
            words = await rest(await begun(stub))
        assert sum(piece.count for piece in words) == TOKENS
        await slow.aclose()


async def test_one_whose_window_stayed_shut_hears_why_it_was_ended(
    flooding_worker: Any, new_router: Any
) -> None:
    async with new_router(flooding_worker, rules=LONG) as stub:
        messages = await begun(stub)
        await stopped(flooding_worker)
        problem = Problem(grpc.StatusCode.RESOURCE_EXHAUSTED, "shut for too long", "WINDOW_SHUT")
        await flooding_worker.end(problem)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async with asyncio.timeout(10):
                await rest(messages)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert Problem.from_rpc(caught.value).reason == "WINDOW_SHUT"
