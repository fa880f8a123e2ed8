"""What gathers goes out together, through any ASGI server."""

import asyncio
from typing import Any

from diplex_rest.metrics import Metrics
from diplex_rest.sink import GatheringSink


class Client:
    """An ASGI connection and its owner; while `taking` is clear its client takes nothing."""

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.told: list[str] = []
        self.taking = asyncio.Event()
        self.taking.set()
        self.gone = asyncio.Event()

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.taken.append(message)
        await self.taking.wait()

    def hold(self) -> None:
        self.told.append("hold")

    def go_on(self) -> None:
        self.told.append("go on")

    def leave(self) -> None:
        self.told.append("leave")

    async def take(self, sink: GatheringSink) -> None:
        await sink.carry(self.receive, self.send, self)

    @property
    def writes(self) -> list[tuple[bytes, bool]]:
        return [(one["body"], one["more_body"]) for one in self.taken if one["type"] == "http.response.body"]


async def turn_over() -> None:
    """Let everything that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_answer_that_is_there_goes_out_in_one_write():
    sink, client = GatheringSink(Metrics()), Client()
    sink.open(200, [(b"a", b"b")])
    for part in (b"1", b"2", b"3"):
        sink.write(part)
    sink.end()
    await client.take(sink)
    assert client.taken[0] == {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}
    assert client.writes == [(b"123", False)]


async def test_nothing_is_sent_before_there_is_something_and_then_at_once():
    sink, client = GatheringSink(Metrics()), Client()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(client.take(sink))
        await turn_over()
        assert client.taken == []
        sink.open(200, [])
        for part in (b"1", b"2"):
            sink.write(part)
            await turn_over()
        sink.end()
    assert client.writes == [(b"1", True), (b"2", True), (b"", False)]


async def test_what_comes_while_a_client_is_slow_gathers_into_one_write():
    sink, client = GatheringSink(Metrics()), Client()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(client.take(sink))
        client.taking.clear()
        sink.open(200, [])
        for part in (b"1", b"2", b"3"):
            sink.write(part)
            await turn_over()
        sink.end()
        client.taking.set()
    assert client.writes == [(b"1", True), (b"23", False)]


async def test_who_lets_it_come_is_told_once_when_much_has_gathered_and_once_when_it_is_gone():
    sink, client = GatheringSink(Metrics()), Client()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(client.take(sink))
        await turn_over()
        client.taking.clear()
        sink.open(200, [])
        sink.write(b"first")
        await turn_over()
        for _ in range(3):
            sink.write(bytes(60_000))
        assert client.told == ["hold"]
        client.taking.set()
        await turn_over()
        assert client.told == ["hold", "go on"]
        sink.end()


async def test_an_answer_whose_client_left_sends_nothing_though_more_is_said_of_it():
    sink, client = GatheringSink(Metrics()), Client()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(client.take(sink))
        await turn_over()
        client.gone.set()
        await turn_over()
        sink.open(503, [])
        sink.write(b"cancelled")
        sink.end()
    assert (client.taken, client.told) == ([], ["leave"])
