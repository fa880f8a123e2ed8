"""One request as its client sees it: what it does next, as the SDK would, and what became of it.

A grant that came to nothing is asked for again, at most twenty times; what was produced goes along, as a
prompt that is longer. Durations count from when the request was due.
"""

from dataclasses import dataclass
from typing import Final

from diplex_core.events import Again, Ask, Granted, Refusal, Why
from diplex_core.report.outcome import Ending, Outcome
from diplex_core.sim.arrivals import Arrival
from diplex_core.words import Blocks, EndReason, Seconds, Tokens

MOST_REFUSALS: Final = 20
_FIRST_PAUSE: Final[Seconds] = 0.05
_LONGEST_PAUSE: Final[Seconds] = 1.0

_WANTS_ROOM: Final = frozenset({Why.QUEUE_FULL, Why.QUEUED_TOO_LONG, Why.TOO_LATE})
"""Refusals for want of room, or of time: rejections. All others are failures."""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """Why a client asks no more."""

    problem: str
    detail: str


@dataclass(slots=True, eq=False)
class Ticket:
    """A request that is not over.

    Attributes:
        ask_id: the client's number; sent once more after a refusal, it gets another.
        sent: when it was last sent as a new request.
        granted: the latest grant; `queued`: from ask to grant, as the router said with the first.
        tokens: its output so far, of all attempts; `attempted`: before the attempt that runs.
        first, last: when its first and its latest token came, on the client's clock.
        cached: prompt tokens that the latest attempt did not have to read.
        leaving: its client has given up, for this reason.
    """

    number: int
    arrival: Arrival
    ask_id: int
    sent: Seconds
    granted: Granted | None = None
    queued: Seconds | None = None
    again: Again | None = None
    refusals: int = 0
    tokens: Tokens = 0
    attempted: Tokens = 0
    first: Seconds | None = None
    last: Seconds | None = None
    gap: Seconds = 0.0
    cached: Tokens = 0
    leaving: GivenUp | None = None
    retry_given: int = 0
    retry_obeyed: int = 0

    @property
    def request_id(self) -> str:
        return self.arrival.request_id or f"r{self.number}"

    def ask(self, now: Seconds, timeout: Seconds | None) -> Ask:
        arrival = self.arrival
        return Ask(
            self.request_id,
            arrival.model,
            arrival.tier,
            arrival.api_key,
            prompt_tokens=arrival.prompt_tokens,
            exact=True,
            block_hashes=arrival.block_hashes,
            max_tokens=arrival.max_tokens or arrival.output_tokens,
            timeout=None if timeout is None else max(0.001, self.sent + timeout - now),
            age=now - self.sent,
            again=self.again,
        )

    def serving(self, granted: Granted) -> None:
        """It was granted."""
        self.granted = granted
        self.attempted = self.tokens
        if self.first is None:  # later on the router's figure holds the time that it ran, too
            self.queued = granted.queued

    def heard(self, tokens: Tokens, first: Seconds | None, last: Seconds | None, gap: Seconds) -> None:
        """What an attempt said: so many tokens, the first and the last at these moments, with this longest
        gap between two of them."""
        if first is None or last is None:
            return
        if self.last is not None:
            gap = max(gap, first - self.last)
        self.gap = max(self.gap, gap)
        self.first = first if self.first is None else self.first
        self.last = last
        self.tokens = self.attempted + tokens

    def check(self, cap: Tokens) -> None:
        """Its answer is whole: of all attempts together, nothing was lost and nothing said twice.

        Args:
            cap: the most that its last grant let it come to.
        Raises:
            AssertionError: something was.
        """
        whole = max(min(self.arrival.output_tokens, cap), self.attempted + 1)
        if self.tokens != whole:
            raise AssertionError(f"{self.request_id} came to {self.tokens} tokens, its answer has {whole}")

    def came_to_nothing(self, reason: EndReason, said: str, needed: Blocks = 0) -> Seconds | GivenUp:
        """The pause before it is asked for again, or why it is not."""
        if self.granted is None:
            raise LookupError(f"{self.request_id} came to nothing without a grant")
        worker = self.granted.worker
        if self.tokens and not worker.can_resume:
            return GivenUp(
                "CUT_SHORT", f"the answer was cut after {self.tokens} tokens; {worker.name}: {said}"
            )
        self.refusals += reason is not EndReason.PREEMPTED
        if self.refusals > MOST_REFUSALS:
            why = f"workers turned the request away {self.refusals} times; the last, {worker.name}: {said}"
            return GivenUp("REFUSED_TOO_OFTEN", why)
        self.again = Again(self.granted.claim, reason, worker.name, self.tokens, needed)
        if reason is EndReason.PREEMPTED or (self.refusals == 1 and reason is not EndReason.FAILED):
            return 0.0
        return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (self.refusals - 1))

    def rejected_by(self, refusal: Refusal) -> bool:
        """Refused for want of room or for lateness, before anything was said."""
        return refusal.why in _WANTS_ROOM and not self.tokens

    def sent_again(self, ask_id: int, now: Seconds) -> None:
        """It was refused, and goes out once more as a new request."""
        self.ask_id, self.sent = ask_id, now
        self.retry_obeyed += 1
        self.granted, self.queued, self.again = None, None, None
        self.refusals = 0

    def outcome(
        self, ended: Ending, at: Seconds, model: str, tier: str, problem: str = "", detail: str = ""
    ) -> Outcome:
        """What became of it, when its client heard that it was over."""
        arrival, granted, first, last = self.arrival, self.granted, self.first, self.last
        tpot = gap = None
        if first is not None and last is not None and self.tokens > 1:
            tpot, gap = (last - first) / (self.tokens - 1), self.gap
        return Outcome(
            self.request_id,
            arrival.model or model,
            arrival.tier or tier,
            arrival.at,
            ended,
            served_tier=granted.tier if granted is not None else "",
            tenant=granted.tenant if granted is not None else "",
            worker=granted.worker.name if granted is not None else "",
            queued=self.queued,
            ttft=None if first is None else first - arrival.at,
            tpot=tpot,
            longest_gap=gap,
            e2e=at - arrival.at if ended is Ending.COMPLETED else None,
            prompt_tokens=arrival.prompt_tokens,
            cached_tokens=self.cached,
            output_tokens=self.tokens,
            problem=problem,
            detail=detail,
            retry_given=self.retry_given,
            retry_obeyed=self.retry_obeyed,
        )
