"""An outbox that gathers while its reader is away: coalescing under back-pressure, never by a timer.

A writer of a stream takes everything that was put since it last looked, and sends it as one message. While
that write waits for the transport the next message gathers by itself; a transport that keeps up gets each
item at once. A put costs a list append, and only the first after an empty outbox wakes the writer.

Tokens that gather are joined: a choice's become one message, whatever their number.
"""

import asyncio
from collections.abc import Sequence
from typing import Generic, TypeVar

from diplex.v1 import generation_pb2 as pb

T = TypeVar("T")


class Outbox(Generic[T]):
    """Many putters, one gatherer, all on one event loop; items come out in the order they were put."""

    def __init__(self) -> None:
        self._items: list[T] = []
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    @property
    def closed(self) -> bool:
        return self._closed

    def put(self, item: T) -> None:
        """Add an item. Never blocks; after `close` the item is dropped, since nobody will gather it."""
        if not self._closed:
            self._items.append(item)
            self._wake()

    async def gather(self) -> list[T]:
        """Everything put since the last gather, waiting for the first item while there is none.

        Returns:
            At least one item; none only when the outbox is closed and empty.
        Raises:
            RuntimeError: somebody waits here already.
        """
        while not self._items and not self._closed:
            if self._waiter is not None:
                raise RuntimeError("an Outbox has one gatherer, and this is a second one")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        items, self._items = self._items, []
        return items

    def close(self) -> None:
        """Nothing more comes: what is in here may still be gathered, then gathers return nothing."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def join(entry: pb.Tokens, count: int, ids: Sequence[int], text: str) -> None:
    """Add to tokens of a choice those that come behind them.

    Args:
        ids: `count` many, or none: where the engine told only some of them, none are better than a hole.
    """
    if len(entry.ids) + len(ids) not in (0, entry.count + count):
        del entry.ids[:]
        ids = ()
    entry.count += count
    entry.ids.extend(ids)
    entry.text += text


class TokenOutbox(Outbox[T | pb.Tokens]):
    """An outbox of one request, in which at most one message of tokens a choice waits."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: dict[int, pb.Tokens] = {}

    def put_tokens(self, tokens: pb.Tokens) -> None:
        """Add tokens, which continue those put before. What waits is added to: nobody else may hold it."""
        waiting = self._waiting.get(tokens.choice)
        if waiting is None:
            self._waiting[tokens.choice] = tokens
            self.put(tokens)
        else:
            join(waiting, tokens.count, tokens.ids[:], tokens.text)

    async def gather(self) -> list[T | pb.Tokens]:
        items = await super().gather()
        self._waiting.clear()
        return items
