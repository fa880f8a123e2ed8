"""Follows what an engine says of the prefix blocks that it keeps, and notices when that cannot be believed.

Engines publish such events as they go (stored, removed, all cleared), numbered, over a line that may lose
some, repeat some, or begin anew with the engine. A hole in the numbers means that something is resident, or
is not, and nobody here knows. So from a hole on nothing is taken over, and routers are told why, until the
missing events come after all, in their order, or the engine lists everything that it keeps.

    number due ──▶ taken over
    number below ──▶ a repeat: passed over
    number above ──▶ a hole: `problem`, until it is filled or a listing comes
    lost ──▶ nobody says anything any more: `problem`, until the event that is due comes after all
    higher epoch ──▶ the engine began anew: known again from its first event on, or from a listing
    other block size ──▶ its blocks are not those that the pool is counted in: `problem`, until that is right
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from diplex_core.words import BlockHash, Tokens

FIRST: Final = 1
"""The number of an engine's first event."""


@dataclass(frozen=True, slots=True)
class BlockEvent:
    """One event of an engine.

    Attributes:
        epoch: from 0 up, higher with each start of the engine.
        number: counts its events from `FIRST` on.
        block_tokens: tokens of each block that it names.
        stored, removed: as they are behind the event; no block is in both.
        listing: `stored` is all that it keeps; an engine that cleared its cache lists nothing.
        lost: why nothing that it says can be believed until it speaks again, for people; then it is no event.
    """

    epoch: int
    number: int
    block_tokens: Tokens
    stored: tuple[BlockHash, ...] = ()
    removed: tuple[BlockHash, ...] = ()
    listing: bool = False
    lost: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """What an event changed of what is known to be kept."""

    stored: tuple[BlockHash, ...] = ()
    removed: tuple[BlockHash, ...] = ()


NOTHING: Final = Change()


class Residency:
    """The prefix blocks of one engine, as far as its events tell.

    Args:
        block_tokens: tokens of a block in which the pool is counted.
    Attributes:
        kept: blocks that it keeps, as of the last event that could be believed.
        problem: why `kept` is not to be believed now, for people; empty: it is.
    """

    def __init__(self, block_tokens: Tokens) -> None:
        self.kept: set[BlockHash] = set()
        self.problem = "its engine has told nothing of its prefix blocks yet"
        self._block_tokens = block_tokens
        self._epoch = -1
        self._due = FIRST
        self._latest = 0  # the highest number seen in this epoch

    def take(self, event: BlockEvent) -> Change:
        """Take an event in; answers what it changed."""
        if event.lost:
            self.problem = event.lost
            return NOTHING
        if event.block_tokens != self._block_tokens:
            self.problem = (
                f"its engine's blocks have {event.block_tokens} tokens, the pool's {self._block_tokens}"
            )
            return NOTHING
        if event.epoch < self._epoch:
            return NOTHING
        forgotten: Iterable[BlockHash] = ()
        if event.epoch != self._epoch:
            forgotten, self.kept = self.kept, set()
            self._epoch, self._due, self._latest = event.epoch, FIRST, 0
        self._latest = max(self._latest, event.number)
        if event.listing:
            return self._list(event, forgotten)
        if event.number > self._due:
            missing = event.number - self._due
            self.problem = f"{missing} of its engine's events are missing, from number {self._due} on"
        if event.number != self._due:
            return Change(removed=tuple(forgotten))
        self._due += 1
        removed = [block for block in dict.fromkeys(event.removed) if block in self.kept]
        self.kept.difference_update(removed)
        stored = [block for block in dict.fromkeys(event.stored) if block not in self.kept]
        self.kept.update(stored)
        self._caught_up()
        return Change(tuple(stored), (*(block for block in forgotten if block not in self.kept), *removed))

    def _list(self, event: BlockEvent, forgotten: Iterable[BlockHash]) -> Change:
        """All that it keeps. One that is older than what is known already is a repeat."""
        before = self.kept | set(forgotten)
        if event.number < self._due:
            return Change(removed=tuple(forgotten))
        self.kept = set(event.stored)
        self._due = event.number + 1
        self._caught_up()
        return Change(tuple(self.kept - before), tuple(before - self.kept))

    def _caught_up(self) -> None:
        if self._due > self._latest:
            self.problem = ""
