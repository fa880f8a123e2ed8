"""How much each worker was given to read of late, beside the others of its kind.

Prompts that begin alike go where their beginning is resident, and would all go to one worker if nothing spoke
against it. So each worker's prompt tokens are summed up, older ones counting less and less, and placement
compares the sum with the mean over the workers of that kind that take requests.

A worker that comes, or comes back, begins at that mean: what it has not read while it was away is no reason
to give it everything now.
"""

from math import exp
from typing import Final

from diplex_core.words import Seconds

_MEMORY: Final[Seconds] = 300.0
"""What was given so long ago counts 1/e, so half after three and a half minutes: long beside one prompt's
reading, short beside the time in which the people who ask change."""


class _Fading:
    """A sum of tokens in which older ones count less."""

    __slots__ = ("_at", "_tokens")

    def __init__(self) -> None:
        self._tokens = 0.0
        self._at: Seconds = 0.0

    def at(self, now: Seconds) -> float:
        return self._tokens * exp((self._at - now) / _MEMORY) if self._tokens else 0.0

    def add(self, tokens: float, now: Seconds) -> None:
        self._tokens = max(0.0, self.at(now) + tokens)  # what was taken away may have been rounded
        self._at = now


class Peers:
    """Workers of one kind, as far as they take requests."""

    def __init__(self) -> None:
        self.members = 0
        self.tokens = _Fading()

    def mean(self, now: Seconds) -> float:
        return self.tokens.at(now) / self.members if self.members else 0.0


class Share:
    """One worker's part in what its kind was given to read."""

    __slots__ = ("_counted", "_peers", "_tokens")

    def __init__(self, peers: Peers | None = None) -> None:
        self._peers = peers or Peers()
        self._tokens = _Fading()
        self._counted = False

    def moved(self, peers: Peers, now: Seconds) -> None:
        """It is of that kind from now on."""
        counted = self._counted
        self.counts(False, now)
        self._peers = peers
        self.counts(counted, now)

    def counts(self, counts: bool, now: Seconds) -> None:
        """It takes requests now, or no longer."""
        if counts == self._counted:
            return
        peers, tokens = self._peers, self._tokens
        self._counted = counts
        if counts:
            tokens.add(max(0.0, peers.mean(now) - tokens.at(now)), now)
            peers.tokens.add(tokens.at(now), now)
            peers.members += 1
        else:
            peers.tokens.add(-tokens.at(now), now)
            peers.members -= 1

    def given(self, tokens: float, now: Seconds) -> None:
        """So many prompt tokens are to be read there."""
        self._tokens.add(tokens, now)
        if self._counted:
            self._peers.tokens.add(tokens, now)

    def beside(self, now: Seconds) -> tuple[float, float]:
        """Tokens that it was given of late, and the mean of its kind."""
        return self._tokens.at(now), self._peers.mean(now)
