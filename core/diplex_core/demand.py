"""What higher tiers came to ask of late: so much room and time is left for the next of them.

Whoever is promised a first token within a moment cannot wait for somebody to end. Where a tier without such a
promise fills every slot, or has a long prompt read, the next request of the other is late before it has
asked. So the size of requests with a promise is remembered for a while, and a tier that promises no first
token leaves room for one more of them on each worker that both may use (the filter `leaves_room`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from diplex_core.placement.rules import Wish
from diplex_core.words import Pattern, Seconds, Tier, Tokens

_OF_LATE: Final[Seconds] = 30.0
_FEW: Final = 0.1
_STRAINED: Final[Seconds] = 30.0
_MEMORY: Final = 1 / 16
"""So much a new request counts among those before."""


@dataclass(slots=True)
class Wanted:
    """Requests of one tier for one model, as they were of late.

    Attributes:
        prompt, tokens: of one of them, on average; `tokens` with its answers.
        at: when the last of them was asked for.
        grants: of late, by the pattern that they went to.
        late_at: when one of them was last predicted to be late wherever it went.
    """

    tier: Tier
    model: str
    prompt: float
    tokens: float
    at: Seconds
    grants: dict[Pattern, float] = field(default_factory=dict)
    late_at: Seconds = -_STRAINED

    def counts_on(self, pattern: Pattern, now: Seconds) -> bool:
        """Whether they need workers of this pattern: more than a few went there, or the others are late."""
        grants = self.grants
        return (
            now - self.late_at < _STRAINED
            or not grants
            or grants.get(pattern, 0.0) >= _FEW * sum(grants.values())
        )


class Demand:
    """What tiers that promise a first token are asked for."""

    def __init__(self) -> None:
        self._wanted: dict[tuple[str, str], Wanted] = {}
        self._above: dict[int, list[Wanted]] = {}  # of these, by a priority those of higher ones

    def asked(self, wish: Wish, tokens: Tokens, now: Seconds) -> None:
        """A request came, which will use so many tokens in all."""
        if wish.ttft_target is None:
            return
        key = wish.tier.name, wish.model
        wanted = self._wanted.get(key)
        if wanted is None or wanted.tier is not wish.tier:
            self._wanted[key] = Wanted(wish.tier, wish.model, wish.prompt, tokens, now)
            self._above.clear()
            return
        wanted.prompt += _MEMORY * (wish.prompt - wanted.prompt)
        wanted.tokens += _MEMORY * (tokens - wanted.tokens)
        wanted.at = now

    def granted(self, wish: Wish, pattern: Pattern, ttft: Seconds | None) -> None:
        """A request went to a worker of this pattern. `ttft`: predicted, from its ask."""
        wanted = self._wanted.get((wish.tier.name, wish.model))
        if wanted is not None:
            grants = wanted.grants
            for other in grants:
                grants[other] *= 1.0 - _MEMORY
            grants[pattern] = grants.get(pattern, 0.0) + 1.0
            if ttft is not None and wish.ttft_target is not None and ttft > wish.ttft_target:
                wanted.late_at = wish.now

    def above(self, priority: int, now: Seconds) -> Sequence[Wanted]:
        """What came of late for tiers of a higher priority."""
        above = self._above.get(priority)
        if above is None:
            wanted = self._wanted.values()
            above = self._above[priority] = [one for one in wanted if one.tier.priority > priority]
        for one in above:
            if now - one.at >= _OF_LATE:
                return [one for one in above if now - one.at < _OF_LATE]
        return above
