"""How long answers come to be: learned for each tenant, tier and model, and forgotten as habits change.

A request that says "at most 32,768 tokens" mostly answers with some hundred. What such requests came to
before is kept in a histogram whose buckets widen with the length: every quantile is right within 2 %, and
lengths up to a million tokens take 350 numbers. The mapping is DDSketch's (Masson, Rim, Lee: DDSketch: a fast
and fully-mergeable quantile sketch with relative-error guarantees, VLDB 2019). Once a histogram has counted
some thousand answers, all its counts are halved: what was long ago weighs ever less.
"""

from array import array
from math import ceil, log
from typing import Final

from diplex_core.words import Tokens

_ERROR: Final = 0.02
_GAMMA: Final = (1 + _ERROR) / (1 - _ERROR)
_PER_LOG: Final = 1 / log(_GAMMA)
_ENOUGH: Final = 30
"""Fewer answers than these say nothing: the first that end are the short ones (benchmarks/growth)."""
_MOST: Final = 4096
"""At so many answers the counts are halved."""
_STALE: Final = 64
"""A quantile holds until a histogram has grown by one part in so many: one answer cannot move it far."""


def _bucket(tokens: Tokens) -> int:
    return ceil(log(tokens) * _PER_LOG) if tokens > 1 else 0


class Histogram:
    """Lengths in buckets: bucket i counts those above gamma^(i-1), up to gamma^i."""

    __slots__ = ("_counts", "_fresh_until", "_quantiles", "total")

    def __init__(self) -> None:
        self.total = 0.0
        self._counts = array("d")
        self._quantiles: dict[tuple[float, int], Tokens | None] = {}  # by quantile and bucket
        self._fresh_until = 0.0

    def add(self, tokens: Tokens) -> bool:
        """An answer came to so many tokens. True: quantiles are others by now."""
        at, counts = _bucket(tokens), self._counts
        if at >= len(counts):
            counts.extend([0.0] * (at + 1 - len(counts)))
        counts[at] += 1.0
        self.total += 1.0
        if self.total > _MOST:
            self._counts = array("d", (count / 2 for count in counts))
            self.total = sum(self._counts)
        elif not self._quantiles or self.total < self._fresh_until:
            return False
        self._quantiles.clear()
        return True

    def quantile(self, q: float, *, beyond: Tokens = 0) -> Tokens | None:
        """The length that a share `q` of the answers longer than `beyond` does not exceed, within 2 %;
        `None`: too few were so long.

        >>> lengths = Histogram()
        >>> for tokens in range(1, 1001):
        ...     lengths.add(tokens)
        >>> abs(lengths.quantile(0.9) - 900) <= 18, abs(lengths.quantile(0.5, beyond=800) - 900) <= 18
        (True, True)
        """
        key = q, _bucket(beyond) + 1 if beyond else 0
        if key not in self._quantiles:
            if not self._quantiles:
                self._fresh_until = self.total * (1 + 1 / _STALE)
            self._quantiles[key] = self._look_up(*key)
        found = self._quantiles[key]
        return max(found, beyond + 1) if found is not None else None

    def _look_up(self, q: float, first: int) -> Tokens | None:
        counts = self._counts[first:]
        there = sum(counts)
        if there < _ENOUGH:
            return None
        left, found = q * there, first
        for at, count in enumerate(counts, first):
            if count:
                left, found = left - count, at
                if left <= 0:
                    break
        return max(1, round(2 * _GAMMA**found / (_GAMMA + 1)))


class Lengths:
    """Output lengths by (tenant, tier, model); while a tenant has too few of its own, by (tier, model)."""

    def __init__(self) -> None:
        self._own: dict[tuple[str, str, str], Histogram] = {}
        self._all: dict[tuple[str, str], Histogram] = {}
        self._known: dict[tuple[str, str, str, float], Tokens | None] = {}  # quantiles of whole lengths

    def saw(self, tenant: str, tier: str, model: str, tokens: Tokens) -> None:
        """An answer ended with so many tokens, those of its earlier attempts included."""
        own = self._own.get((tenant, tier, model))
        if own is None:
            own = self._own[tenant, tier, model] = Histogram()
            self._known.clear()
        of_all = self._all.get((tier, model))
        if of_all is None:
            of_all = self._all[tier, model] = Histogram()
        changed = own.add(tokens)
        if of_all.add(tokens) or changed:
            self._known.clear()

    def quantile(self, tenant: str, tier: str, model: str, q: float, *, beyond: Tokens = 0) -> Tokens | None:
        """The whole length that a share `q` of such answers does not exceed; `None`: nobody knows.

        Args:
            beyond: tokens that it already has: it is compared with those alone that grew longer.
        """
        key = tenant, tier, model, q
        if not beyond and key in self._known:
            return self._known[key]
        own = self._own.get((tenant, tier, model))
        found = own.quantile(q, beyond=beyond) if own is not None else None
        if found is None and (of_all := self._all.get((tier, model))) is not None:
            found = of_all.quantile(q, beyond=beyond)
        if not beyond:
            self._known[key] = found
        return found
