"""Percentiles by nearest rank: each one is a value that was really seen."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil


def percentile(ordered: Sequence[float], percent: float) -> float | None:
    """The smallest value that at least `percent` % of the values do not exceed; `None` of none.

    Nearest rank, not interpolated: so "p95 is within the target" says exactly "95 % of them met it".

    Args:
        ordered: the values, smallest first.
        percent: above 0, at most 100.
    Source: R. Hyndman, Y. Fan, "Sample Quantiles in Statistical Packages", 1996, definition 1.

    >>> percentile([10, 20, 30, 40], 50), percentile([10, 20, 30, 40], 95)
    (20, 40)
    """
    if not 0 < percent <= 100:
        raise ValueError(f"percent is {percent:g}. Mend: above 0, at most 100")
    # Multiplied before divided: 0.07 * 100 is a hair above 7 in floating point, and would take the eighth.
    return ordered[ceil(percent * len(ordered) / 100) - 1] if ordered else None


@dataclass(frozen=True, slots=True)
class Spread:
    """How some durations lie; all `None` where there were none."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread":
        """The spread of those values that there are."""
        ordered = sorted(value for value in values if value is not None)
        return cls(percentile(ordered, 50), percentile(ordered, 95), percentile(ordered, 99))
