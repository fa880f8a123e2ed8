"""Which tiers are owed something: each has a least share of what is granted while its requests wait.

By priority alone a tier that nobody waits for could wait for ever behind those that somebody does. So what is
granted is counted, in tokens, over a window that fades within about a minute; a tier that waits and has had
less than its least share of that is owed, and an owed tier is served before all others.
"""

from collections.abc import Iterable
from math import exp
from typing import Final

from diplex_core.words import Seconds, Tier, Tokens

MEMORY: Final[Seconds] = 60.0
"""What was granted so long ago counts a third of what is granted now."""


class Shares:
    """What each tier was granted of late."""

    def __init__(self) -> None:
        self._granted: dict[str, tuple[float, Seconds]] = {}  # by tier, as it counted at that time

    def granted(self, tier: str, tokens: Tokens, now: Seconds) -> None:
        self._granted[tier] = self._of(tier, now) + tokens, now

    def of(self, tier: str, now: Seconds) -> float | None:
        """Its share of all that was granted of late; `None`: nothing was."""
        total = sum([self._of(name, now) for name in self._granted])
        return self._of(tier, now) / total if total else None

    def owed(self, waiting: Iterable[Tier], now: Seconds) -> list[str]:
        """Of the tiers that wait, those that have had less than their least share."""
        return [tier.name for tier in waiting if self.owes(tier, now)]

    def owes(self, tier: Tier, now: Seconds) -> bool:
        """Whether a tier that waits has had less than its least share."""
        share = self.of(tier.name, now) if tier.least_share else None
        return share is not None and share < tier.least_share

    def _of(self, tier: str, now: Seconds) -> float:
        granted, at = self._granted.get(tier, (0.0, now))
        return granted * exp((at - now) / MEMORY)
