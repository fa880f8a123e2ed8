"""Who may pass a request that waits for room: those who do not put it off (EASY backfill).

The head of a queue that finds no room has a reservation: one worker that is kept for it, and the time at
which enough of its guests will have ended there. A smaller request behind it, or of a lower tier, may be
placed on that worker if it will be over by then, or if it fits into what will be spare beside the
reservation; on other workers it goes as it likes. So small requests use what a large one cannot yet, and the
large one starts no later for it. Source: Lifka, The ANL/IBM SP scheduling system, 1995; Mu'alem and
Feitelson, Utilization, predictability, workloads, and user runtime estimates in scheduling the IBM SP2 with
backfilling, 2001.

**Run times are predictions**: the worker's forecast of its speed, times the length that such answers mostly
have (the most that was asked for, while nobody knows). A guest that stays longer than predicted puts the
start off, and one that ends early brings it nearer; both are counted anew when something changes on the
worker. Where run times are unknown, the reserved worker takes nobody smaller meanwhile: what ends there stays
free, until the reservation fits.
"""

from collections.abc import Iterable
from dataclasses import replace
from math import inf
from typing import NamedTuple

from diplex_core.value import value
from diplex_core.words import Blocks, Seconds, Slots


class Ending(NamedTuple):
    """A guest that will be over, and what it leaves behind."""

    at: Seconds  # infinite where nobody knows
    blocks: Blocks
    slots: Slots


@value
class Start:
    """When a request can start on a worker, and what is spare beside it then.

    Attributes:
        at: infinite where run times are unknown.
        short: blocks that it lacks there now.
    """

    at: Seconds
    short: Blocks
    spare_blocks: Blocks = 0
    spare_slots: Slots = 0


@value
class Reservation:
    """A worker that is kept for a request.

    Attributes:
        lease_id: whose it is.
        priority: of its tier; requests of a higher one are not bound by it,
        owed: unless its tier is owed its least share.
        blocks, slots: that it needs there.
    """

    lease_id: int
    worker: str
    priority: int
    owed: bool
    blocks: Blocks
    slots: Slots
    start: Start

    def at(self, start: Start) -> "Reservation":
        """The same, with a start that was counted anew."""
        return replace(self, start=start)

    def lets_more_pass_than(self, other: "Reservation") -> bool:
        """Whether somebody may be placed now who was not."""
        mine, before = self.start, other.start
        return (
            other.owed > self.owed
            or other.priority > self.priority
            or (mine.at < inf and (before.at == inf or mine.at > before.at))
            or mine.spare_blocks > before.spare_blocks
            or mine.spare_slots > before.spare_slots
        )

    def binds(self, lease_id: int, priority: int, owed: bool) -> bool:
        """Whether a request has to leave it as it is: not its own, nor one that is served before it."""
        return lease_id != self.lease_id and (owed, priority) <= (self.owed, self.priority)

    def leaves(self, blocks: Blocks, slots: Slots, ends: Seconds | None) -> bool:
        """Whether a request of that size does not put it off. `ends`: `None` where nobody knows."""
        start = self.start
        if ends is not None and ends <= start.at < inf:
            return True
        return blocks <= start.spare_blocks and slots <= start.spare_slots


def start_of(
    blocks: Blocks,
    slots: Slots,
    *,
    free_blocks: Blocks,
    free_slots: Slots,
    endings: Iterable[Ending],
    now: Seconds,
) -> Start:
    """When a request of this size finds room, as the guests end one after another.

    >>> endings = [Ending(3.0, 10, 1), Ending(2.0, 20, 1), Ending(9.0, 50, 1)]
    >>> start_of(25, 1, free_blocks=0, free_slots=0, endings=endings, now=1.0)
    Start(at=3.0, short=25, spare_blocks=5, spare_slots=1)
    """
    short = max(0, blocks - free_blocks)
    at = now
    coming = sorted(endings)
    number = 0
    while blocks > free_blocks or slots > free_slots:
        if number == len(coming) or coming[number].at == inf:
            return Start(inf, short)
        ending = coming[number]
        number += 1
        at = max(at, ending.at)
        free_blocks += ending.blocks
        free_slots += ending.slots
    while number < len(coming) and coming[number].at <= at:  # those that end at that very moment
        free_blocks += coming[number].blocks
        free_slots += coming[number].slots
        number += 1
    return Start(at, short, free_blocks - blocks, free_slots - slots)
