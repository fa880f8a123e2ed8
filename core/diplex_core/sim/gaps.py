"""The longest iteration since any earlier one, for every stream at once.

An iteration that a later one outlasts is nobody's longest any more. So what is kept gets shorter from the
oldest to the newest, and the longest since a moment is the first one after it.
"""

from bisect import bisect_right

from diplex_core.words import Seconds


class Gaps:
    """How long iterations took, as far as one may still be somebody's longest gap.

    >>> gaps = Gaps()
    >>> gaps.push(10, 0.3); gaps.push(20, 0.1); gaps.push(30, 0.2)
    >>> gaps.longest(10), gaps.longest(0), gaps.longest(30)
    (0.2, 0.3, 0.0)
    """

    __slots__ = ("_ends", "_longest")

    def __init__(self) -> None:
        self._ends: list[int] = []  # iterations that were over, a run's last included
        self._longest: list[Seconds] = []

    def push(self, over: int, longest: Seconds) -> None:
        """A run has ended, and with it so many iterations since the beginning; its longest took so long."""
        ends, kept = self._ends, self._longest
        while kept and kept[-1] <= longest:
            kept.pop()
            ends.pop()
        kept.append(longest)
        ends.append(over)

    def clear(self) -> None:
        """Nobody speaks."""
        self._ends.clear()
        self._longest.clear()

    def longest(self, over: int) -> Seconds:
        """Of the iterations after the first so many."""
        at = bisect_right(self._ends, over)
        return self._longest[at] if at < len(self._longest) else 0.0
