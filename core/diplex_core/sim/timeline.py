"""A figure over time in a bounded number of points: the longer the run, the farther apart they lie."""

from array import array
from collections.abc import Sequence

from diplex_core.words import Blocks, Seconds

FIRST_EVERY: Seconds = 0.1
"""Points lie so far apart at first."""


class Timeline:
    """The value at evenly spaced moments, its mean over time, and the most that it ever was.

    Args:
        most: points that are kept; when there are as many, every second one goes, and the distance doubles.

    >>> line = Timeline(most=4)
    >>> line.note(0.25, 8); line.note(0.45, 2)
    >>> line.points(0.7)
    [(0.0, 0), (0.2, 0), (0.4, 8), (0.6, 2)]
    >>> round(line.mean(0.65), 6), line.peak
    (3.076923, 8)
    """

    __slots__ = ("_area", "_every", "_from", "_most", "_next", "_values", "peak", "value")

    def __init__(self, most: int = 512) -> None:
        self.value: Blocks = 0
        self.peak: Blocks = 0
        self._most = most
        self._every = FIRST_EVERY
        self._values = array("q")
        self._next: Seconds = 0.0  # the moment of the next point
        self._from: Seconds = 0.0  # the moment up to which the area is counted
        self._area = 0.0

    def note(self, now: Seconds, value: Blocks) -> None:
        """From now on it is this. Moments never go back."""
        if self._next < now:
            self._fill(now)
        self._area += self.value * (now - self._from)
        self._from = now
        self.value = value
        if value > self.peak:
            self.peak = value

    def mean(self, now: Seconds) -> float | None:
        """Over time, from the beginning until now; `None`: no time has passed."""
        return (self._area + self.value * (now - self._from)) / now if now > 0 else None

    def points(self, now: Seconds) -> Sequence[tuple[Seconds, Blocks]]:
        """Moment and value, in the order of time."""
        self._fill(now)
        return [(round(at * self._every, 6), value) for at, value in enumerate(self._values)]

    def _fill(self, now: Seconds) -> None:
        """Note the points that lie before now, or on it: the value held until then."""
        while self._next <= now:
            if len(self._values) == self._most:
                self._values = self._values[::2]
                self._every *= 2
            else:
                self._values.append(self.value)
            self._next = len(self._values) * self._every
