"""A line through measured points, drawn on straight beyond the first and the last."""

from bisect import bisect_right
from collections.abc import Iterable
from itertools import pairwise


class Line:
    """Straight between neighbouring points; a single point makes a constant.

    Args:
        points: (x, y), each x once; at least one.

    >>> line = Line([(1, 10.0), (3, 20.0), (4, 40.0)])
    >>> line(2), line(0), line(5)
    (15.0, 5.0, 60.0)
    """

    __slots__ = ("_slopes", "_xs", "_ys")

    def __init__(self, points: Iterable[tuple[float, float]]) -> None:
        ordered = sorted(points)
        self._xs = [x for x, _ in ordered]
        self._ys = [y for _, y in ordered]
        self._slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in pairwise(ordered)] or [0.0]

    def __call__(self, x: float) -> float:
        at = min(max(bisect_right(self._xs, x) - 1, 0), len(self._slopes) - 1)
        return self._ys[at] + self._slopes[at] * (x - self._xs[at])
