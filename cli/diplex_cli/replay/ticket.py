"""One request as its sender sees it: what is to be sent, and what became of it on the client's clock."""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Final

import grpc

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2
from diplex.wire.request import RequestLife
from diplex.wire.status import Problem
from diplex_core.report import Ending, Outcome
from diplex_core.words import Seconds, Tokens

_GOOD_ENDS: Final = frozenset({pb.END_REASON_STOP, pb.END_REASON_LENGTH})


@dataclass(frozen=True, slots=True)
class Planned:
    """A request to come. `due` counts from the beginning of the run; `prompt` makes its prompt, of
    `prompt_tokens`. `least`: tokens that its answer has at least, of the `max_tokens` that it asks for;
    `None`: it has all of these."""

    request_id: str
    due: Seconds
    tier: str
    prompt: Callable[[], pb.TokenIds]
    prompt_tokens: Tokens
    max_tokens: Tokens
    least: Tokens | None = None
    api_key: str | None = None


class Ticket:
    """A `Consumer` that measures. Every duration counts from when the request was due, not from when it was
    sent: a generator that lags must not make a fleet look fast.

    Args:
        due: on the clock of `perf_counter`.
        over: called when the request is over, with the ticket.
    """

    __slots__ = (
        *("due", "ended", "first", "gap", "grant", "last", "life", "over", "planned", "problem", "prompt"),
        *("queued", "reason", "retry_given", "retry_obeyed", "sent", "tokens", "usage"),
    )

    def __init__(
        self, planned: Planned, prompt: pb.TokenIds, due: Seconds, over: Callable[["Ticket"], None]
    ) -> None:
        self.planned = planned
        self.prompt = prompt
        self.due = due
        self.over = over
        self.sent = 0.0
        self.first: Seconds | None = None
        self.last = self.ended = 0.0
        self.gap = 0.0
        self.tokens = 0
        self.queued: Seconds | None = None
        self.grant: pb.Grant | None = None
        self.life: RequestLife | None = None
        self.reason: pb.EndReason.ValueType = pb.END_REASON_UNSPECIFIED
        self.problem: Problem | None = None
        self.usage = pb.Usage()
        self.retry_given = self.retry_obeyed = 0

    # What the request's life calls.

    def on_queued(self, position: int) -> None:
        """Queueing is in the grant's own figure."""

    def on_serving(self, granted: router_pb2.Granted, grant: pb.Grant) -> None:
        self.grant = grant
        if self.first is None:  # after a preemption the router's figure holds the time that it ran, too
            self.queued = granted.queue_ms / 1000

    def on_preempted(self, preemptions: int) -> None:
        """What it waits for then is in the gap between two tokens."""

    def on_tokens(self, tokens: pb.Tokens) -> None:
        now = perf_counter()
        if self.first is None:
            self.first = now
        elif now - self.last > self.gap:
            self.gap = now - self.last
        self.last = now
        self.tokens += tokens.count

    def on_done(self, done: pb.Done) -> None:
        self.end(done.reason, Problem.from_bytes(done.error) if done.error else None, done.usage)

    def end(
        self, reason: "pb.EndReason.ValueType", problem: Problem | None, usage: pb.Usage | None = None
    ) -> None:
        self.ended = perf_counter()
        self.reason, self.problem = reason, problem
        if usage is not None:
            self.usage = usage
        if problem is not None and problem.retry_after is not None and self.rejected:
            self.retry_given += 1
        self.over(self)

    # What became of it.

    @property
    def rejected(self) -> bool:
        """Refused for want of room or for lateness, before anything was said."""
        problem = self.problem
        return problem is not None and problem.code is grpc.StatusCode.RESOURCE_EXHAUSTED and not self.tokens

    @property
    def ending(self) -> Ending:
        if self.reason in _GOOD_ENDS:
            return Ending.COMPLETED
        return Ending.REJECTED if self.rejected else Ending.FAILED

    @property
    def lag(self) -> Seconds:
        """How much later than due it was sent."""
        return self.sent - self.due

    def outcome(self, model: str) -> Outcome:
        grant, first = self.grant, self.first
        tokens, ended = self.tokens, self.ending
        return Outcome(
            request_id=self.planned.request_id,
            model=model,
            tier=self.planned.tier,
            arrived=self.planned.due,
            ended=ended,
            served_tier=grant.tier if grant is not None else "",
            tenant=grant.tenant if grant is not None else "",
            worker=grant.worker if grant is not None else "",
            queued=self.queued,
            ttft=None if first is None else first - self.due,
            tpot=(self.last - first) / (tokens - 1) if first is not None and tokens > 1 else None,
            longest_gap=self.gap if first is not None and tokens > 1 else None,
            e2e=self.ended - self.due if ended is Ending.COMPLETED else None,
            prompt_tokens=self.usage.prompt_tokens or self.planned.prompt_tokens,
            cached_tokens=self.usage.cached_tokens,
            output_tokens=tokens,
            problem=self._why(),
            detail=self.problem.message if self.problem is not None else "",
            retry_given=self.retry_given,
            retry_obeyed=self.retry_obeyed,
        )

    def _why(self) -> str:
        if self.reason in _GOOD_ENDS:
            return ""
        if self.problem is not None:
            return self.problem.reason or self.problem.code.name
        return pb.EndReason.Name(self.reason).removeprefix("END_REASON_")
