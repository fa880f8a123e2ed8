"""When each running job was last heard of, and so whether its engine still computes.

A server's health page is answered by the part that listens, which may be well while the part that computes
hangs. But one that computes brings tokens. So: no token of any job for a while, though the oldest has been
there for as long, means that nothing is computed; and one stream that stops while others go on is lost.
"""

from dataclasses import dataclass
from typing import Final

from diplex_core.words import Claim, Seconds

FOREVER: Final[Seconds] = float("inf")


@dataclass(slots=True)
class _Beat:
    began: Seconds
    heard: Seconds | None = None  # its last token; `None`: none yet


class Pulse:
    """What is running, by claim. Time comes in."""

    def __init__(self) -> None:
        self._beats: dict[Claim, _Beat] = {}
        self._last: Seconds = -FOREVER  # any job's last token

    def began(self, claim: Claim, now: Seconds) -> None:
        self._beats[claim] = _Beat(now)

    def heard(self, claim: Claim, now: Seconds) -> None:
        self._last = now
        if (beat := self._beats.get(claim)) is not None:
            beat.heard = now

    def ended(self, claim: Claim) -> None:
        self._beats.pop(claim, None)

    def silence(self, now: Seconds) -> Seconds:
        """How long nothing has come though something should have; 0: nothing runs."""
        if not self._beats:
            return 0.0
        oldest = min(beat.began for beat in self._beats.values())
        return now - max(self._last, oldest)

    def stalled(self, now: Seconds, after: Seconds) -> list[Claim]:
        """Jobs that had begun to bring tokens, and have brought none for so long."""
        return [
            claim
            for claim, beat in self._beats.items()
            if beat.heard is not None and now - beat.heard > after
        ]

    def talking(self, since: Seconds) -> list[Claim]:
        """Jobs that brought tokens since then."""
        return [
            claim for claim, beat in self._beats.items() if beat.heard is not None and beat.heard >= since
        ]
