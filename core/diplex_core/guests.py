"""Who is on a worker, and for how long it will be reading prompts: what predictions start from.

The engine reads prompts in the order in which they came, so each has a moment at which its first token is
due, and the last of them is when the engine will have read everything: the backlog. When a first token comes
early or late, everything behind it is as much early or late, and its moment moves along.
"""

from collections import Counter
from dataclasses import dataclass
from math import exp
from typing import Final

from diplex_core.words import Claim, Seconds, Tokens

_MEMORY: Final[Seconds] = 2.0
"""The intake is a mean over about so long: bursts of a second or two are what disturbs the streams beside."""


@dataclass(slots=True)
class _Guest:
    priority: int
    due: Seconds | None  # when its first token is expected; `None`: it is out, or nobody can tell


class Guests:
    """The requests that one worker was granted and has not ended."""

    def __init__(self) -> None:
        self._guests: dict[Claim, _Guest] = {}
        self._by_priority: Counter[int] = Counter()
        self._unread: set[Claim] = set()
        self._rate = 0.0
        self._rate_at: Seconds = 0.0

    def came(self, claim: Claim, priority: int, prompt: Tokens, due: Seconds | None, now: Seconds) -> None:
        """A request was granted, or found running.

        Args:
            prompt: tokens that are still to be read for it.
            due: when its first token is expected; `None`: nobody can tell.
        """
        self.left(claim)
        self._guests[claim] = _Guest(priority, due)
        self._by_priority[priority] += 1
        if due is not None:
            self._unread.add(claim)
        self._rate = self.intake(now) + prompt / _MEMORY
        self._rate_at = now

    def read(self, claim: Claim, now: Seconds) -> None:
        """Its first token is out."""
        guest = self._guests.get(claim)
        if guest is None or guest.due is None:
            return
        late = now - guest.due
        guest.due = None
        self._unread.discard(claim)
        for other in self._unread:
            behind = self._guests[other]
            if behind.due is not None:
                behind.due += late

    def left(self, claim: Claim) -> None:
        """It is over. Leaving twice does nothing."""
        guest = self._guests.pop(claim, None)
        if guest is not None:
            self._unread.discard(claim)
            self._by_priority[guest.priority] -= 1

    def backlog(self, now: Seconds) -> Seconds:
        """Time until everything that was granted is read."""
        due = (self._guests[claim].due for claim in self._unread)
        return max(0.0, max((moment for moment in due if moment is not None), default=now) - now)

    def intake(self, now: Seconds) -> float:
        """Prompt tokens a second that were granted of late."""
        return self._rate * exp((self._rate_at - now) / _MEMORY)

    def share_above(self, priority: int) -> float:
        """The share of the guests that have a higher priority; 0 where there are none."""
        above = sum(count for other, count in self._by_priority.items() if other > priority)
        return above / len(self._guests) if self._guests else 0.0
