"""A client that stops reading holds up its own stream, and no other; nothing of it is missing afterwards."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

# Eight times as fast as the real thing, so that buffers are full within seconds.
QUICK = """\
models:
  qwen2.5-72b-instruct: {profile: qwen2.5-72b, weights: mxfp4-mixed, kv_cache: mxfp8}
packages:
  pkg0: {gpu: b200, pattern: A, model: qwen2.5-72b-instruct,
         engine: {kind: sim, calibration: chapter, time_scale: 8}}
tiers:
  standard: {patterns: [A], max_output_tokens: 8000}
"""
TOKENS = 8000
SMALL = 4096  # bytes that the client's own end takes before it makes the other wait


@asynccontextmanager
async def asked(rest: str, tokens: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection on which a streamed answer was asked for. Nothing is read of it beyond a few kilobytes."""
    where = urlsplit(rest)
    end = socket.socket()
    # Before it is connected: afterwards the other end has been told of more.
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
    end.setblocking(False)
    await asyncio.get_running_loop().sock_connect(end, (where.hostname, where.port))
    reader, writer = await asyncio.open_connection(sock=end, limit=SMALL)
    body = {
        "stream": True,
        "max_tokens": tokens,
        "ignore_eos": True,
        "messages": [{"role": "user", "content": "Tell me a story."}],
    }
    text = json.dumps(body).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
        % (len(text), text)
    )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def events(reader: asyncio.StreamReader) -> list[dict[str, Any]]:
    """Every event up to the end, `[DONE]` included as such."""
    body = bytearray()
    while piece := await reader.read(65536):
        body += piece
    lines = [line for line in unchunked(bytes(body)).split(b"\n\n") if line]
    return [{"done": True} if line == b"data: [DONE]" else json.loads(line[6:]) for line in lines]


def unchunked(response: bytes) -> bytes:
    rest, whole = response.partition(b"\r\n\r\n")[2], b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        whole, rest = whole + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return whole


async def written(fleet: Any) -> float:
    """Pieces of answers that the shim has written so far."""
    where = urlsplit(fleet.rest)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
    page = (await reader.read()).decode()
    writer.close()
    line = next(line for line in page.splitlines() if line.startswith("diplex_rest_chunks_total "))
    return float(line.split()[1])


async def until_it_stands(fleet: Any) -> float:
    """Wait until the shim has written nothing for half a second; how much by then."""
    seen, since = await written(fleet), time.monotonic()

    async def look() -> float | None:
        nonlocal seen, since
        if (now := await written(fleet)) != seen:
            seen, since = now, time.monotonic()
        return seen if seen > 1 and time.monotonic() - since > 0.5 else None

    return float(await fleet.until(look, "the stream stands", within=60))


async def test_who_stops_reading_holds_its_own_stream_and_loses_nothing(fleet: Callable[..., Any]):
    running = fleet(QUICK)
    async with asked(running.rest, TOKENS) as (slow, _):
        stood_at = await until_it_stands(running)
        assert stood_at < TOKENS / 2, "it was held before half of it was written"
        # Beside it another is served from its first token to its last.
        async with asked(running.rest, 200) as (quick, _):
            assert (await asyncio.wait_for(events(quick), 20))[-1] == {"done": True}
        said = await asyncio.wait_for(events(slow), 60)
    *_, last, done = said
    assert done == {"done": True}
    assert last["choices"][0]["finish_reason"] == "length"
    await running.settled()


@pytest.mark.long
async def test_who_reads_nothing_for_half_a_minute_is_ended_and_told_why(fleet: Callable[..., Any]):
    running = fleet(QUICK)
    async with asked(running.rest, TOKENS) as (slow, _):
        stood_at = await until_it_stands(running)

        async def look() -> bool:
            return await written(running) > stood_at

        await running.until(look, "the reason is written, behind what waits", within=45)
        *_, last = await asyncio.wait_for(events(slow), 20)
    assert last["error"]["code"] == "window_shut"
    assert "Mend: read faster" in last["error"]["message"]
    await running.settled()
