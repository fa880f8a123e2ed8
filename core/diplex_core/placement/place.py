"""Filter, score, pick; and the same walk once more to explain it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from diplex_core.placement import filters, scorers
from diplex_core.placement.rules import FILTERS, SCORERS, PoolView, Score, Wish


@dataclass(frozen=True, slots=True)
class Explained:
    """Every rule's word on one worker: objections by filter, scores by scorer, and their weighted sum."""

    objections: Mapping[str, str]
    scores: Mapping[str, Score]
    total: float


class Placement:
    """A choice of rules. Weights name the scorers; every filter named is asked, in this order."""

    def __init__(
        self,
        lasting: Iterable[str] = filters.LASTING,
        passing: Iterable[str] = filters.PASSING,
        weights: Mapping[str, float] = scorers.WEIGHTS,
    ) -> None:
        self._lasting = [(name, FILTERS[name]) for name in lasting]
        self._passing = [(name, FILTERS[name]) for name in passing]
        self._scorers = [(name, SCORERS[name], weight) for name, weight in weights.items()]

    def can_ever(self, wish: Wish, pool: PoolView) -> bool:
        """Whether the pool could take the wish at some time, however full it is now."""
        return not any(rule(wish, pool) for _, rule in self._lasting)

    def place(self, wish: Wish, pools: Iterable[PoolView]) -> PoolView | None:
        """The best of the pools that can take the wish now; of equals the first."""
        able = [
            pool
            for pool in pools
            if self.can_ever(wish, pool) and not any(rule(wish, pool) for _, rule in self._passing)
        ]
        return max(able, key=lambda pool: self._total(wish, pool), default=None)

    def explain(self, wish: Wish, pool: PoolView) -> Explained:
        words = ((name, rule(wish, pool)) for name, rule in (*self._lasting, *self._passing))
        return Explained(
            {name: word for name, word in words if word},
            {name: rule(wish, pool) for name, rule, _ in self._scorers},
            self._total(wish, pool),
        )

    def _total(self, wish: Wish, pool: PoolView) -> float:
        return sum(weight * rule(wish, pool) for _, rule, weight in self._scorers)
