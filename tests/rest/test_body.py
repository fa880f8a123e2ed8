"""Reading a request's body."""

import json
import threading
from typing import Any

import pytest
from starlette.datastructures import Headers

from diplex.options import prompt_of
from diplex_rest.body import ClientGone, Reader, read_body
from diplex_rest.openai.errors import ApiError
from diplex_rest.openai.request import Call, read_chat


class Arriving:
    """A connection that brings these pieces, then closes."""

    def __init__(self, *pieces: bytes, whole: bool = True) -> None:
        last = len(pieces) - 1
        self.messages: list[Any] = [
            {"type": "http.request", "body": piece, "more_body": place < last or not whole}
            for place, piece in enumerate(pieces)
        ]

    async def receive(self) -> Any:
        return self.messages.pop(0) if self.messages else {"type": "http.disconnect"}


async def test_a_body_may_come_in_pieces():
    assert await read_body(Headers(), Arriving(b"ab", b"", b"c").receive) == b"abc"


async def test_a_body_of_exactly_the_limit_is_taken():
    assert await read_body(Headers({"content-length": "3"}), Arriving(b"abc").receive, 3) == b"abc"


async def test_a_longer_body_is_refused_before_it_is_read():
    arriving = Arriving(b"abcd")
    with pytest.raises(ApiError, match="longer than 3 bytes") as refused:
        await read_body(Headers({"content-length": "4"}), arriving.receive, 3)
    assert refused.value.status == 413 and len(arriving.messages) == 1


@pytest.mark.parametrize("announced", [{}, {"content-length": "1"}, {"content-length": "-9"}])
async def test_a_body_that_announced_less_is_refused_when_it_passes_the_limit(announced: dict[str, str]):
    arriving = Arriving(b"ab", b"cd", b"ef")
    with pytest.raises(ApiError, match="longer than 3 bytes"):
        await read_body(Headers(announced), arriving.receive, 3)
    assert len(arriving.messages) == 1


async def test_a_client_that_breaks_off_is_gone():
    with pytest.raises(ClientGone):
        await read_body(Headers(), Arriving(b"ab", whole=False).receive)


def chat(content: str) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": content}]}, ensure_ascii=False).encode()


@pytest.mark.parametrize("content", ["short", "ünïcödé, " * 20_000])
async def test_a_long_body_is_read_in_a_thread_and_asks_for_the_same(content: str):
    threads: list[str] = []

    def read(data: bytes) -> Call:
        threads.append(threading.current_thread().name.partition("_")[0])
        return read_chat(data)

    with Reader() as reader:
        call = await reader.call(chat(content), read)
    assert threads == [("MainThread" if content == "short" else "diplex-bodies")]
    assert prompt_of(None, call.options) == prompt_of(None, read_chat(chat(content)).options)


async def test_what_is_wrong_with_a_long_body_is_told_as_of_a_short_one():
    with Reader() as reader:
        for body in (b"{", chat("x" * 100_000)[:-1]):
            with pytest.raises(ApiError, match="the body is no JSON"):
                await reader.call(body, read_chat)
