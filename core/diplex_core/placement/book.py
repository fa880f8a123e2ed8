"""The rules that a configuration may name: diplex's own, and what other packages bring.

Whoever starts a router or a simulation hands its book in. diplex's own rules are called as they are. Another
package's may fail, and nothing that it does stops a router: a filter that fails objects, for it may guard
something; a scorer that fails has no preference, 0; where a picker fails the best is picked. Each failure is
counted, and the first of a rule is told.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from diplex_core.placement.filters import LASTING, PASSING
from diplex_core.placement.pickers import best
from diplex_core.placement.rules import (
    FILTERS,
    PICKERS,
    SCORERS,
    Candidate,
    Filter,
    NoScore,
    Picker,
    PoolView,
    Score,
    Scorer,
    Wish,
    Word,
)
from diplex_core.placement.scorers import WEIGHTS

Kind: TypeAlias = Literal["filter", "scorer", "picker"]


@dataclass(frozen=True, slots=True)
class Unusable:
    """A rule of another package that cannot be used: why, and what to do."""

    reason: str
    mend: str


class Failures:
    """How often each rule of another package failed. `told` hears of the first time of each."""

    def __init__(self, told: Callable[[str], None] = lambda words: None) -> None:
        self.told = told
        self.counts: Counter[tuple[str, str]] = Counter()  # (kind, name)

    def note(self, kind: Kind, name: str, what: str, on: str = "") -> str:
        """Count one, and say it in words."""
        self.counts[kind, name] += 1
        words = f"{kind} {name} failed: {what}"
        if self.counts[kind, name] == 1:
            self.told(f"{words}{on and f' (on {on})'}; said once, counted from now on")
        return words


@dataclass(frozen=True, slots=True)
class Book:
    """Every rule by its name. `unusable`: those that were found and cannot be used, by kind and name."""

    filters: Mapping[str, Filter]
    scorers: Mapping[str, Scorer]
    pickers: Mapping[str, Picker]
    unusable: Mapping[tuple[Kind, str], Unusable] = field(default_factory=lambda: MappingProxyType({}))
    failures: Failures = field(default_factory=Failures)

    def named(self, kind: Kind) -> tuple[str, ...]:
        """The names of all rules of a kind, unusable ones included."""
        usable = {"filter": self.filters, "scorer": self.scorers, "picker": self.pickers}[kind]
        return (*usable, *(name for of, name in self.unusable if of == kind))

    @property
    def optional_filters(self) -> tuple[str, ...]:
        """Those that are asked only where a tier names them."""
        return tuple(name for name in self.named("filter") if name not in (*LASTING, *PASSING))

    @property
    def weights(self) -> Mapping[str, float]:
        """Each scorer's weight where a tier says nothing. Another package's is off."""
        return {name: WEIGHTS.get(name, 0.0) for name in (*WEIGHTS, *self.named("scorer"))}

    def with_rules(
        self,
        filters: Mapping[str, Filter],
        scorers: Mapping[str, Scorer],
        pickers: Mapping[str, Picker],
        unusable: Mapping[tuple[Kind, str], Unusable] = MappingProxyType({}),
        told: Callable[[str], None] = lambda words: None,
    ) -> "Book":
        """This book and the rules of other packages."""
        failures = Failures(told)
        return Book(
            {**self.filters, **{name: _filter(name, rule, failures) for name, rule in filters.items()}},
            {**self.scorers, **{name: _scorer(name, rule, failures) for name, rule in scorers.items()}},
            {**self.pickers, **{name: _picker(name, rule, failures) for name, rule in pickers.items()}},
            {**self.unusable, **unusable},
            failures,
        )


OWN: Final = Book(MappingProxyType(FILTERS), MappingProxyType(SCORERS), MappingProxyType(PICKERS))
"""diplex's own rules."""


def _filter(name: str, rule: Filter, failures: Failures) -> Filter:
    def asked(wish: Wish, pool: PoolView) -> Word:
        try:
            word = rule(wish, pool)
        except Exception as error:  # whatever the code of another package raises
            return failures.note("filter", name, _raised(error), pool.name)
        if word is None or isinstance(word, str):
            return word
        return failures.note("filter", name, f"it answered {word!r}, neither None nor words", pool.name)

    return asked


def _scorer(name: str, rule: Scorer, failures: Failures) -> Scorer:
    def asked(wish: Wish, pool: PoolView) -> Score:
        try:
            score = rule(wish, pool)
        except Exception as error:  # likewise
            return NoScore(failures.note("scorer", name, _raised(error), pool.name))
        if isinstance(score, int | float) and 0.0 <= score <= 1.0:
            return float(score)
        return NoScore(failures.note("scorer", name, f"it answered {score!r}, not 0.0 to 1.0", pool.name))

    return asked


def _picker(name: str, rule: Picker, failures: Failures) -> Picker:
    def asked(wish: Wish, candidates: Sequence[Candidate]) -> Candidate:
        try:
            picked = rule(wish, candidates)
        except Exception as error:  # likewise
            failures.note("picker", name, _raised(error))
            return best(wish, candidates)
        if any(picked is candidate for candidate in candidates):
            return picked
        failures.note("picker", name, f"it answered {picked!r}, none of the candidates")
        return best(wish, candidates)

    return asked


def _raised(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
