"""The batch on a clock of its own: it is told the time, and says what happened up to then."""

from typing import NamedTuple, TypeAlias

from diplex_core.sim.batch import Batch, Work
from diplex_core.words import Blocks, Claim, EndReason, Seconds, Tokens


class First(NamedTuple):
    """The first token of a request's first choice to speak is out."""

    claim: Claim
    at: Seconds


class Over(NamedTuple):
    """The last choice of a request has said its last word, or it was cancelled.

    Attributes:
        tokens: that this attempt produced, of all choices.
        last: when the last of them came; `None`: none did.
        longest_gap: between two moments at which it got tokens.
    """

    claim: Claim
    at: Seconds
    reason: EndReason
    tokens: Tokens
    last: Seconds | None
    longest_gap: Seconds


Word: TypeAlias = First | Over


class _Heard:
    __slots__ = ("first", "gap", "last", "left", "tokens")

    def __init__(self, left: int) -> None:
        self.left = left
        self.tokens = 0
        self.first = False
        self.last: Seconds | None = None
        self.gap = 0.0


class Stepwise:
    """A batch, iteration by iteration.

    Attributes:
        due: when the iteration under way ends; `None`: there is none.
        pace: real seconds that a simulated one takes.
    """

    def __init__(self, batch: Batch, pace: float = 1.0) -> None:
        self.batch = batch
        self.due: Seconds | None = None
        self.pace = pace
        self._heard: dict[Claim, _Heard] = {}

    @property
    def used_blocks(self) -> Blocks:
        return self.batch.cache.used

    def submit(self, work: Work, now: Seconds) -> None:
        self.batch.submit(work)
        self._heard[work.claim] = _Heard(work.choices)
        if self.due is None:
            self._plan(now)

    def cancel(self, claim: Claim, now: Seconds) -> None:
        self.batch.cancel(claim)

    def set_pace(self, pace: float, now: Seconds) -> None:
        self.pace = pace

    def so_far(self, claim: Claim, now: Seconds) -> tuple[Tokens, Seconds | None, Seconds]:
        """Tokens of a running request, when the last of them came, and its longest gap."""
        heard = self._heard[claim]
        return heard.tokens, heard.last, heard.gap

    def advance(self, now: Seconds) -> list[Word]:
        """What happened up to now."""
        words: list[Word] = []
        while self.due is not None and self.due <= now:
            at = self.due
            self._finish(at, words)
            self.due = None
            if not self.batch.idle:
                self._plan(at)
        return words

    def _plan(self, at: Seconds) -> None:
        self.due = at + self.batch.plan(lambda claim: None) * self.pace

    def _finish(self, at: Seconds, words: list[Word]) -> None:
        def say(claim: Claim, choice: int, token_id: int | None, text: str, end: EndReason | None) -> None:
            heard = self._heard[claim]
            if token_id is not None:
                heard.tokens += 1
                if not heard.first:
                    heard.first = True
                    words.append(First(claim, at))
                elif heard.last is not None:
                    heard.gap = max(heard.gap, at - heard.last)
                heard.last = at
            if end is not None:
                heard.left -= 1
                if heard.left == 0:
                    del self._heard[claim]
                    words.append(Over(claim, at, end, heard.tokens, heard.last, heard.gap))

        self.batch.finish(say)
