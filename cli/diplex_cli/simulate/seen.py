"""What a picture of a long run needs, in a bounded number of points: the longer the run, the coarser."""

from collections.abc import Mapping
from typing import Final, Generic, NamedTuple, TypeVar

from diplex_core.report import Ending, Outcome
from diplex_core.words import Seconds, Tier, Tokens

_MOST: Final = 3000

Point = TypeVar("Point")


class Thinned(Generic[Point]):
    """Every so manieth of what comes: when there are too many, every second one goes."""

    def __init__(self, most: int = _MOST) -> None:
        self.points: list[Point] = []
        self.count = 0
        self._every = 1
        self._most = most

    def add(self, point: Point) -> None:
        if self.count % self._every == 0:
            self.points.append(point)
            if len(self.points) > self._most:
                self.points = self.points[::2]
                self._every *= 2
        self.count += 1


class Look(NamedTuple):
    """The router at one moment."""

    at: Seconds
    running: int
    waiting: int


class Seen:
    """Outcomes and looks at the router, thinned.

    Attributes:
        waits: prompt tokens and TTFT of completed requests, by the tier that they asked for.
        fine, not_fine: when requests arrived that completed, and those that did not.
        most_waiting: the most that ever waited in the router's queues, at any of the looks.
    """

    def __init__(self, tiers: Mapping[str, Tier]) -> None:
        self.waits: dict[str, Thinned[tuple[Tokens, Seconds]]] = {name: Thinned() for name in tiers}
        self.fine: Thinned[Seconds] = Thinned()
        self.not_fine: Thinned[Seconds] = Thinned()
        self.looks: Thinned[Look] = Thinned()
        self.most_waiting = 0

    def hear(self, one: Outcome) -> None:
        if one.ended is not Ending.COMPLETED:
            self.not_fine.add(one.arrived)
            return
        self.fine.add(one.arrived)
        if one.ttft is not None:
            self.waits[one.tier].add((one.prompt_tokens, one.ttft))

    def look(self, now: Seconds, running: int, waiting: int) -> None:
        self.most_waiting = max(self.most_waiting, waiting)
        self.looks.add(Look(now, running, waiting))
