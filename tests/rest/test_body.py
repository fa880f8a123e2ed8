"""Reading a request's body."""

from typing import Any

import pytest
from starlette.datastructures import Headers

from diplex_rest.body import ClientGone, read_body
from diplex_rest.openai.errors import ApiError


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
