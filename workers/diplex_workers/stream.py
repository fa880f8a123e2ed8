"""The sending end of one client's stream: what there is to say gathers in a frame until the writer takes it.

All of an engine iteration is said before the writer wakes, so it goes out as one frame. While a write waits
for the transport the next frame gathers, a choice's tokens in one entry: coalescing under back-pressure only.
"""

import asyncio
from collections.abc import Sequence as Several
from typing import TYPE_CHECKING

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import worker_pb2
from diplex.wire.coalesce import join

if TYPE_CHECKING:
    from diplex_workers.sequence import Sequence


class TokenStream:
    """One `Worker.Session` or `Generate`, as the desk sees it.

    Attributes:
        sequences: those that have not been told `done`, by the client's number.
        starts_over: the client half-closed; the stream ends with its last sequence.
        broken: the client broke the protocol; the stream ends now.
    """

    def __init__(self) -> None:
        self.sequences: dict[int, Sequence] = {}
        self.starts_over = False
        self.broken = False
        self._frame = worker_pb2.WorkerSessionResponse()
        self._entries: dict[tuple[int, int], pb.Tokens] = {}
        self._empty = True
        self._waiter: asyncio.Future[None] | None = None

    def tokens(self, seq: int, choice: int, index: int, count: int, ids: Several[int], text: str) -> None:
        """Say new tokens of one choice; they continue those said before."""
        entry = self._entries.get((seq, choice))
        if entry is None:
            entry = self._entries[seq, choice] = self._frame.tokens.add(
                seq=seq, choice=choice, index=index, count=count, ids=ids, text=text
            )
            if self._empty:
                self._empty = False
                self._wake()
            return
        join(entry, count, ids, text)

    def done(self, done: pb.Done) -> None:
        """Say a sequence's last word."""
        self._frame.done.append(done)
        self.sequences.pop(done.seq, None)
        self._empty = False
        self._wake()

    def half_close(self) -> None:
        self.starts_over = True
        self._wake()

    def break_off(self) -> None:
        """It ends with what was said so far, whatever still runs on it."""
        self.broken = True
        self._wake()

    async def frame(self) -> worker_pb2.WorkerSessionResponse | None:
        """Everything said since the last call, waiting for a first word; `None` after the last."""
        while (frame := self.take()) is None:
            if self.broken or (self.starts_over and not self.sequences):
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return frame

    def take(self) -> worker_pb2.WorkerSessionResponse | None:
        """Everything said since the last call, if that is anything."""
        if self._empty:
            return None
        frame, self._frame = self._frame, worker_pb2.WorkerSessionResponse()
        self._entries = {}
        self._empty = True
        return frame

    def _wake(self) -> None:
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_result(None)
            self._waiter = None
