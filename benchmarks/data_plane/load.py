"""The load: OpenAI chat requests over plain HTTP/1.1, counted as they come, in a process of its own.

It reads just enough: where a head ends, how many events and tokens a piece holds, and where an answer ends.
It is told what to do by lines of JSON on stdin (`measure.py`) and answers each with one line.

Tokens are counted by spaces: every word but an answer's first has one before it, and an event that both
simulated engines write has none elsewhere but behind `data:`. So an event that holds several tokens, as where
they were gathered on the way, counts them all.
"""

import asyncio
import gc
import json
import random
import re
import socket
import sys
import time
from array import array
from typing import Any, cast

import uvloop

EVENT = b"data: "
_SYLLABLES = ("an", "ber", "co", "den", "es", "for", "ing", "ment", "per", "re", "sta", "tion")
_WORDS = tuple(first + second for first in _SYLLABLES for second in _SYLLABLES)
_SOME_TEXT = re.compile(rb'"content": ?"[^"]')
_TAIL = 16  # bytes of the last piece that are looked at again: what is looked for may be cut anywhere
_LENGTH = re.compile(rb"content-length: ?(\d+)", re.IGNORECASE)
_SETTLE = 60.0  # seconds that all streams of a group have to get their first token


class Group:
    """Streams that are asked for and counted together.

    Args:
        asked: `port`, `streams` at once; `tokens` of an answer; `stream`; `prompt` in bytes; `ramp` seconds
            over which they begin; `rate`: new requests a second, not `streams` at once; `again`: whether an
            answer's end begins the next request; `extra`: more fields of the body.
    """

    def __init__(self, asked: dict[str, Any]) -> None:
        self.asked = asked
        self.port = int(asked["port"])
        self.again = bool(asked.get("again", True))
        self.streams: list[Stream] = []
        self.idle: list[Stream] = []
        self.requests = [request(asked, number) for number in range(int(asked.get("variants", 8)))]
        self.tokens = self.events = self.reads = self.size = self.done = 0
        self.begun = self.first = 0
        self.failures: dict[str, int] = {}
        self.gaps = array("d")
        self.ttft = array("d")
        self.whole = array("d")
        self.measuring = True
        self.over = False
        self.keep_last = "receive_buffer" in asked
        self.last = b""
        self.all_began = asyncio.Event()

    def counters(self) -> dict[str, Any]:
        return {
            "at": time.monotonic(),
            "tokens": self.tokens,
            "events": self.events,
            "reads": self.reads,
            "bytes": self.size,
            "done": self.done,
            "begun": self.begun,
            "open": sum(1 for one in self.streams if one.busy),
            "failures": self.failures,
        }

    def failed(self, why: str) -> None:
        self.failures[why] = self.failures.get(why, 0) + 1

    async def open(self) -> None:
        """Begin every stream, evenly over the ramp; return when each has its first token."""
        count = int(self.asked["streams"])
        ramp = float(self.asked.get("ramp", 1.0))
        began = time.monotonic()
        for number in range(count):
            await asyncio.sleep(max(0.0, began + ramp * number / count - time.monotonic()))
            await self.one()
        if self.asked.get("settle", True):
            async with asyncio.timeout(float(self.asked.get("settle_within", _SETTLE))):
                while sum(1 for one in self.streams if one.ever) + sum(self.failures.values()) < count:
                    self.all_began.clear()
                    await self.all_began.wait()

    async def arrive(self, seconds: float) -> None:
        """New requests at a rate, each on a connection that is free, or on a new one.

        Each comes somewhere within its share of the time, so that none keeps step with the engine.
        """
        rate = float(self.asked["rate"])
        began, drawn = time.monotonic(), random.Random(7)
        for number in range(int(rate * seconds)):
            due = began + (number + drawn.random()) / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if self.idle:
                self.idle.pop().send()
            else:
                await self.one()
        async with asyncio.timeout(_SETTLE):
            while any(one.busy for one in self.streams):
                self.all_began.clear()
                await self.all_began.wait()

    async def one(self) -> None:
        stream = Stream(self, len(self.streams))
        self.streams.append(stream)
        loop = asyncio.get_running_loop()
        connection = socket.socket()
        connection.setblocking(False)
        if buffer := self.asked.get("receive_buffer"):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, int(buffer))
        try:
            await loop.sock_connect(connection, ("127.0.0.1", self.port))
            await loop.create_connection(lambda: stream, sock=connection)
        except OSError as error:
            self.failed(f"connect: {error.strerror or error}")

    def close(self) -> None:
        self.over = True
        for one in self.streams:
            if one.transport is not None:
                one.transport.abort()


class Stream(asyncio.Protocol):
    """One connection, one request after the other."""

    transport: asyncio.Transport | None = None

    def __init__(self, group: Group, number: int) -> None:
        self.group = group
        self.number = number
        self.busy = False
        self.spoke = False
        self.ever = False  # has had a first token, of whichever request
        self.sent = 0.0
        self._last = 0.0
        self._tail = b""
        self._head: bytes | None = b""
        self._left = -1  # bytes of a body whose length is known; -1: it comes in chunks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own is no subclass of it
        self.send()

    def send(self) -> None:
        assert self.transport is not None
        self.busy, self.spoke = True, False
        self._head, self._tail, self._left = b"", b"", -1
        self.group.begun += 1
        self.sent = time.monotonic()
        requests = self.group.requests
        self.transport.write(requests[self.group.begun % len(requests)])

    def data_received(self, data: bytes) -> None:
        group = self.group
        now = time.monotonic()
        group.reads += 1
        group.size += len(data)
        if self._head is not None:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            head, data = self._head[:end], self._head[end + 4 :]
            self._head = None
            if not head.startswith(b"HTTP/1.1 200"):
                group.failed(head.partition(b"\r\n")[0].decode() + " " + data[:200].decode(errors="replace"))
                self.close()
                return
            known = _LENGTH.search(head)
            self._left = int(known[1]) if known else -1
        if not group.asked.get("stream", True):
            self._whole(data, now)
            return
        looked = self._tail + data
        events = looked.count(EVENT) - self._tail.count(EVENT)
        tokens = data.count(b" ") - events
        if not self.spoke:
            if _SOME_TEXT.search(looked):
                self.spoke = self.ever = True
                tokens += 1
                group.ttft.append(now - self.sent)
                group.all_began.set()
        elif group.measuring and events:
            group.gaps.append(now - self._last)
        self._last = now
        group.tokens += tokens
        group.events += events
        self._tail = looked[-_TAIL:]
        if group.keep_last:
            group.last = (group.last + data)[-2000:]
        if looked.endswith(b"0\r\n\r\n"):
            self._ended(now)

    def _whole(self, data: bytes, now: float) -> None:
        if self._left >= 0:
            self._left -= len(data)
            over = self._left <= 0
        else:
            over = data.endswith(b"0\r\n\r\n")
        if over:
            self.group.ttft.append(now - self.sent)
            self.spoke = self.ever = True
            self.group.all_began.set()
            self._ended(now)

    def _ended(self, now: float) -> None:
        group = self.group
        group.done += 1
        group.whole.append(now - self.sent)
        self.busy = False
        if group.again and not group.over:
            self.send()
        else:
            group.idle.append(self)
            group.all_began.set()

    def close(self) -> None:
        self.busy = False
        self.group.all_began.set()
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.busy and not self.group.over:
            self.group.failed("connection lost" + (f": {exc}" if exc else " in the middle of an answer"))
        self.busy = False
        self.group.all_began.set()


def request(asked: dict[str, Any], number: int) -> bytes:
    """The bytes of one request, head and body."""
    size = int(asked.get("prompt", 32))
    text = prompt(size, number)
    body = json.dumps(
        {
            "model": asked.get("model", "m"),
            "messages": [{"role": "user", "content": text}],
            "max_tokens": int(asked["tokens"]),
            "stream": bool(asked.get("stream", True)),
            **asked.get("extra", {}),
        }
    ).encode()
    head = (
        f"POST {asked.get('path', '/v1/chat/completions')} HTTP/1.1\r\nhost: bench\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def prompt(size: int, number: int) -> str:
    """So many bytes of made-up words: others for each number, and the same every time."""
    drawn = random.Random(number)
    words = drawn.choices(_WORDS, k=size // 4 + 8)
    return " ".join([f"{number}", *words])[:size]


def shares(values: "array[float]", among: tuple[float, ...] = (0.5, 0.9, 0.99)) -> dict[str, float | int]:
    """Percentiles in milliseconds, and how many there were."""
    ordered = sorted(values)
    if not ordered:
        return {"count": 0}
    found: dict[str, float | int] = {
        f"p{share * 100:g}": round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 3)
        for share in among
    }
    return {"count": len(ordered), **found, "max": round(ordered[-1] * 1000, 3)}


class Load:
    """All groups, by name."""

    def __init__(self) -> None:
        self.groups: dict[str, Group] = {}
        self.prepared: dict[str, Group] = {}

    async def do(self, said: dict[str, Any]) -> dict[str, Any]:
        name = said.get("group", "all")
        match said["do"]:
            case "open":
                group = self.groups[name] = Group(said)
                try:
                    await group.open()
                except TimeoutError:
                    return {"error": f"not every stream began; {group.counters()}"}
                return {**group.counters(), "ttft_ms": shares(group.ttft)}
            case "prepare":  # make the bodies of an `arrive` beforehand: large ones take their time
                self.prepared[name] = Group({**said, "again": False})
                return {}
            case "arrive":
                group = self.prepared.pop(name, None) or Group({**said, "again": False})
                self.groups[name] = group
                try:
                    await group.arrive(float(said["seconds"]))
                except TimeoutError:
                    return {"error": f"not every answer ended; {group.counters()}"}
                answer = {**group.counters(), "ttft_ms": shares(group.ttft), "whole_ms": shares(group.whole)}
                group.close()
                return answer
            case "mark":  # counters so far; gaps and times are taken anew from here
                group = self.groups[name]
                counters = {
                    **group.counters(),
                    "gap_ms": shares(group.gaps),
                    "ttft_ms": shares(group.ttft),
                    "whole_ms": shares(group.whole),
                }
                group.gaps, group.ttft, group.whole = array("d"), array("d"), array("d")
                return counters
            case "pause":  # the first stream takes nothing any more
                stream = self.groups[name].streams[int(said.get("stream_number", 0))]
                assert stream.transport is not None
                stream.transport.pause_reading()
                return {}
            case "resume":
                stream = self.groups[name].streams[int(said.get("stream_number", 0))]
                assert stream.transport is not None
                stream.transport.resume_reading()
                return {}
            case "last":  # the end of what the first stream has read, and whether it is open
                group = self.groups[name]
                return {"text": group.last.decode(errors="replace"), **group.counters()}
            case "close":
                self.groups.pop(name).close()
                await asyncio.sleep(0)
                return {}
            case other:
                return {"error": f"unknown: {other}"}


async def main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    load = Load()
    gc.freeze()
    print("ready", flush=True)
    while line := await reader.readline():
        print(json.dumps(await load.do(json.loads(line))), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
