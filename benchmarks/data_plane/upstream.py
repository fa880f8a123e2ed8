"""A simulated worker that speaks OpenAI's HTTP: one SSE chunk a token, one token a stream in each iteration.

What the peers forward to. It keeps the law of diplex's simulated engine: a request waits for the iteration
under way to end, and its first token comes at the end of the next one. It computes nothing; a connection that
takes nothing is passed over until it drains. Everything that it answers says `simulated`.

    python upstream.py --port 9001 --pace 0.02
"""

import argparse
import asyncio
import gc
import json
import time
from typing import cast

import httptools
import uvloop

WORDS = ("bada", "dobe", "figu", "gaho", "hiji", "joka", "kule", "lami")
MODEL = "m"
FINGERPRINT = "simulated"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    value = {
        "id": "chatcmpl-simulated",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": MODEL,
        "system_fingerprint": FINGERPRINT,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


FIRST = _chunk(_event({"role": "assistant", "content": ""})) + _chunk(_event({"content": WORDS[0]}))
NEXT = tuple(_chunk(_event({"content": " " + word})) for word in WORDS)
LAST = _chunk(_event({}, "length")) + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Engine:
    """The iterations. `pace` 0: one follows the other as fast as the loop turns."""

    def __init__(self, pace: float) -> None:
        self.pace = pace
        self.waiting: list[Answer] = []
        self.speaking: list[Answer] = []
        self.woken = asyncio.Event()

    async def serve(self) -> None:
        end = time.monotonic()
        while True:
            if not self.waiting and not any(not one.paused for one in self.speaking):
                self.woken.clear()
                await self.woken.wait()
                end = time.monotonic()
            self.speaking += self.waiting
            self.waiting = []
            end += self.pace
            await asyncio.sleep(max(0.0, end - time.monotonic()))
            self.speaking = [one for one in self.speaking if one.paused or one.speak()]

    def take(self, answer: "Answer") -> None:
        self.waiting.append(answer)
        self.woken.set()


class Answer:
    """One answer on its way."""

    def __init__(self, connection: "Connection", tokens: int, stream: bool) -> None:
        self.connection = connection
        self.tokens = tokens
        self.stream = stream
        self.said = 0

    @property
    def paused(self) -> bool:
        return self.connection.paused

    def speak(self) -> bool:
        """Say one token; False: that was the last, or nobody listens any more."""
        transport = self.connection.transport
        if self.connection.gone:
            return False
        self.said += 1
        over = self.said >= self.tokens
        if self.stream:
            data = HEAD + FIRST if self.said == 1 else NEXT[self.said & 7]
            transport.write(data + LAST if over else data)
        elif over:
            transport.write(_whole(self.tokens))
        return not over


def _whole(tokens: int) -> bytes:
    value = {
        "id": "chatcmpl-simulated",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "system_fingerprint": FINGERPRINT,
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": " ".join(WORDS[place & 7] for place in range(tokens)),
                },
                "finish_reason": "length",
            }
        ],
        "usage": {"prompt_tokens": 8, "completion_tokens": tokens, "total_tokens": tokens + 8},
    }
    return _json(value)


def _json(value: object) -> bytes:
    body = json.dumps(value, separators=(",", ":")).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
        len(body),
        body,
    )


class Connection(asyncio.Protocol):
    """One HTTP connection, one request after the other."""

    transport: asyncio.Transport

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.paused = False
        self.gone = False
        self.parser = httptools.HttpRequestParser(self)
        self.url = b""
        self.body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own is no subclass of it

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone, self.paused = True, False
        self.engine.woken.set()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.engine.woken.set()

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.url, self.body = b"", []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        path = self.url.partition(b"?")[0]
        if path == b"/v1/chat/completions":
            asked = json.loads(b"".join(self.body))
            tokens = asked.get("max_tokens") or asked.get("max_completion_tokens") or 16
            self.engine.take(Answer(self, int(tokens), bool(asked.get("stream"))))
        elif path == b"/v1/models":
            self.transport.write(_json({"object": "list", "data": [{"id": MODEL, "object": "model"}]}))
        else:  # health, and what a router asks a worker about itself
            self.transport.write(
                _json({"status": "ok", "model_id": MODEL, "model_path": MODEL, "simulated": True})
            )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pace", type=float, default=0.02, help="seconds a token; 0: as fast as it can")
    args = parser.parse_args()
    engine = Engine(args.pace)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(engine), "127.0.0.1", args.port, backlog=4096)
    gc.freeze()
    print("ready", flush=True)
    async with server:
        await engine.serve()


if __name__ == "__main__":
    uvloop.run(main())
