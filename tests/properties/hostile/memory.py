"""The KV blocks that an engine really has: each is written by a live claim, or a prefix block that was kept.

A claim that is live writes its own blocks one by one. The whole blocks of a prompt can be hit by others once
they are read, and outlive the claim that wrote them. When a block is needed and none is empty, a kept one
that no claim uses is evicted, the longest unused first. That there always is one is what the whole account is
for: where only pinned blocks are left, a claim was accepted without room for it, and the test fails.
"""

from collections.abc import Callable, Iterable

from diplex_core.resident import Resident
from diplex_core.words import BlockHash, Blocks, Claim


class PinnedWouldBeEvicted(AssertionError):
    """A claim that was accepted needs a block, and only blocks that live claims use are left."""


class Memory:
    """One engine's blocks.

    Args:
        capacity: without the guard: that part is the engine's own.
        resident: the worker's account of who uses which prefix block; told of what is kept and evicted.
        changed: called with a block and whether it is resident now.
    """

    def __init__(
        self, capacity: Blocks, resident: Resident, changed: Callable[[BlockHash, bool], None]
    ) -> None:
        self.capacity = capacity
        self.evicted = 0
        self._resident = resident
        self._changed = changed
        self._written: dict[Claim, Blocks] = {}
        self._writer: dict[BlockHash, Claim | None] = {}  # None: it outlived its writer. In order of use
        self._whose: dict[BlockHash, int] = {}

    @property
    def kept(self) -> Blocks:
        """Prefix blocks that outlived their writers."""
        return sum(1 for writer in self._writer.values() if writer is None)

    @property
    def occupied(self) -> Blocks:
        return sum(self._written.values()) + self.kept

    @property
    def blocks(self) -> list[BlockHash]:
        return list(self._writer)

    def write(self, claim: Claim, blocks: Blocks) -> None:
        """A live claim has this many blocks of its own filled now.

        Raises:
            PinnedWouldBeEvicted: there is no block left that may be taken.
        """
        more = blocks - self._written.get(claim, 0)
        if more <= 0:
            return
        short = self.occupied + more - self.capacity
        for _ in range(short):
            self._evict_one()
        self._written[claim] = blocks

    def use(self, hits: Iterable[BlockHash], whose: int) -> None:
        """These were hit: they are evicted later than others.

        Args:
            whose: the salt of the tenant that hits them. Nobody hits what another keeps to itself.
        """
        for block in hits:
            assert self._whose[block] == whose, f"block {block} of {self._whose[block]} is hit by {whose}"
            self._writer[block] = self._writer.pop(block)

    def keep(self, claim: Claim, hashes: Iterable[BlockHash], whose: int) -> None:
        """Blocks that this claim has written can be hit from now on, where they cannot already."""
        for block in hashes:
            if block not in self._writer:
                self._writer[block] = claim
                self._whose[block] = whose
                self._changed(block, True)

    def free(self, claim: Claim) -> None:
        """The claim is over: what others can hit stays, the rest is empty."""
        self._written.pop(claim, None)
        for block, writer in self._writer.items():
            if writer == claim:
                self._writer[block] = None

    def _evict_one(self) -> None:
        for block, writer in self._writer.items():
            if writer is None and not self._resident.users(block):
                del self._writer[block]
                self.evicted += 1
                self._changed(block, False)
                return
        raise PinnedWouldBeEvicted(f"{self.occupied} of {self.capacity} blocks are in use and none is free")
