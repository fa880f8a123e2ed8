"""The claims of one worker that may grow: which of them wait to, and who gives way to whom.

A growing claim holds less than it may come to need. One that comes near its limit asks for more, and the
router gives it before it admits anybody. Short of blocks, somebody gives way: of the growing claims the one
of the lowest priority, and of those the youngest, if need be the one that asks. So the oldest of the highest
priority is never stopped by its equals: it ends, and then another is the oldest. Nobody waits for ever.

Among equals the one that asks waits a little first. Claims end all the time, and their blocks cost nobody
anything; what is stopped has to be read anew elsewhere.
"""

from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

from diplex_core.words import Blocks, Claim, Seconds

PATIENCE: Final[Seconds] = 2.0
"""So long a claim waits to grow while others beside it may end, before an equal of it is stopped. Its
sequence still speaks for about half of that, and in a full pool somebody mostly ends (benchmarks/growth)."""
LONG_PATIENCE: Final[Seconds] = 10.0
"""So long it waits where nobody but itself could give way, and others run that will end."""


class Rank(NamedTuple):
    """Where a growing claim stands: the least gives way first."""

    priority: int
    older: Seconds  # when it was first asked for, made negative,
    earlier: int  # and of equals the lease's number, likewise


class Want(NamedTuple):
    """A claim that waits to grow to this whole size."""

    blocks: Blocks
    since: Seconds


class Growing:
    """The growing claims of one worker."""

    def __init__(self) -> None:
        self._ranks: dict[Claim, Rank] = {}
        self._wants: dict[Claim, Want] = {}

    def __len__(self) -> int:
        return len(self._ranks)

    def __contains__(self, claim: Claim) -> bool:
        return claim in self._ranks

    @property
    def wanting(self) -> int:
        """How many of them wait."""
        return len(self._wants)

    def came(self, claim: Claim, priority: int, arrived: Seconds) -> None:
        self._ranks[claim] = Rank(priority, -arrived, -claim.lease_id)

    def left(self, claim: Claim) -> None:
        """It is over, or on its way out. Leaving twice does nothing."""
        if self._ranks.pop(claim, None) is not None:
            self._wants.pop(claim, None)

    def wants(self, claim: Claim, blocks: Blocks, now: Seconds) -> None:
        """It asks for this whole size; it goes on waiting since it first did."""
        waiting = self._wants.get(claim)
        self._wants[claim] = Want(blocks, now if waiting is None else waiting.since)

    def answered(self, claim: Claim) -> None:
        """It waits no longer."""
        self._wants.pop(claim, None)

    def only(self, claims: Collection[Claim]) -> None:
        """No others wait: what its worker let grow by itself has what it wanted."""
        for claim in [claim for claim in self._wants if claim not in claims]:
            del self._wants[claim]

    def waiting(self) -> list[tuple[Claim, Want]]:
        """Those that wait, the first to be served first: by rank, from the highest."""
        return sorted(self._wants.items(), key=lambda one: self._ranks[one[0]], reverse=True)

    def wanted_by(self, claim: Claim, blocks: Blocks) -> Blocks:
        """By how much one that has so many waits to grow; 0: it does not wait."""
        want = self._wants.get(claim)
        return max(0, want.blocks - blocks) if want is not None else 0

    def rank(self, claim: Claim) -> Rank:
        return self._ranks[claim]

    def givers(self) -> Iterator[tuple[Claim, Rank]]:
        """All of them, in the order in which they give way."""
        yield from sorted(self._ranks.items(), key=lambda one: one[1])

    def is_patient(self, claim: Claim, now: Seconds, others: int) -> bool:
        """Whether one that waits still does so, before an equal of it is stopped for it.

        Args:
            others: claims beside it, growing or not and whoever's, that do not wait themselves and may end.
        """
        if not others:
            return False  # nobody will end: somebody has to be stopped
        ranks = self._ranks
        alone = all(rank >= ranks[claim] for rank in ranks.values())
        return now < self._wants[claim].since + (LONG_PATIENCE if alone else PATIENCE)
