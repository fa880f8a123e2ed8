"""The worker's side of the arithmetic: take a claim on or refuse it. What it holds is the truth.

The router's ledger is a view of pools like this one. Any number of routers may hand out grants on a
worker; because the worker itself refuses what its pool cannot hold, none of them can over-commit it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from diplex_core.resident import Resident
from diplex_core.words import BlockHash, Blocks, Claim, Slots


@dataclass(frozen=True, slots=True)
class NoRoom:
    """The pool cannot hold the claim now: what it needs of its own, and what is free for that.

    Attributes:
        needed_blocks: what was to be hit and is not resident included.
        missing: how many blocks that is.
    """

    needed_blocks: Blocks
    free_blocks: Blocks
    needed_slots: Slots
    free_slots: Slots
    missing: Blocks = 0

    def __str__(self) -> str:
        if self.missing:
            return f"needs {self.needed_blocks} KV blocks, {self.missing} it counts on are not cached"
        if self.needed_blocks > self.free_blocks:
            return f"needs {self.needed_blocks} KV blocks, {self.free_blocks} are free"
        return f"needs {self.needed_slots} sequence slots, {self.free_slots} are free"


@dataclass(slots=True)
class Holding:
    """What one claim holds, and for which router ("" for a request that came without a grant).

    `blocks` are its own; `hits` are resident prefix blocks that it uses beside them, maybe with others.
    """

    blocks: Blocks
    slots: Slots
    owner: str
    hits: frozenset[BlockHash] = frozenset()


class Pool:
    """KV blocks and sequence slots of one engine.

    Invariant: held + pinned + guard <= capacity on the axis of blocks, held <= capacity on that of slots.
    Pinned are the resident prefix blocks that any claim uses, each counted once. Cached ones are used by
    nobody and free: the engine evicts them when it needs their room, and never a pinned one.

    Args:
        capacity: blocks that the engine's KV cache has.
        slots: sequences that the engine runs at once.
        guard: blocks that are never promised; larger for an engine whose own account is only a gauge.
    """

    def __init__(self, capacity: Blocks, slots: Slots, guard: Blocks = 0) -> None:
        if not 0 <= guard <= capacity:
            raise ValueError(f"a guard of {guard} blocks does not lie within a pool of {capacity}")
        self.capacity = capacity
        self.slots = slots
        self.guard = guard
        self.resident = Resident()
        self.used_blocks: Blocks = 0
        self.used_slots: Slots = 0
        self.peak_blocks: Blocks = 0
        self.peak_slots: Slots = 0
        self._held: dict[Claim, Holding] = {}

    @property
    def free_blocks(self) -> Blocks:
        return self.capacity - self.guard - self.used_blocks - self.resident.pinned

    @property
    def free_slots(self) -> Slots:
        return self.slots - self.used_slots

    def holding(self, claim: Claim) -> Holding | None:
        return self._held.get(claim)

    def take(
        self, claim: Claim, blocks: Blocks, slots: Slots, owner: str, hits: Iterable[BlockHash] = ()
    ) -> NoRoom | None:
        """Hold blocks and slots for a claim, or say why not; a refusal changes nothing.

        Args:
            blocks: of its own, beside what it hits.
            hits: the leading blocks of its prompt that its grant counts on finding resident.
        Raises:
            ValueError: the claim is held already, or a size is negative.
        """
        if claim in self._held:
            raise ValueError(f"claim {claim} is held already")
        if blocks < 0 or slots < 0:
            raise ValueError(f"claim {claim} asks for {blocks} blocks and {slots} slots")
        counted_on = tuple(hits)
        missing = len(counted_on) - len(self.resident.leading(counted_on))
        if missing:  # what is to be read that was not counted needs blocks of its own
            return NoRoom(blocks + missing, self.free_blocks, slots, self.free_slots, missing)
        free = self.free_blocks - self.resident.newly_pinned(counted_on)
        if blocks > free or slots > self.free_slots:
            return NoRoom(blocks, max(0, free), slots, self.free_slots)
        holding = self._held[claim] = Holding(blocks, slots, owner, frozenset(counted_on))
        self.resident.use(holding.hits)
        self.used_blocks += blocks
        self.used_slots += slots
        self._note_peaks()
        return None

    def resize(self, claim: Claim, blocks: Blocks) -> NoRoom | None:
        """Give a held claim a new whole size, or leave it as it is and say why not.

        Raises:
            KeyError: the claim is not held.
        """
        holding = self._held[claim]
        more = blocks - holding.blocks
        if more > self.free_blocks:
            return NoRoom(more, self.free_blocks, 0, self.free_slots)
        holding.blocks = blocks
        self.used_blocks += more
        self._note_peaks()
        return None

    def release(self, claim: Claim) -> Holding | None:
        """Free what a claim holds. Doing it twice, or for a claim that was never held, does nothing."""
        holding = self._held.pop(claim, None)
        if holding is not None:
            self.used_blocks -= holding.blocks
            self.used_slots -= holding.slots
            self.resident.leave(holding.hits)
        return holding

    def held_by_others(self, owner: str) -> tuple[Blocks, Slots]:
        """Blocks and slots that are held, but not for this router: what it reads as foreign."""
        others = [h for h in self._held.values() if h.owner != owner]
        return sum(h.blocks for h in others), sum(h.slots for h in others)

    def _note_peaks(self) -> None:
        self.peak_blocks = max(self.peak_blocks, self.used_blocks + self.resident.pinned)
        self.peak_slots = max(self.peak_slots, self.used_slots)
