"""Reads a request's body, up to a limit."""

from typing import Final

from starlette.datastructures import Headers
from starlette.types import Receive

from diplex_rest.openai.errors import ApiError

MOST_BYTES: Final = 64 * 1024 * 1024


class ClientGone(Exception):
    """The client closed its connection before its request was whole: nobody is there to be answered."""


async def read_body(headers: Headers, receive: Receive, most: int = MOST_BYTES) -> bytes:
    """The whole body.

    Raises:
        ApiError: 413, longer than `most` bytes.
        ClientGone: it broke off.
    """
    announced = headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most:
        raise _too_long(most)
    parts: list[bytes] = []
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts.append(message.get("body", b""))
        length += len(parts[-1])
        if length > most:
            raise _too_long(most)
        more = message.get("more_body", False)
    return b"".join(parts)


def _too_long(most: int) -> ApiError:
    message = f"the body is longer than {most} bytes ({most // 2**20} MiB). Mend: a shorter request"
    return ApiError(413, message, code="request_too_large")
