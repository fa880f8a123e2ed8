"""Whether waiting will help a request that finds no room now, and how fast those before it are served."""

from collections import deque
from collections.abc import Sequence
from typing import Final

from diplex_core.events import Refusal, Why
from diplex_core.fleet import Worker
from diplex_core.placement.place import Placement
from diplex_core.placement.rules import Wish, need_on, whole
from diplex_core.words import Seconds, Tokens

_REMEMBERED: Final = 256
_OF_LATE: Final[Seconds] = 60.0
_ENOUGH: Final = 4
_PAUSE: Final[Seconds] = 10.0
_FASTER: Final = 1.002
_SLOWER: Final = 0.97
"""In balance where about one in fifteen is refused again."""
_LEAST_PACE: Final = 0.4
_BY_RULE = frozenset({"pattern", "tier", "tenant", "can_resume"})
"""Filters that rule a pool out whatever the request's size."""


class Drain:
    """How fast a queue's requests are served, by the last that ended: tokens a second.

    While all are served at once, fewer end than could. So what ended counts from when somebody had to wait,
    or was refused, with no pause of `_PAUSE` since.

    Attributes:
        pace: so many times as fast as that requests are told to come back: slower where some of those who did
            were refused again.
    """

    def __init__(self) -> None:
        self._ended: deque[tuple[Seconds, Tokens]] = deque(maxlen=_REMEMBERED)
        self._since: Seconds = 0.0
        self._last: Seconds = -_PAUSE
        self.pace = 1.0

    def kept_its_word(self) -> None:
        """Somebody who was told to come back was served."""
        self.pace = min(1.0, self.pace * _FASTER)

    def broke_its_word(self) -> None:
        """Somebody who was told to come back was refused again."""
        self.pace = max(_LEAST_PACE, self.pace * _SLOWER)

    def contended(self, now: Seconds) -> None:
        """Somebody has to wait, or is refused."""
        if now - self._last > _PAUSE:
            self._since = now
        self._last = now

    def ended(self, tokens: Tokens, now: Seconds) -> None:
        """A request is over that held so many tokens of room."""
        self._ended.append((now, tokens))

    def rate(self, now: Seconds, *, contended: bool = True) -> float | None:
        """Tokens a second; `None`: too few have ended to tell.

        Args:
            contended: only since somebody had to wait.
        """
        oldest = max(self._since if contended else -_OF_LATE, now - _OF_LATE)
        ended = [one for one in self._ended if one[0] >= oldest]
        if len(ended) < _ENOUGH:
            return None
        return sum([tokens for _, tokens in ended[1:]]) / max(now - ended[0][0], 1e-3)


def hopeless(
    wish: Wish, pools: Sequence[Worker], placement: Placement, retry_after: Seconds, now: Seconds
) -> Refusal | None:
    """Why no waiting will help this wish; None: it may.

    Args:
        pools: every worker that has said what it is.
        retry_after: for refusals that a returning worker would mend.
    """
    serving = [pool for pool in pools if wish.model in pool.facts.models]
    if not serving:
        return Refusal(Why.NO_WORKER, f"no worker serves {wish.model} now", retry_after)
    able = [pool for pool in serving if placement.can_ever(wish, pool)]
    if not able:
        return _fits_nowhere(wish, serving, placement)
    if all(pool.gone(now) for pool in able):
        gone = ", ".join(f"{pool.name} ({pool.trouble})" for pool in able)
        return Refusal(Why.NO_WORKER, f"no worker for {wish.model} is up: {gone}", retry_after)
    return None


def _fits_nowhere(wish: Wish, serving: Sequence[Worker], placement: Placement) -> Refusal:
    """No pool could take it even when empty: say which numbers, or which rules, stand against it."""
    words = {pool.name: placement.explain(wish, pool).objections for pool in serving}
    allowed = [pool for pool in serving if not _BY_RULE & words[pool.name].keys()]
    if not allowed:
        why = "; ".join(f"{name}: {next(iter(said.values()))}" for name, said in words.items())
        return Refusal(Why.NOT_PLACEABLE, f"tier {wish.tier.name} has no worker for {wish.model} ({why})")
    roomiest = max(allowed, key=lambda pool: pool.facts.usable_tokens)
    facts, need = roomiest.facts, need_on(wish, roomiest)
    if (slots := words[roomiest.name].get("slots_fit")) is not None:
        numbers = {"needed_slots": str(need.slots), "largest_engine_slots": str(facts.capacity_slots)}
        message = f"the request fits no engine: {facts.name}: {slots}. Mend: n at most {facts.capacity_slots}"
        return Refusal(Why.REQUEST_TOO_LARGE, message, numbers=numbers)
    blocks = max(whole(wish, facts), wish.least_blocks)
    most = min(facts.context or facts.usable_tokens, facts.usable_tokens)
    return Refusal(
        Why.REQUEST_TOO_LARGE,
        f"the request fits no pool: {wish.prompt} prompt tokens and {need.max_tokens} output tokens need "
        f"{blocks} KV blocks; the largest, {facts.name}, has {facts.usable_blocks} and a context of "
        f"{facts.context} tokens. Mend: at most {most} tokens of prompt and output together",
        numbers={
            "needed_blocks": str(blocks),
            "largest_pool_blocks": str(facts.usable_blocks),
            "fits_tokens": str(most),
        },
    )
