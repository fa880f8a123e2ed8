"""The router's account of one pool: what each claim is charged, and what is free to promise.

Three axes: KV blocks, sequence slots, and prefill tokens in flight (a prompt's, until its first token is
out). On each of them, always and under any order of events:

    reserved + pinned + reclaiming + guard <= capacity

reserved    what live claims hold for themselves
pinned      resident prefix blocks that a live claim uses, each counted once: the first claim that hits
            a block pays for it, the last to leave releases it
reclaiming  claims that the router wants back and the worker has not yet confirmed free
wanted      blocks by which claims wait to grow: free, but promised to no newcomer
guard       never promised
cached      resident and held by nobody: reusable, evictable, and therefore free
foreign     held by others (other routers, open requests), as the worker reports; lowers what is free,
            never below zero, and stands outside the invariant, which binds this router's own claims

The invariant over everybody is the worker's own (`diplex_core.pool`). Claims are freed by key: freeing
one twice does nothing.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

from diplex_core.pins import Pins, Run
from diplex_core.resident import Alone, Kept
from diplex_core.words import BlockHash, Blocks, Claim, Seconds, Slots, Tokens

UNBOUNDED: Final = 2**62
"""The capacity of an axis that nothing bounds: engines queue prompts without a limit."""


class OverCommitted(ValueError):
    """A charge would have broken the invariant: the caller did not ask `fits` first."""


@dataclass(slots=True)
class Charge:
    """What one claim is charged.

    Attributes:
        said: blocks that the worker has said that it holds for it; `None`: it has not said so yet.
        raising: the number of a raise to `blocks` that is not answered yet; 0: none. Until then `blocks` may
            be more than `said`.
        gives_way: it is reclaimed in favour of others; its client may ask for it again.
        over: when it is expected to be released; infinite where nobody can tell.
        stray: taken over from a report though no room was left for it in this account, so it is counted like
            foreign.
    """

    blocks: Blocks
    slots: Slots
    prefill: Tokens = 0  # of its prompt; 0 once its first token is out
    pins: Run | None = None  # the last of the prefix blocks that it hits
    said: Blocks | None = None
    raising: int = 0
    reclaiming: bool = False
    gives_way: bool = False
    stray: bool = False
    over: Seconds = inf

    @property
    def hits(self) -> tuple[BlockHash, ...]:
        """The prefix blocks that it uses beside its own."""
        return self.pins.all if self.pins is not None else ()

    @property
    def held(self) -> bool:
        """The worker has said that it holds it."""
        return self.said is not None


@dataclass(slots=True)
class Axis:
    """Sums over all charges on one axis."""

    capacity: int
    guard: int = 0
    reserved: int = 0
    reclaiming: int = 0
    pinned: int = 0
    stray: int = 0
    returning: int = 0  # of `stray`, what the router wants back
    foreign: int = 0
    peak: int = 0

    @property
    def own(self) -> int:
        """The left side of the invariant."""
        return self.reserved + self.pinned + self.reclaiming + self.guard

    @property
    def free(self) -> int:
        held = self.reserved + self.pinned + self.reclaiming + self.guard + self.stray + self.foreign
        return self.capacity - held if held < self.capacity else 0

    def lacks(self, more: int) -> int:
        """What is missing for so many more, once all that the router wants back is there; negative: spare."""
        held = self.reserved + self.pinned + self.guard + self.stray - self.returning + self.foreign
        return held + more - self.capacity

    @property
    def used(self) -> int:
        """By anybody, as far as this account knows."""
        return self.reserved + self.pinned + self.reclaiming + self.stray + self.foreign

    def move(self, charge: Charge, amount: int) -> None:
        """Add `amount` (negative: take away) to the sum in which this charge is counted."""
        if charge.stray:
            self.stray += amount
            if charge.reclaiming:
                self.returning += amount
        elif charge.reclaiming:
            self.reclaiming += amount
        else:
            self.reserved += amount
        if amount > 0:
            held = self.reserved + self.pinned + self.reclaiming
            if held > self.peak:
                self.peak = held


class PoolLedger:
    """The account of one worker's pool, from one of its starts (`boot`) to the next.

    Attributes:
        held_blocks: what its worker has said that it holds for this router.
        wanted: blocks by which claims wait to grow.
        changes: counts whatever changed in what is charged.
    """

    def __init__(self, capacity: Blocks, slots: Slots, guard: Blocks = 0, kept: Kept | None = None) -> None:
        self.blocks = Axis(capacity, guard)
        self.slots = Axis(slots)
        self.prefill = Axis(UNBOUNDED)
        self.observed: Blocks | None = None  # a figure that did not arrive is unknown, never zero
        self.held_blocks: Blocks = 0
        self.wanted: Blocks = 0
        self.changes = 0
        self._charges: dict[Claim, Charge] = {}
        self._kept: Kept = Alone() if kept is None else kept
        self._pins = Pins()

    def __len__(self) -> int:
        return len(self._charges)

    def __contains__(self, claim: Claim) -> bool:
        return claim in self._charges

    def charge_of(self, claim: Claim) -> Charge | None:
        return self._charges.get(claim)

    def charges(self) -> Collection[Charge]:
        """Of all claims, in no order."""
        return self._charges.values()

    def claims(self) -> list[Claim]:
        return list(self._charges)

    def missing(self, claims: Collection[Claim]) -> list[Claim]:
        """Those that are charged and not among these."""
        return [claim for claim in self._charges if claim not in claims]

    @property
    def cached(self) -> Blocks:
        """Resident blocks that nobody uses; fewer than there are while some in use are evicted."""
        return max(0, len(self._kept) - self._pins.blocks)

    def leading(self, hashes: Sequence[BlockHash]) -> Blocks:
        """How many of a prompt's first blocks are resident here: a prefix ends at its first miss."""
        return self._kept.leading(hashes)

    @property
    def open_blocks(self) -> Blocks:
        """Blocks that a newcomer may be promised: those who wait to grow come first."""
        blocks = self.blocks
        held = (
            blocks.reserved + blocks.pinned + blocks.reclaiming + blocks.guard + blocks.stray + blocks.foreign
        )
        free = blocks.capacity - held - self.wanted
        return free if free > 0 else 0

    @property
    def room(self) -> float:
        """The share of the pool that is open to newcomers, on the scarcer of blocks and slots."""
        slots, free_blocks, free_slots = self.slots, self.open_blocks, self.slots.free
        if not free_blocks or not free_slots:
            return 0.0
        of_blocks, of_slots = free_blocks / self.blocks.capacity, free_slots / slots.capacity
        return of_blocks if of_blocks < of_slots else of_slots

    @property
    def axes(self) -> tuple[Axis, Axis, Axis]:
        return self.blocks, self.slots, self.prefill

    def fits(self, blocks: Blocks, slots: Slots, hits: Sequence[BlockHash] = ()) -> bool:
        """Whether a newcomer has room."""
        pinned = self._pins.new(hits) if hits else 0
        return blocks + pinned <= self.open_blocks and slots <= self.slots.free

    def charge(
        self,
        claim: Claim,
        blocks: Blocks,
        slots: Slots,
        hits: Sequence[BlockHash] = (),
        prefill: Tokens = 0,
        over: Seconds = inf,
    ) -> None:
        """Charge a new claim for blocks of its own, slots, the resident blocks that it hits, and the prompt
        tokens that are to be read for it.

        Raises:
            OverCommitted: it does not fit.
            ValueError: the claim is charged already.
        """
        if claim in self._charges:
            raise ValueError(f"claim {claim} is charged already")
        if not self.fits(blocks, slots, hits):
            raise OverCommitted(
                f"claim {claim} needs {blocks} blocks and {slots} slots; "
                f"{self.open_blocks} and {self.slots.free} are free"
            )
        charge = self._charges[claim] = Charge(blocks, slots, prefill, over=over)
        if hits:
            charge.pins = self._pins.use(hits)
            self.blocks.pinned = self._pins.blocks
        self._count(charge, 1)

    def adopt(self, claim: Claim, blocks: Blocks, slots: Slots, prefill: Tokens = 0) -> None:
        """Take over a claim that the worker says it holds. Never refuses: the worker is the authority."""
        stray = (
            blocks + self.blocks.own > self.blocks.capacity or slots + self.slots.own > self.slots.capacity
        )
        charge = self._charges[claim] = Charge(blocks, slots, prefill, said=blocks, stray=stray)
        self.held_blocks += blocks
        self._count(charge, 1)

    def grow(self, claim: Claim, blocks: Blocks, number: int) -> None:
        """Raise a claim to a whole size; it counts from now on, whatever its worker still says before it
        answers the raise of this number.

        Raises:
            KeyError: the claim is not charged.
            OverCommitted: that is not free.
        """
        charge = self._charges[claim]
        more = blocks - charge.blocks
        if more > self.blocks.free:
            raise OverCommitted(f"claim {claim} is to grow by {more} blocks; {self.blocks.free} are free")
        if more > 0:
            self.changes += 1
            self.blocks.move(charge, more)
            charge.blocks = blocks
        charge.raising = number

    def confirm(self, claim: Claim, blocks: Blocks, answers: int = 0) -> None:
        """The worker holds the claim, with this as its whole size. Said before it answers a raise, a smaller
        size than that does not count.

        Args:
            answers: the number of the raise that it answers; 0: none.
        Raises:
            KeyError: the claim is not charged.
        """
        charge = self._charges[claim]
        self.held_blocks += blocks - (charge.said or 0)
        charge.said = blocks
        if charge.raising:
            if answers == charge.raising:
                charge.raising = 0
            elif blocks < charge.blocks:
                return
        more = blocks - charge.blocks
        if more:
            self._resize(charge, blocks, more)

    def _resize(self, charge: Charge, blocks: Blocks, more: Blocks) -> None:
        """One that grew beyond what is left, as its worker's own blocks let it, is counted like foreign."""
        if more > 0 and not charge.stray and more + self.blocks.own > self.blocks.capacity:
            self._count(charge, -1)
            charge.blocks, charge.stray = blocks, True
            self._count(charge, 1)
            return
        self.changes += 1
        self.blocks.move(charge, more)
        charge.blocks = blocks

    def prefilled(self, claim: Claim) -> bool:
        """The claim's first token is out: its prompt is in flight no longer. False: it was so already."""
        charge = self._charges.get(claim)
        if charge is None or not charge.prefill:
            return False
        self.prefill.move(charge, -charge.prefill)
        charge.prefill = 0
        return True

    def reclaim(self, claim: Claim, *, gives_way: bool = False) -> bool:
        """The router wants the claim back: charged until the worker confirms. False: was so already."""
        charge = self._charges.get(claim)
        if charge is None or charge.reclaiming:
            return False
        self._count(charge, -1)
        charge.reclaiming, charge.gives_way = True, gives_way
        self._count(charge, 1)
        return True

    def release(self, claim: Claim) -> Charge | None:
        """The worker no longer holds the claim. Releasing it twice does nothing."""
        charge = self._charges.pop(claim, None)
        if charge is not None:
            self._count(charge, -1)
            self.held_blocks -= charge.said or 0
            if charge.pins is not None:
                self._pins.leave(charge.pins)
                self.blocks.pinned = self._pins.blocks
        return charge

    def counts_on(self, kept: Kept) -> None:
        """These are the resident blocks from now on. What claims use stays pinned until they end."""
        self._kept = kept

    def stored(self, hashes: Iterable[BlockHash]) -> None:
        """The engine says that these prefix blocks are resident now."""
        self._kept.take_in(hashes)

    def removed(self, hashes: Iterable[BlockHash]) -> None:
        """The engine evicted these. A block that a live claim uses stays pinned until that claim ends."""
        self._kept.let_go(hashes)

    def resident_is(self, hashes: Iterable[BlockHash]) -> None:
        """The engine says that these prefix blocks are resident now, and no others."""
        self._kept.become(hashes)

    def _count(self, charge: Charge, sign: int) -> None:
        self.changes += 1
        self.blocks.move(charge, sign * charge.blocks)
        self.slots.move(charge, sign * charge.slots)
        if charge.prefill:
            self.prefill.move(charge, sign * charge.prefill)
