"""Prefix blocks that are resident in one pool, and how many claims use each: pinned, or merely cached.

The router's ledger and the worker's pool count them alike: a block that any claim uses is pinned and counted
once, whoever else uses it; one that nobody uses is cached, may be evicted at any time, and is free.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from diplex_core.words import BlockHash, Blocks


class Kept(Protocol):
    """The blocks that an engine keeps: a set of one's own, or a part of what a router knows of all of them
    (`diplex_core.prefixes`)."""

    def __contains__(self, block: object, /) -> bool: ...
    def __len__(self) -> int: ...
    def take_in(self, hashes: Iterable[BlockHash], /) -> list[BlockHash]:
        """It keeps these too; answers which it did not before."""

    def let_go(self, hashes: Iterable[BlockHash], /) -> list[BlockHash]:
        """It keeps these no longer; answers which it did before."""

    def become(self, hashes: Iterable[BlockHash], /) -> None:
        """It keeps these and no others."""

    def leading(self, hashes: Sequence[BlockHash], /) -> Blocks:
        """How many of a prompt's blocks it keeps before the first that it does not."""


class Alone(set[BlockHash]):
    """A set of one's own."""

    def take_in(self, hashes: Iterable[BlockHash], /) -> list[BlockHash]:
        new = [block for block in dict.fromkeys(hashes) if block not in self]
        self.update(new)
        return new

    def let_go(self, hashes: Iterable[BlockHash], /) -> list[BlockHash]:
        gone = [block for block in dict.fromkeys(hashes) if block in self]
        self.difference_update(gone)
        return gone

    def become(self, hashes: Iterable[BlockHash], /) -> None:
        self.clear()
        self.update(hashes)

    def leading(self, hashes: Sequence[BlockHash], /) -> Blocks:
        return next((at for at, block in enumerate(hashes) if block not in self), len(hashes))


class Resident:
    """Blocks by the chained hash of their prompt's prefix.

    Args:
        kept: which of them the engine keeps; none yet.
    """

    def __init__(self, kept: Kept | None = None) -> None:
        self.kept: Kept = Alone() if kept is None else kept
        self._users: dict[BlockHash, int] = {}  # of blocks in use
        self._leaving: Blocks = 0  # blocks in use here, though the engine says it has evicted them

    def __contains__(self, block: BlockHash) -> bool:
        return block in self.kept

    def __len__(self) -> int:
        return len(self.kept) + self._leaving

    @property
    def pinned(self) -> Blocks:
        """Blocks that at least one claim uses."""
        return len(self._users)

    @property
    def cached(self) -> Blocks:
        return len(self) - self.pinned

    def users(self, block: BlockHash) -> int:
        return self._users.get(block, 0)

    def leading(self, hashes: Sequence[BlockHash]) -> tuple[BlockHash, ...]:
        """The leading blocks of a prompt that can be hit: a prefix ends at its first miss."""
        return tuple(hashes[: self.kept.leading(hashes)])

    def newly_pinned(self, hits: Iterable[BlockHash]) -> Blocks:
        """How many of these nobody uses yet: what one more claim on them would cost."""
        blocks = frozenset(hits)
        return len(blocks) - len(self._users.keys() & blocks)

    def use(self, hits: Iterable[BlockHash]) -> None:
        """One more claim uses each of these."""
        for block in hits:
            users = self._users.get(block, 0)
            self._users[block] = users + 1
            self._leaving += users == 0 and block not in self.kept

    def leave(self, hits: Iterable[BlockHash]) -> None:
        """One claim fewer uses each of these; the last to leave an evicted block takes it along."""
        for block in hits:
            self._users[block] -= 1
            if self._users[block] == 0:
                del self._users[block]
                self._leaving -= block not in self.kept

    def stored(self, hashes: Iterable[BlockHash]) -> None:
        """The engine keeps these from now on."""
        new = self.kept.take_in(hashes)
        if self._leaving:
            self._leaving -= sum(1 for block in new if block in self._users)

    def removed(self, hashes: Iterable[BlockHash]) -> None:
        """The engine evicted these. One that a claim uses stays pinned to its end, but is hit no more."""
        gone = self.kept.let_go(hashes)
        if self._users:
            self._leaving += sum(1 for block in gone if block in self._users)

    def only(self, hashes: Iterable[BlockHash]) -> None:
        """The engine keeps these and no others."""
        self.kept.become(hashes)
        self._leaving = sum(1 for block in self._users if block not in self.kept)
