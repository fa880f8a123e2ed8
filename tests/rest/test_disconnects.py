"""A client that closes its socket ends its request at once, wherever that is.

Raw sockets, because HTTP clients close politely and late.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "Tell me a story."}]}
pytestmark = pytest.mark.asyncio(loop_scope="module")  # one shim and one fleet for all of these


@asynccontextmanager
async def asking(port: int, **body: Any) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection on which a chat was asked for."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    text = json.dumps({**BODY, **body}).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: diplex\r\nContent-Length: %d\r\n\r\n%s"
        % (len(text), text)
    )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def metric(port: int, name: str) -> float:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: diplex\r\nConnection: close\r\n\r\n")
    page = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    return next(float(line.split()[1]) for line in page.splitlines() if line.startswith(f"{name} "))


@pytest.mark.parametrize("polite", [True, False])
async def test_in_the_middle_of_a_stream(port: int, fleet: Any, until: Any, polite: bool):
    fleet.script = fleet.hold_after_one_word
    before = await metric(port, "diplex_rest_disconnects_total")
    async with asking(port, stream=True) as (reader, writer):
        await reader.readuntil(b'"Once"')
        assert fleet.cancelled == []
        if polite:
            writer.close()
        else:
            writer.transport.abort()
        await until(lambda: fleet.cancelled, "the worker was told")
    assert await metric(port, "diplex_rest_disconnects_total") == before + 1
    assert await metric(port, "diplex_rest_streams_open") == 0


@pytest.mark.parametrize("stream", [True, False])
async def test_before_the_first_token(port: int, fleet: Any, until: Any, stream: bool):
    fleet.script = fleet.say_nothing
    async with asking(port, stream=stream) as (_, writer):
        await until(lambda: fleet.starts, "the worker has it")
        writer.transport.abort()
        await until(lambda: fleet.cancelled, "the worker was told")


@pytest.mark.parametrize("stream", [True, False])
async def test_while_it_waits_at_the_router(port: int, fleet: Any, until: Any, stream: bool):
    fleet.silent = True
    async with asking(port, stream=stream) as (_, writer):
        await until(lambda: fleet.asks, "the router has it")
        writer.transport.abort()
        await until(lambda: fleet.withdrawn == [fleet.asks[0].ask_id], "the router was told")


async def test_before_its_request_was_whole(port: int, fleet: Any, until: Any):
    before = await metric(port, "diplex_rest_disconnects_total")
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: d\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    writer.transport.abort()
    assert fleet.asks == []
    assert await metric(port, "diplex_rest_disconnects_total") == before


async def test_not_when_the_answer_ended_and_the_connection_stays_open(port: int, fleet: Any):
    before = await metric(port, "diplex_rest_disconnects_total")
    async with asking(port) as (reader, _):
        await reader.readuntil(b'"stop"')
        assert await metric(port, "diplex_rest_disconnects_total") == before
    assert fleet.cancelled == []


async def test_a_client_that_reads_nothing_for_a_while_loses_nothing(port: int, fleet: Any):
    async with asking(port, stream=True, max_tokens=4) as (reader, _):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200") and b"text/event-stream" in head
        body = await reader.readuntil(b"0\r\n\r\n")
    assert [word in body for word in (b'"Once"', b'" upon"', b'" a"', b'" time"')] == [True] * 4
    assert b"data: [DONE]\n\n" in body
