"""Filter, score, pick; what was said on the way is kept, so that every choice can be explained."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from diplex_core.placement import filters, scorers
from diplex_core.placement.book import OWN, Book
from diplex_core.placement.rules import (
    SCORERS,
    Candidate,
    Filter,
    NoScore,
    Picker,
    PoolView,
    Score,
    Scorer,
    Wish,
)
from diplex_core.value import value
from diplex_core.words import Seconds, Tier

Rule: TypeAlias = tuple[str, Filter]


@value
class Explained:
    """What was said of one worker: objections by filter, scores by scorer, and their weighted sum.

    A placement stops at a worker's first objection and does not score it; `Placement.explain` asks them all.
    """

    objections: Mapping[str, str]
    scores: Mapping[str, Score]
    total: float
    ttft: Seconds | None = None  # predicted, from the first ask
    tpot: Seconds | None = None
    failed: str = ""  # rules of other packages that had no word on it, and why


_NO_OBJECTION: Final[Mapping[str, str]] = MappingProxyType({})
_NO_SCORE: Final[Mapping[str, float]] = MappingProxyType({})


@value
class Look:
    """One worker as it was looked at: who objected, or how it scored. Words are made when somebody asks."""

    name: str
    filter: str
    word: str
    rules: "TierRules"
    scores: Sequence[Score] = ()
    total: float = 0.0
    ttft: Seconds | None = None
    tpot: Seconds | None = None

    @property
    def explained(self) -> Explained:
        if self.filter:
            return Explained({self.filter: self.word}, _NO_SCORE, 0.0)
        scores = dict(zip(self.rules.weights, self.scores, strict=True))
        failed = "; ".join(score.why for score in self.scores if isinstance(score, NoScore))
        return Explained(_NO_OBJECTION, scores, self.total, self.ttft, self.tpot, failed)


class Words(Mapping[str, Explained]):
    """What was said of the workers that were looked at, by their names."""

    __slots__ = ("_looks",)

    def __init__(self, looks: Sequence[Look]) -> None:
        self._looks = looks

    def __len__(self) -> int:
        return len(self._looks)

    def __iter__(self) -> Iterator[str]:
        return (look.name for look in self._looks)

    def __getitem__(self, name: str) -> Explained:
        for look in self._looks:
            if look.name == name:
                return look.explained
        raise KeyError(name)


class Choice(NamedTuple):
    """What a placement came to.

    Attributes:
        picked: the pool, or none.
        words: what was said of each pool that was looked at, by its name.
        able: one that takes requests could take this one, had it room: waiting may help. False: not known.
    """

    picked: PoolView | None
    words: Mapping[str, Explained]
    able: bool = False


_KNOWN: Final = ("preferred_pattern", "prefix", "room")
"""What these scorers say of a worker an index knows beforehand. So they are asked last: what all others may
say at most, and these, is a bound of the total, summed up in the same order and to the same last digit."""


@value
class TierRules:
    """One tier's rules, looked up by name once."""

    tier: Tier
    passing: tuple[Rule, ...]
    own: tuple[Rule, ...]  # of these, those that the index does not answer for
    leaves_room: bool  # one of them is `leaves_room`, of which the index answers the first part
    weighed: tuple[tuple[Scorer, float], ...]
    weights: Mapping[str, float]  # the same by name
    of_prefix: float  # weights again; 0.0: switched off
    of_room: float
    picker: Picker | None  # `None`: the best is picked
    plain: bool  # none of its scorers is another package's

    def look(self, wish: Wish, pool: PoolView) -> Look:
        """What all scorers say of a pool that no filter objects to."""
        scores, total = [], 0.0
        for scorer, weight in self.weighed:
            score = scorer(wish, pool)
            scores.append(score)
            total += weight * score
        return Look(pool.name, "", "", self, scores, total, pool.ttft(wish), pool.tpot(wish))

    def praise(self, wish: Wish, pool: PoolView, scores: Sequence[Score], total: float) -> Look:
        """The same of one that keeps every promise, by what `best` said of its kind."""
        if self.of_room:
            room = pool.ledger.room
            scores, total = (*scores, room), total + self.of_room * room
        return Look(pool.name, "", "", self, scores, total, pool.ttft(wish), pool.tpot(wish))

    def best(self, wish: Wish, pool: PoolView) -> tuple[Sequence[Score], float]:
        """What its scorers say at most of a pool where nothing of the prompt is resident, but for its room,
        and what that comes to."""
        scores, total = [], 0.0
        for name, (scorer, weight) in zip(self.weights, self.weighed, strict=True):
            if name != "room":
                known = name in _KNOWN
                scores.append((0.0 if name == "prefix" else scorer(wish, pool)) if known else 1.0)
                total += weight * scores[-1]
        return scores, total


class Placement:
    """A choice of rules. Weights name the scorers; every filter named is asked, in this order. A tier adds
    filters of its own and changes weights; a weight of 0 switches a scorer off.

    Args:
        everyone: in fleets of up to so many workers each is asked, for every word on it.
        thorough: in those of up to so many the best is found, if need be by looking at all.
        looks: in larger ones so many of a kind are looked at.
        book: where rules are looked up by their names.
    """

    def __init__(
        self,
        lasting: Iterable[str] = filters.LASTING,
        passing: Iterable[str] = filters.PASSING,
        weights: Mapping[str, float] = scorers.WEIGHTS,
        *,
        everyone: int = 8,
        thorough: int = 32,
        looks: int = 2,
        book: Book = OWN,
    ) -> None:
        self.everyone = everyone
        self.thorough = thorough
        self.looks = looks
        self.book = book
        self.lasting = tuple((name, book.filters[name]) for name in lasting)
        self.by_rule = tuple(rule for name, rule in self.lasting if name in filters.BY_RULE)
        self.by_size = tuple(
            rule for name, rule in self.lasting if name not in (*filters.BY_RULE, *filters.BY_SIZE)
        )
        self._passing = tuple(passing)
        self._weights = dict(weights)
        self._by_tier: dict[str, TierRules] = {}

    def can_ever(self, wish: Wish, pool: PoolView) -> bool:
        """Whether the pool could take the wish at some time, however full it is now."""
        return not any(rule(wish, pool) for _, rule in self.lasting)

    def place(self, wish: Wish, pools: Iterable[PoolView]) -> Choice:
        """Of the pools that can take the wish now the best, and of equals the first, or whichever the tier's
        own picker answers."""
        rules = self.rules_of(wish.tier)
        picked, best, looks, able = None, float("-inf"), [], []
        for pool in pools:
            look = self.objection(wish, pool) or rules.look(wish, pool)
            looks.append(look)
            if look.filter:
                continue
            if rules.picker is not None:
                able.append(Candidate(pool, look.total))
            elif look.total > best:
                picked, best = pool, look.total
        if able and rules.picker is not None:
            picked = rules.picker(wish, able).pool
        return Choice(picked, Words(looks))

    def objection(self, wish: Wish, pool: PoolView) -> Look | None:
        """The first filter that objects to a pool, and its word."""
        rules = self.rules_of(wish.tier)
        for asked in (self.lasting, rules.passing):
            for name, rule in asked:
                if word := rule(wish, pool):
                    return Look(pool.name, name, word, rules)
        return None

    def explain(self, wish: Wish, pool: PoolView) -> Explained:
        """Every filter's and every scorer's word on one pool, whatever the first of them says."""
        rules = self.rules_of(wish.tier)
        said = ((name, rule(wish, pool)) for name, rule in (*self.lasting, *rules.passing))
        scored = rules.look(wish, pool).explained
        return replace(scored, objections={name: word for name, word in said if word})

    def weights_of(self, tier: Tier) -> Mapping[str, float]:
        """What each scorer counts under this tier's rules."""
        return self.rules_of(tier).weights

    def rules_of(self, tier: Tier) -> TierRules:
        known = self._by_tier.get(tier.name)
        if known is None or known.tier is not tier:  # rules that are reloaded bring new tiers
            weights = {
                name: weight for name, weight in (self._weights | dict(tier.scorers)).items() if weight
            }
            weights |= {name: weights.pop(name) for name in _KNOWN if name in weights}
            filters_of = self.book.filters
            passing = tuple((name, filters_of[name]) for name in (*self._passing, *tier.own_filters))
            known = self._by_tier[tier.name] = TierRules(
                tier,
                passing,
                tuple(rule for rule in passing if rule[0] not in filters.INDEXED),
                any(name == "leaves_room" for name, _ in passing),
                tuple((self.book.scorers[name], weight) for name, weight in weights.items()),
                weights,
                weights.get("prefix", 0.0),
                weights.get("room", 0.0),
                None if tier.picker == "best" else self.book.pickers[tier.picker],
                all(SCORERS.get(name) is self.book.scorers[name] for name in weights),
            )
        return known
