"""What gathers goes out together."""

import asyncio
from typing import Any

from diplex_rest.metrics import Metrics
from diplex_rest.sink import GatheringSink


class Connection:
    """An ASGI connection; while `taking` is clear its client takes nothing."""

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.taking = asyncio.Event()
        self.taking.set()

    async def send(self, message: Any) -> None:
        self.taken.append(message)
        await self.taking.wait()

    @property
    def writes(self) -> list[tuple[bytes, bool]]:
        return [(one["body"], one["more_body"]) for one in self.taken if one["type"] == "http.response.body"]


async def test_an_answer_that_is_there_goes_out_in_one_write():
    sink, connection = GatheringSink(Metrics()), Connection()
    sink.open(200, [(b"a", b"b")])
    for part in (b"1", b"2", b"3"):
        sink.write(part)
    sink.end()
    await sink.pump(connection.send)
    assert connection.taken[0] == {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}
    assert connection.writes == [(b"123", False)]


async def test_nothing_is_sent_before_there_is_something_and_then_at_once():
    sink, connection = GatheringSink(Metrics()), Connection()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sink.pump(connection.send))
        await asyncio.sleep(0)
        assert connection.taken == []
        sink.open(200, [])
        for part in (b"1", b"2"):
            sink.write(part)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        sink.end()
    assert connection.writes == [(b"1", True), (b"2", True), (b"", False)]


async def test_what_comes_while_a_client_is_slow_gathers_into_one_write():
    sink, connection = GatheringSink(Metrics()), Connection()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sink.pump(connection.send))
        connection.taking.clear()
        sink.open(200, [])
        for part in (b"1", b"2", b"3"):
            sink.write(part)
            await asyncio.sleep(0)
        sink.end()
        connection.taking.set()
    assert connection.writes == [(b"1", True), (b"23", False)]


async def test_an_abandoned_answer_sends_nothing_though_more_is_said_of_it():
    sink, connection = GatheringSink(Metrics()), Connection()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sink.pump(connection.send))
        await asyncio.sleep(0)
        sink.abandon()
        sink.open(503, [])
        sink.write(b"cancelled")
        sink.end()
    assert connection.taken == []
