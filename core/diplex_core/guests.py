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
from typing import Final

from diplex_core.value import value
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


@value
class Reading:
    """What reading one more prompt means for the streams beside it.

    Attributes:
        seconds: that the engine spends on it, in all.
        step: a stream's time per token meanwhile.
    """

    seconds: Seconds
    step: Seconds


class Guests:
    """The requests that one worker was granted and has not ended, as far as they matter to others: while
    their prompt is still to be read, and for as long as they run where something was promised them.

    Attributes:
        read_by: when everything that was granted will be read; long ago where nothing is left to be read.
        unread: guests whose first token is still due.
    """

    __slots__ = ("_frailest", "_late", "_promised", "_rate", "_rate_at", "_unread", "read_by", "unread")

    def __init__(self) -> None:
        self.read_by: Seconds = -inf
        self.unread = 0
        self._unread: dict[Claim, Guest] = {}  # in the order in which they are due
        self._late: Seconds = 0.0  # what all of these are late by now: their `due` and `ends` are without it
        self._promised: dict[Claim, Guest] = {}  # those to whom it matters what is read beside them
        self._frailest: Seconds = inf  # none of them can bear less, of those that can bear anything
        self._rate = 0.0
        self._rate_at: Seconds = 0.0

    def claims(self) -> set[Claim]:
        """Those that matter to others."""
        return {*self._unread, *self._promised}

    def came(
        self, claim: Claim, guest: Guest, *, prompt: Tokens, reading: Reading | None, now: Seconds
    ) -> None:
        """A request was granted, or found running.

        Args:
            guest: due no sooner than those that are to be read before it.
            prompt: tokens that are still to be read for it.
            reading: what that means for the others; `None`: nobody can tell.
        """
        self.left(claim)
        if reading is not None and self._promised:
            self._slow(reading, now)
        if guest.promised < inf:
            self._promised[claim] = guest
            if 0 <= guest.allowance < self._frailest:
                self._frailest = guest.allowance
        if guest.due is not None:
            self._unread[claim] = guest
            self.unread += 1
            self.read_by = guest.due
            guest.due -= self._late
            guest.ends -= self._late
        self._rate = self.intake(now) + prompt / _MEMORY
        self._rate_at = now

    def _slow(self, reading: Reading, now: Seconds) -> None:
        """Those that will still run when a prompt that comes now is read, and were promised a faster step,
        bear it."""
        seconds, step, late = reading.seconds, reading.step, self._late
        start, frailest = max(now, self.read_by), inf
        for other in self._promised.values():
            allowance = other.allowance
            if other.promised < step and (other.ends if other.due is None else other.ends + late) > start:
                other.allowance = allowance = allowance - seconds
                other.ends += seconds
            if 0 <= allowance < frailest:
                frailest = allowance
        self._frailest = frailest

    def read(self, claim: Claim, now: Seconds) -> None:
        """Its first token is out. What is behind it is as early or late as it is."""
        guest = self._unread.pop(claim, None)
        if guest is None or guest.due is None:
            return
        guest.ends += now - guest.due
        self._late = now - guest.due
        guest.due = None
        self._one_less_unread()

    def left(self, claim: Claim) -> None:
        """It is over. Leaving twice does nothing."""
        self._promised.pop(claim, None)
        if self._unread.pop(claim, None) is not None:
            self._one_less_unread()

    def _one_less_unread(self) -> None:
        self.unread -= 1
        if self.unread:
            last = next(reversed(self._unread.values())).due
            self.read_by = -inf if last is None else last + self._late
        else:
            self.read_by, self._late = -inf, 0.0

    def backlog(self, now: Seconds) -> Seconds:
        """Time until everything that was granted is read."""
        ahead = self.read_by - now
        return ahead if ahead > 0.0 else 0.0

    def intake(self, now: Seconds) -> float:
        """Prompt tokens a second that were granted of late."""
        return self._rate * exp((self._rate_at - now) / _MEMORY) if self._rate else 0.0

    def harmed(self, reading: Reading, priority: int, now: Seconds) -> int:
        """Guests of this priority or a higher one whose promise one more prompt's reading would break."""
        seconds, step = reading.seconds, reading.step
        if seconds <= self._frailest:
            return 0
        start, late = max(now, self.read_by), self._late
        return sum(
            1
            for guest in self._promised.values()
            if guest.promised < step
            and (guest.ends if guest.due is None else guest.ends + late) > start
            and guest.priority >= priority
            and 0 <= guest.allowance < seconds
        )
