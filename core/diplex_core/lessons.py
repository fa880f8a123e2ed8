"""What a worker's first tokens and ends teach about what is predicted of it.

An engine reads one prompt after another. So from the first token of one, or from the grant where nothing was
read before it, to the first token of the next it has read that prompt and taken the steps between its chunks.
What remains of that time once the steps are taken off, against the model's word on the reading, is a lesson
on reading. The time per token of an answer that has ended, less what the reading of others was expected to
take of it, is a lesson on steps. Where the part that is to be learned was not the larger one, nothing is.

First tokens of one moment were read in one step, and are one lesson. Where the engine was idle, grant, start
and report were on their way within that time; a short prompt's is then mostly theirs, and is no lesson.
"""

from dataclasses import dataclass
from math import inf
from typing import Final

from diplex_core.events import EndedClaim
from diplex_core.model.correction import Correction
from diplex_core.model.forecast import Outlook
from diplex_core.words import Claim, EndReason, Seconds, Tokens

_LARGER: Final = 0.5
_LONG: Final[Seconds] = 0.02
"""Beside so long a reading a few messages on their way count for little."""
_LEAST_TOKENS: Final = 8
"""Fewer are too few for a mean."""
_WHOLE: Final = frozenset({EndReason.STOP, EndReason.LENGTH})


@dataclass(slots=True)
class _Interval:
    """The engine's time up to some first tokens, and the model's own words on its parts."""

    seconds: Seconds
    reads: Seconds
    steps: Seconds


@dataclass(slots=True)
class _Expected:
    """What the model said of a request when it was granted."""

    granted: Seconds
    reads: Seconds
    steps: Seconds
    step: Seconds
    undisturbed: float  # the share of its time per token that the reading of others does not take
    choices: int
    produced: Tokens


class Lessons:
    """One worker's, from one of its boots to the next."""

    __slots__ = ("_expected", "_interval", "_last_read", "learned")

    def __init__(self) -> None:
        self.learned = Correction()
        self._expected: dict[Claim, _Expected] = {}
        self._last_read: Seconds = -inf
        self._interval: _Interval | None = None  # is over once a later first token has come

    def granted(
        self, claim: Claim, outlook: Outlook, now: Seconds, *, choices: int = 1, produced: Tokens = 0
    ) -> None:
        """So much is expected of a request that was granted now; `produced`: by attempts before."""
        undisturbed = outlook.undisturbed / outlook.tpot if outlook.tpot else 0.0
        self._expected[claim] = _Expected(
            now, outlook.reads, outlook.steps, outlook.step, undisturbed, choices, produced
        )

    def read(self, claim: Claim, now: Seconds) -> None:
        """Its first token is out."""
        expected = self._expected.get(claim)
        if expected is None:
            self._interval, self._last_read = None, now  # nobody knows how long that one took
            return
        granted, reads, last = expected.granted, expected.reads, self._last_read
        if now > last:
            if self._interval is not None:
                self._learn_reading(self._interval)
            if granted > last:
                self._interval = _Interval(now - granted, reads, expected.steps) if reads >= _LONG else None
            else:
                self._interval = _Interval(now - last, reads, expected.steps)
            self._last_read = now
        elif self._interval is not None:
            self._interval.reads += reads
        expected.granted = expected.reads = expected.steps = 0.0  # a lesson once, and room for a million

    def _learn_reading(self, interval: _Interval) -> None:
        learned = self.learned
        reads, steps = learned.reading * interval.reads, learned.step * interval.steps
        if reads > _LARGER * (reads + steps):
            # An engine that is far quicker than the model is not taken for one that needs no time.
            observed = max(interval.seconds - steps, 0.1 * interval.seconds)
            learned.saw_reading(interval.reads, observed)

    def ended(self, ended: EndedClaim) -> None:
        """It is over."""
        expected = self._expected.pop(ended.claim, None)
        if expected is None or ended.reason not in _WHOLE:
            return
        choices, produced = expected.choices, expected.produced
        tpot = ended.tpot(choices, produced)
        if tpot is None or ended.output_tokens / choices - produced < _LEAST_TOKENS:
            return
        if expected.undisturbed > _LARGER:
            self.learned.saw_step(expected.step, tpot * expected.undisturbed)

    def left(self, claim: Claim) -> None:
        """It will never be heard of again."""
        self._expected.pop(claim, None)
