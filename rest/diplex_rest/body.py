"""Reads a request's body, up to a limit, and lets no long one stop the others."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

from starlette.datastructures import Headers
from starlette.types import Receive

from diplex.options import as_json
from diplex_rest.openai.errors import ApiError
from diplex_rest.openai.request import Call

_AT_ONCE: Final = 32 * 1024
"""Bytes that are read in half a millisecond: no need to go to a thread."""
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


class Reader:
    """Makes calls of bodies; long ones in a thread, used inside `with`.

    It is one thread, because reading JSON is all computing: two would only take the interpreter from the loop
    more often. A megabyte is some milliseconds of it at a time, and the loop runs between them.
    """

    def __enter__(self) -> Self:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="diplex-bodies")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def call(self, data: bytes, read: Callable[[bytes], Call]) -> Call:
        """What a body asks for.

        Raises:
            ApiError: 400, as `read` raises it.
        """
        if len(data) <= _AT_ONCE:
            return read(data)
        return await asyncio.get_running_loop().run_in_executor(self._thread, _ready_to_send, data, read)


def _ready_to_send(data: bytes, read: Callable[[bytes], Call]) -> Call:
    """A call whose messages are written already as they travel: that takes as long as reading them."""
    call = read(data)
    messages = call.options.get("messages")
    return (
        call if messages is None else replace(call, options={**call.options, "messages": as_json(messages)})
    )
