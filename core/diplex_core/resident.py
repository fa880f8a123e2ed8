"""Prefix blocks that are resident in one pool, and how many claims use each: pinned, or merely cached.

The router's ledger and the worker's pool count them alike: a block that any claim uses is pinned and counted
once, whoever else uses it; one that nobody uses is cached, may be evicted at any time, and is free.
"""

from collections.abc import Iterable

from diplex_core.words import BlockHash, Blocks


class Resident:
    """Blocks by the chained hash of their prompt's prefix.

    Attributes:
        pinned: blocks that at least one claim uses.
    """

    def __init__(self) -> None:
        self.pinned: Blocks = 0
        self._users: dict[BlockHash, int] = {}
        self._leaving: set[BlockHash] = set()  # in use here, though the engine says it has evicted them

    def __contains__(self, block: BlockHash) -> bool:
        return block in self._users and block not in self._leaving

    def __len__(self) -> int:
        return len(self._users)

    @property
    def cached(self) -> Blocks:
        return len(self._users) - self.pinned

    def users(self, block: BlockHash) -> int:
        return self._users.get(block, 0)

    def leading(self, hashes: Iterable[BlockHash]) -> tuple[BlockHash, ...]:
        """The leading blocks of a prompt that can be hit: a prefix ends at its first miss."""
        found = []
        for block in hashes:
            if block not in self:
                break
            found.append(block)
        return tuple(found)

    def newly_pinned(self, hits: Iterable[BlockHash]) -> Blocks:
        """How many of these nobody uses yet: what one more claim on them would cost."""
        return sum(1 for block in set(hits) if not self._users.get(block, 0))

    def use(self, hits: Iterable[BlockHash]) -> None:
        """One more claim uses each of these."""
        for block in hits:
            users = self._users.get(block, 0)
            self._users[block] = users + 1
            self.pinned += users == 0

    def leave(self, hits: Iterable[BlockHash]) -> None:
        """One claim fewer uses each of these; the last to leave an evicted block takes it along."""
        for block in hits:
            self._users[block] -= 1
            if self._users[block] == 0:
                self.pinned -= 1
                if block in self._leaving:
                    self._leaving.remove(block)
                    del self._users[block]

    def stored(self, hashes: Iterable[BlockHash]) -> None:
        """The engine keeps these from now on."""
        for block in hashes:
            self._users.setdefault(block, 0)
            self._leaving.discard(block)

    def removed(self, hashes: Iterable[BlockHash]) -> None:
        """The engine evicted these. One that a claim uses stays pinned to its end, but is hit no more."""
        for block in hashes:
            if self._users.get(block) == 0:
                del self._users[block]
            elif block in self._users:
                self._leaving.add(block)

    def only(self, hashes: Iterable[BlockHash]) -> None:
        """The engine keeps these and no others."""
        kept = set(hashes)
        self.removed([block for block in self._users if block not in kept])
        self.stored(kept)
