"""Which workers have which prefix blocks: the router's index of what is cached anywhere.

A block is known by the chained hash of everything up to it, so it stands for its whole prefix, and a prompt's
leading blocks are resident on a worker until the first that is not. For each block the index has the workers
that keep it as the bits of one number. So the prefix that any of a thousand workers has is found in as many
steps as it has blocks: and them together, until no bit is left.

A block that one worker alone keeps, as most are, costs an entry and no number of its own. A worker that is
lost with all it had, or starts anew, gets another bit: what is said of the old one counts no more, and is
swept away when many such have gathered.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from diplex_core.words import BlockHash, Blocks

_SWEPT_AT: Final = 64
"""So many bits that count no more are carried along, beside as many as count."""


class Level(NamedTuple):
    """The workers, as bits, that have this many leading blocks of a prompt, or more."""

    blocks: Blocks
    workers: int


class Leading:
    """How much of one prompt is resident where, at one moment.

    Attributes:
        levels: from the shortest prefix to the longest that anybody has; each with fewer workers.
    """

    __slots__ = ("levels",)

    def __init__(self, levels: Sequence[Level]) -> None:
        self.levels = levels

    def of(self, worker: int) -> Blocks:
        """Leading blocks that the worker of this bit has."""
        for level in reversed(self.levels):
            if level.workers & worker:
                return level.blocks
        return 0


NOTHING: Final = Leading(())


class Prefixes:
    """The blocks of all workers of a router."""

    def __init__(self) -> None:
        self._holders: dict[BlockHash, int] = {}
        self._bits: list[int] = []  # each bit once, so that blocks of one worker share its number
        self._free: list[int] = []
        self._live = 0  # bits that count, together
        self._dead = 0  # how many do not, and may still stand in `_holders`
        self._asked: tuple[Sequence[BlockHash], Leading] | None = None  # the last question and its answer

    def __len__(self) -> int:
        """Blocks that are resident anywhere, those swept away later included."""
        return len(self._holders)

    def shelf(self) -> "Shelf":
        """A place for one more worker's blocks."""
        return Shelf(self)

    def leading(self, hashes: Sequence[BlockHash]) -> Leading:
        """Who has how many of a prompt's leading blocks."""
        if not hashes or not self._live:
            return NOTHING
        if self._asked is not None and self._asked[0] is hashes:
            return self._asked[1]  # several workers are looked at for one request
        levels: list[Level] = []
        holders, workers = self._holders, self._live
        for blocks, block in enumerate(hashes):
            having = workers & holders.get(block, 0)
            if having != workers:
                if blocks:
                    levels.append(Level(blocks, workers))
                workers = having
                if not workers:
                    break
        if workers:
            levels.append(Level(len(hashes), workers))
        found = Leading(levels) if levels else NOTHING
        self._asked = hashes, found
        return found

    # What shelves do.

    def take_bit(self) -> int:
        if not self._free:
            self._bits.append(1 << len(self._bits))
            self._free.append(self._bits[-1])
        bit = self._free.pop()
        self._live |= bit
        return bit

    def retire(self, bit: int) -> None:
        """Whatever was kept under this bit is forgotten, at once."""
        self._asked = None
        self._live &= ~bit
        self._dead += 1
        if self._dead > _SWEPT_AT + self._live.bit_count():
            self._sweep()

    def _sweep(self) -> None:
        live = self._live
        self._holders = {block: left for block, bits in self._holders.items() if (left := bits & live)}
        self._free = [bit for bit in reversed(self._bits) if not bit & live]
        self._dead = 0

    def keeps(self, block: BlockHash, bit: int) -> bool:
        return bool(self._holders.get(block, 0) & bit)

    def take_in(self, hashes: Iterable[BlockHash], bit: int) -> list[BlockHash]:
        self._asked = None
        holders, new = self._holders, []
        for block in hashes:
            others = holders.get(block, 0)
            if not others & bit:
                holders[block] = others | bit if others else bit
                new.append(block)
        return new

    def let_go(self, hashes: Iterable[BlockHash], bit: int) -> list[BlockHash]:
        self._asked = None
        holders, gone = self._holders, []
        for block in hashes:
            having = holders.get(block, 0)
            if having & bit:
                if having == bit:
                    del holders[block]
                else:
                    holders[block] = having ^ bit
                gone.append(block)
        return gone


class Shelf:
    """One worker's part of the index (`diplex_core.resident.Kept`).

    Attributes:
        bit: the worker's, in the numbers of `Leading`.
    """

    __slots__ = ("_count", "_prefixes", "bit")

    def __init__(self, prefixes: Prefixes) -> None:
        self._prefixes = prefixes
        self._count = 0
        self.bit = prefixes.take_bit()

    def __contains__(self, block: object) -> bool:
        return self._prefixes.keeps(block, self.bit)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self._count

    def leading(self, hashes: Sequence[BlockHash]) -> Blocks:
        """How many of a prompt's leading blocks the worker has."""
        return self._prefixes.leading(hashes).of(self.bit)

    def take_in(self, hashes: Iterable[BlockHash]) -> list[BlockHash]:
        """The worker keeps these too; answers which it did not before."""
        new = self._prefixes.take_in(hashes, self.bit)
        self._count += len(new)
        return new

    def let_go(self, hashes: Iterable[BlockHash]) -> list[BlockHash]:
        """The worker keeps these no longer; answers which it did before."""
        gone = self._prefixes.let_go(hashes, self.bit)
        self._count -= len(gone)
        return gone

    def become(self, hashes: Iterable[BlockHash]) -> None:
        """These and no others. Where none is gone, nothing is written anew."""
        kept, keeps, bit = set(hashes), self._prefixes.keeps, self.bit
        if sum(1 for block in kept if keeps(block, bit)) != self._count:
            self.clear()
        self.take_in(kept)

    def clear(self) -> None:
        """The worker keeps nothing: it is lost, or has started anew."""
        if self._count:
            self._prefixes.retire(self.bit)
            self.bit = self._prefixes.take_bit()
            self._count = 0
