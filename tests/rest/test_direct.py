"""A real uvicorn server with its real connections; the answers are made by these tests."""

import asyncio
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from diplex_rest.connection import DirectProtocol, connection_of
from diplex_rest.direct import DirectSink, Turns
from diplex_rest.metrics import Metrics
from diplex_rest.server import Uvicorn

Until = Callable[[Callable[[], Any], str], Awaitable[Any]]
STREAM = [(b"content-type", b"text/event-stream")]
GET = b"GET / HTTP/1.1\r\nHost: d\r\n\r\n"


class Asked:
    """One request: the sink that its answer goes into, and what its owner was told."""

    def __init__(self, sink: DirectSink) -> None:
        self.sink = sink
        self.told: list[str] = []
        self.over = False

    def hold(self) -> None:
        self.told.append("hold")

    def go_on(self) -> None:
        self.told.append("go on")

    def leave(self) -> None:
        self.told.append("leave")


class Server:
    """Requests, in the order in which they came. `writes` counts what Turns reported: (pieces, writes)."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.metrics = Metrics()
        self.port = 0
        self._turns = Turns(self.metrics)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        connection = connection_of(scope)
        assert connection is not None
        asked = Asked(DirectSink(connection, self._turns))
        self.asked.append(asked)
        await asked.sink.carry(receive, send, asked)
        asked.over = True

    def counted(self) -> tuple[float, float]:
        page = self.metrics.text(router_up=False)
        found = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
        return float(found["diplex_rest_chunks_total"]), float(found["diplex_rest_writes_total"])


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Server]:
    server = Server()
    config = uvicorn.Config(
        server.app,
        http=DirectProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        proxy_headers=False,
        **options,
    )
    listener = socket.create_server(("127.0.0.1", 0))
    server.port = listener.getsockname()[1]
    running = Uvicorn(config, lambda: None)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(running.serve([listener]))
        try:
            yield server
        finally:
            running.should_exit = running.force_exit = True
    listener.close()


@asynccontextmanager
async def asking(
    server: Server, until: Until, request: bytes = GET, **options: Any
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, Asked]]:
    """A connection on which something was asked for."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, **options)
    before = len(server.asked)
    writer.write(request)
    await until(lambda: len(server.asked) > before, "the request is there")
    try:
        yield reader, writer, server.asked[-1]
    finally:
        writer.transport.abort()


async def body_of(reader: asyncio.StreamReader) -> tuple[bytes, list[bytes]]:
    """The head of a response, and its body as it was cut into HTTP's chunks."""
    head = await reader.readuntil(b"\r\n\r\n")
    chunks: list[bytes] = []
    while size := int(await reader.readline(), 16):
        chunks.append(await reader.readexactly(size))
        assert await reader.readexactly(2) == b"\r\n"
    assert await reader.readexactly(2) == b"\r\n"
    return head, chunks


async def test_pieces_of_one_turn_are_one_chunk_and_those_of_the_next_another(until: Until):
    async with serving() as server, asking(server, until) as (reader, _, asked):
        asked.sink.open(200, STREAM)
        asked.sink.write(b"a")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n") and b"transfer-encoding: chunked" in head
        assert await reader.readexactly(6) == b"1\r\na\r\n"
        asked.sink.write(b"b")
        asked.sink.write(b"c")
        assert await reader.readexactly(7) == b"2\r\nbc\r\n"
        asked.sink.write(b"d")
        asked.sink.end()
        assert await reader.readexactly(11) == b"1\r\nd\r\n0\r\n\r\n"
        await until(lambda: asked.over, "the request is over")
        assert server.counted() == (4, 3)
        assert asked.told == []


async def test_a_turn_writes_for_all_its_connections(until: Until):
    async with (
        serving() as server,
        asking(server, until) as (first, _, one),
        asking(server, until) as (second, _, other),
    ):
        for asked in (one, other):
            asked.sink.open(200, STREAM)
            asked.sink.write(b"a")
        for reader in (first, second):
            await reader.readuntil(b"1\r\na\r\n")
        one.sink.write(b"1")
        other.sink.write(b"2")
        assert await first.readexactly(6) == b"1\r\n1\r\n"
        assert await second.readexactly(6) == b"1\r\n2\r\n"


async def test_an_answer_in_one_piece_keeps_its_length(until: Until):
    async with serving() as server, asking(server, until) as (reader, _, asked):
        asked.sink.open(429, [(b"content-length", b"2")])
        asked.sink.write(b"no")
        asked.sink.end()
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 429") and b"chunked" not in head
        assert await reader.readexactly(2) == b"no"


async def test_a_stream_that_is_there_as_a_whole_is_one(until: Until):
    async with serving() as server, asking(server, until) as (reader, _, asked):
        asked.sink.open(200, STREAM)
        asked.sink.write(b"a")
        asked.sink.write(b"b")
        asked.sink.end()
        assert (await body_of(reader))[1] == [b"ab"]


async def test_a_connection_serves_again_and_again(until: Until):
    async with serving() as server, asking(server, until) as (reader, writer, asked):
        for number in (1, 2, 3):
            asked.sink.open(200, STREAM)
            asked.sink.write(b"%d" % number)
            asked.sink.end()
            head, chunks = await body_of(reader)
            assert (chunks, b"connection: close" in head) == ([b"%d" % number], False)
            writer.write(GET)
            await until(lambda: len(server.asked) > number, "the next request is there")  # noqa: B023
            asked = server.asked[-1]


async def test_requests_that_came_at_once_are_answered_in_turn(until: Until):
    async with serving() as server, asking(server, until, GET + GET) as (reader, _, first):
        first.sink.open(200, STREAM)
        first.sink.write(b"1")
        first.sink.end()
        assert (await body_of(reader))[1] == [b"1"]
        await until(lambda: len(server.asked) > 1, "the second is begun")
        second = server.asked[1]
        second.sink.open(200, STREAM)
        second.sink.write(b"2")
        second.sink.end()
        assert (await body_of(reader))[1] == [b"2"]


async def test_one_who_asked_to_close_is_closed(until: Until):
    request = b"GET / HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
    async with serving() as server, asking(server, until, request) as (reader, _, asked):
        asked.sink.open(200, STREAM)
        asked.sink.write(b"a")
        asked.sink.end()
        everything = await reader.read()
        assert b"connection: close" in everything and everything.endswith(b"1\r\na\r\n0\r\n\r\n")


async def test_http_1_0_has_no_chunks_and_ends_with_its_connection(until: Until):
    async with serving() as server, asking(server, until, b"GET / HTTP/1.0\r\n\r\n") as (reader, _, asked):
        asked.sink.open(200, STREAM)
        asked.sink.write(b"one ")
        await reader.readuntil(b"one ")
        asked.sink.write(b"two ")
        await reader.readuntil(b"two ")
        asked.sink.write(b"three")
        asked.sink.end()
        assert await reader.read() == b"three"


@pytest.mark.parametrize("started", [False, True])
async def test_its_owner_hears_when_the_client_leaves(until: Until, started: bool):
    async with serving() as server, asking(server, until) as (reader, writer, asked):
        if started:
            asked.sink.open(200, STREAM)
            asked.sink.write(b"a")
            await reader.readuntil(b"a\r\n")
        writer.transport.abort()
        await until(lambda: asked.over, "the request is over")
        assert asked.told == ["leave"]
        if not started:
            asked.sink.open(503, [])
        asked.sink.write(b"late")
        asked.sink.end()


async def test_a_client_that_takes_nothing_holds_its_own_stream_and_no_other(until: Until):
    async with (
        serving() as server,
        asking(server, until, limit=1024) as (slow, _, lagging),
        asking(server, until) as (quick, _, asked),
    ):
        for one in (lagging, asked):
            one.sink.open(200, STREAM)
            one.sink.write(b"a")
        await quick.readuntil(b"1\r\na\r\n")
        await slow.readuntil(b"1\r\na\r\n")
        written = 0
        while not lagging.told:
            lagging.sink.write(bytes(100_000))
            written += 100_000
            assert written < 100_000_000, "never held"
            await asyncio.sleep(0)
        assert lagging.told == ["hold"]
        # What comes all the same, because it was on its way, gathers and goes out in one piece.
        for piece in (b"late", b" and", b" later"):
            lagging.sink.write(piece)
            await asyncio.sleep(0)
        asked.sink.write(b"b")
        assert await quick.readexactly(6) == b"1\r\nb\r\n"
        rest = asyncio.ensure_future(slow.readuntil(b"e\r\nlate and later\r\n"))
        slow._limit = 2**30  # type: ignore[attr-defined]  # from here on it takes all
        slow._maybe_resume_transport()  # type: ignore[attr-defined]
        assert len(await rest) > written
        assert lagging.told == ["hold", "go on"]


async def test_an_end_that_comes_while_its_client_lags_still_arrives(until: Until):
    async with serving() as server, asking(server, until, limit=1024) as (slow, _, asked):
        asked.sink.open(200, STREAM)
        asked.sink.write(b"a")
        await slow.readuntil(b"1\r\na\r\n")
        while not asked.told:
            asked.sink.write(bytes(100_000))
            await asyncio.sleep(0)
        asked.sink.write(b"the reason")
        asked.sink.end()
        slow._limit = 2**30  # type: ignore[attr-defined]
        slow._maybe_resume_transport()  # type: ignore[attr-defined]
        assert (await slow.readuntil(b"0\r\n\r\n")).endswith(b"\r\nthe reason\r\n0\r\n\r\n")
        assert asked.told == ["hold"]


async def test_a_client_that_leaves_while_it_lags_ends_the_request(until: Until):
    async with serving() as server, asking(server, until, limit=1024) as (slow, writer, asked):
        asked.sink.open(200, STREAM)
        asked.sink.write(b"a")
        await slow.readuntil(b"1\r\na\r\n")
        while not asked.told:
            asked.sink.write(bytes(100_000))
            await asyncio.sleep(0)
        writer.transport.abort()
        await until(lambda: asked.over, "the request is over")
        assert asked.told == ["hold", "leave"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    command = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout key.pem -out cert.pem"
    subprocess.run([openssl, *command.split()], cwd=folder, check=True, capture_output=True, timeout=60)
    return folder


async def test_over_tls_the_same_bytes_are_encrypted_and_the_same_client_holds(
    until: Until, certificate: Path
):
    trusting = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    options = {"ssl_keyfile": str(certificate / "key.pem"), "ssl_certfile": str(certificate / "cert.pem")}
    tls: dict[str, Any] = {"ssl": trusting, "server_hostname": "localhost", "limit": 1024}
    async with serving(**options) as server, asking(server, until, **tls) as (reader, writer, asked):
        asked.sink.open(200, STREAM)
        asked.sink.write(b"a")
        await reader.readuntil(b"1\r\na\r\n")
        asked.sink.write(b"b")
        assert await reader.readexactly(6) == b"1\r\nb\r\n"
        while not asked.told:
            asked.sink.write(bytes(100_000))
            await asyncio.sleep(0)
        assert asked.told == ["hold"]
        writer.transport.abort()
        await until(lambda: asked.over, "the request is over")
        assert asked.told == ["hold", "leave"]
