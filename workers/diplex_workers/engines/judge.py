"""Holds what an attached engine says of itself against what passes through its worker.

Two accounts meet here. The worker knows what its own jobs may hold at most, and which output they hold for
certain: a stream that brings tokens has them in the cache. The engine says how full its cache is, what it
runs, what it keeps waiting and what it has stopped. A gauge is written now and then, and a job's end reaches
the engine late, so one look proves nothing. What is said counts against the engine where it holds for a whole
row of looks: the most that it said in all of them is less than the least that was there in any of them, or
the other way round.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Final

from diplex_core.words import Blocks, Slots
from diplex_workers.engines.dialects.dialect import Gauges

LOOKS: Final = 5
"""So many looks in a row say the same before it is believed."""

# What an alarm is about, as the metric's label has it.
QUEUES, PREEMPTS, STRANGERS, MISSTATES = KINDS = ("queues", "preempts", "strangers", "misstates")


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the engine, and what its worker knew then.

    Attributes:
        least: whole blocks of output that streams have brought and still hold; shared with nobody.
        most: blocks that all running jobs may come to hold.
        ours: sequences that the worker has there.
    """

    gauges: Gauges
    least: Blocks
    most: Blocks
    ours: Slots


@dataclass(frozen=True, slots=True)
class Remarks:
    """What a worker should know of its engine beside its figures.

    Attributes:
        foreign: blocks in use by sequences that did not come through this worker.
        foreign_slots: and how many those are.
        waiting, preempted: by its own account; `None`: it does not say.
        alarms: by kind, what is wrong, for people.
    """

    foreign: Blocks = 0
    foreign_slots: Slots = 0
    waiting: Slots | None = None
    preempted: int | None = None
    alarms: Mapping[str, str] = field(default_factory=dict)

    @property
    def alarm(self) -> str:
        """All of them in one line; empty: nothing is wrong."""
        return "; ".join(self.alarms.values())


_NOTHING: Final = Remarks()


class Judge:
    """The last few looks at one engine, and what follows from them.

    Args:
        capacity: blocks of its whole cache, of which `Gauges.used` is a share.
    """

    def __init__(self, capacity: Blocks) -> None:
        self._capacity = capacity
        self._looks: deque[Look] = deque(maxlen=LOOKS)
        self._preempted_before: int | None = None  # when the worker first looked
        self._counts: deque[int] = deque(maxlen=LOOKS)

    def saw(self, look: Look) -> None:
        self._looks.append(look)
        counted = look.gauges.preempted
        if counted is None:
            return
        if self._preempted_before is None or counted < self._preempted_before:
            self._preempted_before = counted
            self._counts.clear()
        self._counts.append(counted)

    @property
    def observed(self) -> Blocks | None:
        """Blocks in use by the engine's word, as of the last look; `None`: it does not say, or no figure."""
        used = self._looks[-1].gauges.used if self._looks else None
        return None if used is None or not _is_share(used) else self._blocks(used)

    @property
    def misstated(self) -> str:
        """Why its word on its KV cache is not to be believed, for people; empty: it may be."""
        said = self._said()
        if not said:
            return ""
        if not any(_is_share(used) for used in said):
            return f"it says that {said[-1]:g} of its KV cache is in use, which is no share"
        least = min(look.least for look in self._looks)
        most = max(self._blocks(used) for used in said if _is_share(used))
        if most < least:
            return f"it says that {most} KV blocks are in use, and its streams hold {least} at least"
        return ""

    @property
    def remarks(self) -> Remarks:
        last = self._looks[-1].gauges if self._looks else Gauges()
        alarms: dict[str, str] = {}
        if waiting := self._always_waiting():
            alarms[QUEUES] = f"it keeps {waiting} requests waiting by itself"
        if len(self._counts) > 1 and (lately := self._counts[-1] - self._counts[0]):
            alarms[PREEMPTS] = f"it stopped {lately} running requests by itself"
        slots = self._strangers()
        blocks = self._foreign() if slots else 0
        if slots:
            alarms[STRANGERS] = f"it serves {slots} requests of others, in {blocks} KV blocks"
        if misstated := self.misstated:
            alarms[MISSTATES] = misstated
        preempted = None if not self._counts else self._counts[-1] - (self._preempted_before or 0)
        return Remarks(blocks, slots, last.waiting, preempted, alarms)

    def _blocks(self, used: float) -> Blocks:
        return round(used * self._capacity)

    def _said(self) -> list[float]:
        """What it said of its cache in a full row of looks; nothing where one of them is missing."""
        said = [look.gauges.used for look in self._looks if look.gauges.used is not None]
        return said if len(said) == LOOKS else []

    def _always_waiting(self) -> Slots:
        waiting = [look.gauges.waiting or 0 for look in self._looks]
        return min(waiting) if len(waiting) == LOOKS else 0

    def _strangers(self) -> Slots:
        """Sequences beyond the worker's own: those that it had at the beginning of the row may still end."""
        running = [look.gauges.running for look in self._looks if look.gauges.running is not None]
        if len(running) < LOOKS:
            return 0
        return max(0, min(running) - max(look.ours for look in self._looks))

    def _foreign(self) -> Blocks:
        said = [self._blocks(used) for used in self._said() if _is_share(used)]
        return max(0, min(said) - max(look.most for look in self._looks)) if said else 0


def remarks_of(engine: object) -> Remarks:
    """What an engine itself says: its optional attribute `remarks`."""
    remarks: Remarks = getattr(engine, "remarks", _NOTHING)
    return remarks


def _is_share(used: float) -> bool:
    return isfinite(used) and 0 <= used <= 1
