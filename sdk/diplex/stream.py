"""An answer as it comes: an async iterator of chunks that cancels its request when it is left early."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from types import TracebackType
from typing import Final, Self

from diplex.answers import Chunk, Reply, Serving
from diplex.reading import Reading
from diplex.v1 import generation_pb2 as pb
from diplex.wire.request import RequestLife
from diplex.wire.window import Window

AHEAD: Final = 4096
"""Tokens that wait for a reader before its worker is told to stop sending."""


class TokenStream:
    """What `AsyncClient.stream` gives. The request begins with the first use of the stream.

    `async for chunk in stream` reads it to its end; leaving that loop early ends the request, at the worker
    too. `async with` does the same for whatever happens inside. A request that fails raises its DiplexError
    where the next chunk would have come. Tokens that nobody reads wait here, some thousands of them; then at
    the worker, for half a minute, after which the request ends in an error.

    Args:
        start: begins the request for a consumer.
        choices: how many answers (`n`) it has.
        request_id: what to call it while nobody has granted it anything.
    """

    def __init__(self, start: Callable[[Reading], RequestLife], choices: int, request_id: str) -> None:
        self._start = start
        self._choices = choices
        self._request_id = request_id
        self._reading: Reading | None = None
        self._life: RequestLife | None = None
        self._cancelled = False
        self._ready: list[Chunk] = []
        self._handed = 0  # tokens below this index are in chunks

    async def started(self) -> Serving:
        """Who serves the request, once a worker has begun to answer it.

        Raises:
            DiplexError: it ended before that.
        """
        reading = self._begun()
        await asyncio.wait([reading.served])
        if reading.serving is None or (reading.over.done() and self._error(reading)):
            raise self._error(reading) or RuntimeError("the stream was closed before anybody served it")
        return reading.serving

    @property
    def reply(self) -> Reply:
        """The whole answer, once the stream has ended (also early: with what had come by then).

        Raises:
            RuntimeError: it has not ended.
        """
        if self._reading is None or not self._reading.over.done():
            raise RuntimeError("the stream has not ended. Mend: read it to its end, or aclose() it")
        return self._reading.reply(self._request_id)

    def cancel(self) -> None:
        """End the request as soon as may be; what came already can still be read. Never waits."""
        self._cancelled = True
        if self._life is not None and self._reading is not None and not self._reading.over.done():
            self._life.cancel()

    async def aclose(self) -> None:
        """Cancel, and wait until it is over, so that `reply` tells how far it came."""
        self.cancel()
        if self._reading is not None:
            await asyncio.wait([self._reading.over])

    async def __aenter__(self) -> Self:
        self._begun()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncGenerator[Chunk, None]:
        return self._chunks()

    async def _chunks(self) -> AsyncGenerator[Chunk, None]:
        """A generator, because Python closes one whose loop is left early."""
        try:
            while (chunk := await self.next_chunk()) is not None:
                yield chunk
        finally:
            self.cancel()

    async def __anext__(self) -> Chunk:
        chunk = await self.next_chunk()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def next_chunk(self) -> Chunk | None:
        """The next chunk, or `None` at the end.

        Raises:
            DiplexError: the request did not end well.
        """
        if not self._ready:
            reading = self._begun()
            if reading.window is not None:
                reading.window.took(self._handed)
            gathered = await reading.news.gather()
            self._handed = 0 if reading.window is None else reading.window.so_far
            self._ready = [_chunk(tokens, reading.gave_way_at) for tokens in gathered]
            if not self._ready and (error := self._error(reading)):
                raise error
        return self._ready.pop(0) if self._ready else None

    def _begun(self) -> Reading:
        if self._reading is None:
            reading = Reading(self._choices, streamed=True)
            self._life = self._start(reading)
            self._reading = reading
            reading.window = Window(AHEAD, self._life.window)
        return self._reading

    def _error(self, reading: Reading) -> Exception | None:
        return reading.error(cancelled_by_caller=self._cancelled)


def _chunk(tokens: pb.Tokens, gave_way_at: Sequence[int]) -> Chunk:
    """Everything of one choice that gathered."""
    behind = tokens.index + tokens.count
    return Chunk(
        tokens.text,
        tuple(tokens.ids[:]),
        tokens.choice,
        tokens.index,
        tokens.count,
        sum(1 for index in gave_way_at if index < behind),
    )
