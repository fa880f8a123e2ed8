"""Who is on a worker, for how long it will be reading prompts, and what its streams can bear of that.

The engine reads prompts in the order in which they came, so each has a moment at which its first token is
due, and the last of them is when the engine will have read everything: the backlog. When a first token comes
early or late, everything behind it is as much early or late, and its moment moves along.

A stream is slowed by every prompt that is read while it runs: those that came after it, and no others. What
its tier promised of the time per output token leaves it an allowance: so many seconds of other prompts'
reading may fall between its tokens before the promise is broken.
"""

from dataclasses import dataclass
from math import exp, inf
from typing import Final, NamedTuple

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


class Reading(NamedTuple):
    """What reading one more prompt means for the streams beside it.

    Attributes:
        seconds: that the engine spends on it, in all.
        step: a stream's time per token meanwhile.
    """

    seconds: Seconds
    step: Seconds


class Guests:
    """The requests that one worker was granted and has not ended.

    Attributes:
        read_by: when everything that was granted will be read; long ago where nothing is left to be read.
    """

    def __init__(self) -> None:
        self.read_by: Seconds = -inf
        self._guests: dict[Claim, Guest] = {}
        self._unread: dict[Claim, Guest] = {}
        self._promised: dict[Claim, Guest] = {}  # those to whom it matters what is read beside them
        self._frailest: Seconds = inf  # none of them can bear less, of those that can bear anything
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
        if reading is not None and self._promised:
            self._slow(reading, now)
        self._guests[claim] = guest
        if guest.promised < inf:
            self._promised[claim] = guest
            if 0 <= guest.allowance < self._frailest:
                self._frailest = guest.allowance
        if guest.due is not None:
            self._unread[claim] = guest
            self.read_by = max(self.read_by, guest.due)
        self._rate = self.intake(now) + prompt / _MEMORY
        self._rate_at = now

    def _slow(self, reading: Reading, now: Seconds) -> None:
        """Those that will still run when a prompt that comes now is read, and were promised a faster step,
        bear it."""
        seconds, step = reading
        start, frailest = max(now, self.read_by), inf
        for other in self._promised.values():
            if other.promised < step and other.ends > start:
                other.allowance -= seconds
                other.ends += seconds
            if 0 <= other.allowance < frailest:
                frailest = other.allowance
        self._frailest = frailest

    def read(self, claim: Claim, now: Seconds) -> None:
        """Its first token is out."""
        guest = self._unread.pop(claim, None)
        if guest is None or guest.due is None:
            return
        late = now - guest.due
        guest.due = None
        guest.ends += late
        self.read_by = -inf
        for behind in self._unread.values():
            if behind.due is not None:
                behind.due += late
                behind.ends += late
                self.read_by = max(self.read_by, behind.due)

    def left(self, claim: Claim) -> None:
        """It is over. Leaving twice does nothing."""
        guest = self._guests.pop(claim, None)
        if guest is None:
            return
        self._promised.pop(claim, None)
        if self._unread.pop(claim, None) is not None:
            due = (other.due for other in self._unread.values())
            self.read_by = max((moment for moment in due if moment is not None), default=-inf)

    @property
    def unread(self) -> int:
        """Guests whose first token is still due."""
        return len(self._unread)

    def backlog(self, now: Seconds) -> Seconds:
        """Time until everything that was granted is read."""
        return max(0.0, self.read_by - now)

    def intake(self, now: Seconds) -> float:
        """Prompt tokens a second that were granted of late."""
        return self._rate * exp((self._rate_at - now) / _MEMORY) if self._rate else 0.0

    def harmed(self, reading: Reading, priority: int, now: Seconds) -> int:
        """Guests of this priority or a higher one whose promise one more prompt's reading would break."""
        seconds, step = reading
        if seconds <= self._frailest:
            return 0
        start = max(now, self.read_by)
        return sum(
            1
            for guest in self._promised.values()
            if guest.promised < step
            and guest.ends > start
            and guest.priority >= priority
            and 0 <= guest.allowance < seconds
        )
