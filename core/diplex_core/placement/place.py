"""Filter, score, pick; what was said on the way is kept, so that every choice can be explained."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

from diplex_core.placement import filters, scorers
from diplex_core.placement.rules import FILTERS, SCORERS, Filter, PoolView, Score, Scorer, Wish
from diplex_core.words import Seconds, Tier


@dataclass(frozen=True, slots=True)
class Explained:
    """What was said of one worker: objections by filter, scores by scorer, and their weighted sum.

    A placement stops at a worker's first objection and does not score it; `Placement.explain` asks them all.
    """

    objections: Mapping[str, str]
    scores: Mapping[str, Score]
    total: float
    ttft: Seconds | None = None  # predicted, from the first ask
    tpot: Seconds | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """What a placement came to: the pool picked, or none, and what was said of each, by its name."""

    picked: PoolView | None
    words: Mapping[str, Explained]


_NO_OBJECTION: Final[Mapping[str, str]] = MappingProxyType({})
_NO_SCORE: Final[Mapping[str, float]] = MappingProxyType({})
Rule: TypeAlias = tuple[str, Filter]


@dataclass(frozen=True, slots=True)
class _Rules:
    """One tier's rules, looked up by name once."""

    tier: Tier
    passing: tuple[Rule, ...]
    scorers: tuple[tuple[str, Scorer, float], ...]
    weights: Mapping[str, float]


class Placement:
    """A choice of rules. Weights name the scorers; every filter named is asked, in this order. A tier adds
    filters of its own and changes weights; a weight of 0 switches a scorer off."""

    def __init__(
        self,
        lasting: Iterable[str] = filters.LASTING,
        passing: Iterable[str] = filters.PASSING,
        weights: Mapping[str, float] = scorers.WEIGHTS,
    ) -> None:
        self._lasting = tuple((name, FILTERS[name]) for name in lasting)
        self._passing = tuple(passing)
        self._weights = dict(weights)
        self._by_tier: dict[str, _Rules] = {}

    def can_ever(self, wish: Wish, pool: PoolView) -> bool:
        """Whether the pool could take the wish at some time, however full it is now."""
        return not any(rule(wish, pool) for _, rule in self._lasting)

    def place(self, wish: Wish, pools: Iterable[PoolView]) -> Choice:
        """The best of the pools that can take the wish now; of equals the first."""
        rules = self._rules_of(wish.tier)
        asked = (*self._lasting, *rules.passing)
        picked, best, words = None, float("-inf"), {}
        for pool in pools:
            for name, rule in asked:
                if word := rule(wish, pool):
                    words[pool.name] = Explained({name: word}, _NO_SCORE, 0.0)
                    break
            else:
                scores = {name: scorer(wish, pool) for name, scorer, _ in rules.scorers}
                total = sum(weight * scores[name] for name, _, weight in rules.scorers)
                words[pool.name] = Explained(_NO_OBJECTION, scores, total, pool.ttft(wish), pool.tpot(wish))
                if total > best:
                    picked, best = pool, total
        return Choice(picked, words)

    def explain(self, wish: Wish, pool: PoolView) -> Explained:
        """Every filter's and every scorer's word on one pool, whatever the first of them says."""
        rules = self._rules_of(wish.tier)
        said = ((name, rule(wish, pool)) for name, rule in (*self._lasting, *rules.passing))
        scores = {name: scorer(wish, pool) for name, scorer, _ in rules.scorers}
        return Explained(
            {name: word for name, word in said if word},
            scores,
            sum(weight * scores[name] for name, _, weight in rules.scorers),
            pool.ttft(wish),
            pool.tpot(wish),
        )

    def weights_of(self, tier: Tier) -> Mapping[str, float]:
        """What each scorer counts under this tier's rules."""
        return self._rules_of(tier).weights

    def _rules_of(self, tier: Tier) -> _Rules:
        known = self._by_tier.get(tier.name)
        if known is None or known.tier is not tier:  # rules that are reloaded bring new tiers
            weights = {
                name: weight for name, weight in (self._weights | dict(tier.scorers)).items() if weight
            }
            known = self._by_tier[tier.name] = _Rules(
                tier,
                tuple((name, FILTERS[name]) for name in (*self._passing, *tier.own_filters)),
                tuple((name, SCORERS[name], weight) for name, weight in weights.items()),
                weights,
            )
        return known
