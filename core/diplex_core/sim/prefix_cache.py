"""What a simulated engine keeps of the prompts that it has read, and gives up when it needs the room.

A prompt's whole blocks can be hit from its first token on, as in engines that store context blocks once they
are computed. While their request runs they lie among its own blocks; then they stay behind, as long as nobody
needs the room. The least recently used goes first, and of one prompt the last block before the first: what is
left is always a prefix.
"""

from collections.abc import Sequence

from diplex_core.pool import Pool
from diplex_core.words import BlockHash, Blocks


class PrefixCache:
    """The resident prefix blocks of one pool.

    Attributes:
        kept: all of them.
    """

    def __init__(self, pool: Pool) -> None:
        self.kept: set[BlockHash] = set()
        self._pool = pool
        self._stored: list[BlockHash] = []  # what a router has not been told yet
        self._removed: list[BlockHash] = []
        self._owned: dict[BlockHash, int] = {}  # by how many requests, as blocks of their own
        self._idle: dict[BlockHash, None] = {}  # used by nobody, the longest unused first

    @property
    def idle(self) -> Blocks:
        """Blocks that may be evicted."""
        return len(self._idle)

    def took(self, hits: Sequence[BlockHash]) -> None:
        """A request was taken on that uses these: nobody may evict them, and its own blocks need room."""
        idle = self._idle
        if idle:
            for block in hits:
                idle.pop(block, None)
            self.make_room()

    def make_room(self) -> None:
        """The pool's claims hold more than before: the room for that is taken from what nobody uses."""
        idle = self._idle
        room = self._pool.capacity - self._pool.used_blocks - self._pool.resident.pinned
        if len(idle) <= room:
            return
        evicted = [block for block, _ in zip(idle, range(len(idle) - room), strict=False)]
        for block in evicted:
            del idle[block]
        self._pool.resident.removed(evicted)
        self.kept.difference_update(evicted)
        self._removed += evicted

    def read(self, own: Sequence[BlockHash]) -> None:
        """A prompt is read: these of its blocks it read itself, and whoever comes now can hit them."""
        if not own:
            return
        owned, idle = self._owned, self._idle
        new = [block for block in own if block not in self.kept]
        for block in own:
            owned[block] = owned.get(block, 0) + 1
            idle.pop(block, None)
        self._pool.resident.stored(new)
        self.kept.update(new)
        self._stored += new

    def left(self, hits: Sequence[BlockHash], own: Sequence[BlockHash]) -> None:
        """A request is over, and its pool's claim released: what nobody else uses is idle from now on."""
        owned, idle, resident = self._owned, self._idle, self._pool.resident
        for block in reversed(own):
            others = owned[block] - 1
            if others:
                owned[block] = others
            else:
                del owned[block]
                if not resident.users(block):
                    idle[block] = None
        for block in reversed(hits):
            if block not in owned and not resident.users(block):
                idle[block] = None

    def news(self) -> tuple[tuple[BlockHash, ...], tuple[BlockHash, ...]]:
        """What was stored and what was removed since this was last asked."""
        if not self._stored and not self._removed:
            return (), ()
        stored, removed = tuple(self._stored), tuple(self._removed)
        self._stored, self._removed = [], []
        return stored, removed
