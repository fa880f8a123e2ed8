"""Who is on a worker, for how long it will be reading prompts, and what its streams can bear of that.

The engine reads prompts in the order in which they came, so each has a moment at which its first token is
due, and the last of them is when the engine will have read everything: the backlog. When a first token comes
early or late, everything behind it is as much early or late, and its moment moves along.

A stream is slowed by every prompt that is read while it runs: those that came after it, and no others. What
its tier promised of the time per output token leaves it an allowance: so many seconds of other prompts'
reading may fall between its tokens before the promise is broken.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, inf
from typing import Final

from diplex_core.words import Claim, Seconds, Tokens

_MEMORY: Final[Seconds] = 2.0
"""The intake is a mean over about so long: bursts of a second or two are what disturbs the streams beside."""


@dataclass(slots=True)
class Guest:
    """One request on a worker, as far as others depend on it.

    Attributes:
        priority: its tier's.
        due: when its first token is expected; `None`: it is out, or nobody can tell.
        ends: when its last token is expected, at the latest; infinite where nobody can tell.
        promised: time per output token; infinite where nothing was promised.
        allowance: seconds of other prompts' reading that may still fall between its tokens.
    """

    priority: int
    due: Seconds | None = None
    ends: Seconds = inf
    promised: Seconds = inf
    allowance: Seconds = inf


@dataclass(frozen=True, slots=True)
class Reading:
    """What reading one more prompt means for the streams beside it.

    Attributes:
        seconds: that the engine spends on it, in all.
        step: a stream's time per token meanwhile.
    """

    seconds: Seconds
    step: Seconds


class Guests:
    """The requests that one worker was granted and has not ended."""

    def __init__(self) -> None:
        self._guests: dict[Claim, Guest] = {}
        self._unread: set[Claim] = set()
        self._rate = 0.0
        self._rate_at: Seconds = 0.0

    def __contains__(self, claim: Claim) -> bool:
        return claim in self._guests

    def __len__(self) -> int:
        return len(self._guests)

    def came(
        self, claim: Claim, guest: Guest, *, prompt: Tokens, reading: Reading | None, now: Seconds
    ) -> None:
        """A request was granted, or found running.

        Args:
            prompt: tokens that are still to be read for it.
            reading: what that means for the others; `None`: nobody can tell.
        """
        self.left(claim)
        if reading is not None:
            for other in self._slowed(reading, now):
                other.allowance -= reading.seconds
                other.ends += reading.seconds
        self._guests[claim] = guest
        if guest.due is not None:
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
        guest.ends += late
        self._unread.discard(claim)
        for other in self._unread:
            behind = self._guests[other]
            if behind.due is not None:
                behind.due += late
                behind.ends += late

    def left(self, claim: Claim) -> None:
        """It is over. Leaving twice does nothing."""
        self._guests.pop(claim, None)
        self._unread.discard(claim)

    @property
    def unread(self) -> int:
        """Guests whose first token is still due."""
        return len(self._unread)

    def backlog(self, now: Seconds) -> Seconds:
        """Time until everything that was granted is read."""
        due = (self._guests[claim].due for claim in self._unread)
        return max(0.0, max((moment for moment in due if moment is not None), default=now) - now)

    def intake(self, now: Seconds) -> float:
        """Prompt tokens a second that were granted of late."""
        return self._rate * exp((self._rate_at - now) / _MEMORY)

    def harmed(self, reading: Reading, priority: int, now: Seconds) -> int:
        """Guests of this priority or a higher one whose promise one more prompt's reading would break."""
        return sum(
            1
            for guest in self._slowed(reading, now)
            if guest.priority >= priority and 0 <= guest.allowance < reading.seconds
        )

    def _slowed(self, reading: Reading, now: Seconds) -> Iterator[Guest]:
        """Those that will still run when a prompt that comes now is read, and were promised a faster step."""
        start = now + self.backlog(now)
        for guest in self._guests.values():
            if guest.promised < reading.step and guest.ends > start:
                yield guest
