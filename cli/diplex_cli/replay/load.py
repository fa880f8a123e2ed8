"""An open loop: every request is sent when it is due, whatever has become of those before it.

Arrivals are absolute deadlines. Prompts are made a few seconds ahead, between two sendings, and only so many
tokens of them, so that neither memory nor the event loop pays for a long trace.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

from diplex import AsyncClient
from diplex.errors import DiplexError
from diplex.v1 import generation_pb2 as pb
from diplex_cli.replay.ticket import Planned, Ticket
from diplex_core.report import Ending, Outcome
from diplex_core.words import Seconds, Tier, Tokens

_AHEAD: Final[Seconds] = 5.0
_MOST_AHEAD: Final[Tokens] = 4_000_000
_QUIET: Final[Seconds] = 0.005
"""So long before a sending no other prompt is begun: the longest takes about half of it."""
_BEGINS_AFTER: Final[Seconds] = 0.25
"""The first prompts are made meanwhile."""


@dataclass(slots=True)
class Tally:
    """How far it is, for whoever watches."""

    total: int
    sent: int = 0
    running: int = 0
    by_ending: Counter[Ending] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)


class Load:
    """Sends what is planned, once.

    Args:
        planned: in the order of `due`.
        tiers: whose promises are counted as kept or not.
        timeout: seconds that each request may take, from its sending.
        retry: send a request that was refused once more, when its refusal said.
    Attributes:
        outcomes: of those that are over, in the order in which they ended.
        lags: seconds by which each request was sent late.
        began: the beginning of the run, on the clock of `perf_counter`; `ended`: of its last request's end.
        cut: requests that `abandon` cut short: there is no outcome of theirs.
    """

    def __init__(
        self,
        client: AsyncClient,
        planned: Sequence[Planned],
        tiers: Mapping[str, Tier],
        *,
        model: str,
        timeout: Seconds,
        retry: bool = False,
    ) -> None:
        self._client = client
        self._planned = planned
        self._tiers = tiers
        self._model = model
        self._timeout = timeout
        self._retry = retry
        self.tally = Tally(len(planned))
        self.outcomes: list[Outcome] = []
        self.lags: list[Seconds] = []
        self.began = self.ended = 0.0
        self.cut = 0
        self._live: set[Ticket] = set()
        self._waiting: dict[Ticket, asyncio.TimerHandle] = {}
        self._all_sent = False
        self._stopped = asyncio.Event()
        self._abandoned = False
        self._quiet = asyncio.Event()

    async def run(self) -> None:
        """Send everything, and return once everything is over."""
        self.began = self.ended = perf_counter() + _BEGINS_AFTER
        await self._send()
        self._all_sent = True
        self._look_for_quiet()
        await self._quiet.wait()

    def stop(self) -> None:
        """Send nothing more; what was sent goes on."""
        self._stopped.set()
        for ticket, timer in list(self._waiting.items()):
            timer.cancel()
            del self._waiting[ticket]
            self._settle(ticket)

    def abandon(self) -> None:
        """Wait for nothing more: what still runs is cancelled, and left out of the outcomes."""
        self.stop()
        self._abandoned = True
        for ticket in list(self._live):
            if ticket.life is not None:
                ticket.life.cancel()

    @property
    def stopped(self) -> bool:
        """Somebody ended it early."""
        return self._stopped.is_set()

    async def _send(self) -> None:
        to_make = deque(self._planned)
        made: deque[pb.TokenIds] = deque()
        held: Tokens = 0
        for planned in self._planned:
            due = self.began + planned.due
            while not made or perf_counter() < due:
                left = due - perf_counter()
                if to_make and (not made or (left > _QUIET and self._wants_more(to_make[0], held))):
                    made.append(to_make[0].prompt())
                    held += to_make.popleft().prompt_tokens
                    await asyncio.sleep(0)
                else:
                    await self._pause(left - _QUIET if left > 2 * _QUIET and to_make else left)
                if self._stopped.is_set():
                    return
            held -= planned.prompt_tokens
            self._start(Ticket(planned, made.popleft(), due, self._over))
            # In a burst, too, what comes back is read between two sendings.
            await asyncio.sleep(0)

    def _wants_more(self, planned: Planned, held: Tokens) -> bool:
        soon = self.began + planned.due - perf_counter() <= _AHEAD
        return soon and held + planned.prompt_tokens <= _MOST_AHEAD

    async def _pause(self, seconds: Seconds) -> None:
        """Sleep, unless stopped. Loops keep time in milliseconds, so the last one is passed by turning."""
        if seconds <= 0.001:
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(min(seconds - 0.0005, _AHEAD / 2)):
                await self._stopped.wait()
        except TimeoutError:
            pass

    def _start(self, ticket: Ticket) -> None:
        planned = ticket.planned
        if not ticket.retry_obeyed:
            self.tally.sent += 1
            ticket.sent = perf_counter()
            self.lags.append(ticket.lag)
        self.tally.running += 1
        self._live.add(ticket)
        try:
            ticket.life = self._client.start(
                ticket,
                prompt_ids=ticket.prompt,
                model=self._model,
                tier=planned.tier,
                max_tokens=planned.max_tokens,
                min_tokens=planned.least,
                ignore_eos=planned.least is None,
                timeout=self._timeout,
                request_id=planned.request_id,
                api_key=planned.api_key,
            )
        except DiplexError as error:
            ticket.end(pb.END_REASON_FAILED, error.problem)

    def _over(self, ticket: Ticket) -> None:
        self._live.discard(ticket)
        self.tally.running -= 1
        problem = ticket.problem
        again = self._retry and not ticket.retry_obeyed and not self.stopped
        if again and ticket.rejected and problem is not None and problem.retry_after is not None:
            timer = asyncio.get_running_loop().call_later(problem.retry_after, self._send_again, ticket)
            self._waiting[ticket] = timer
        else:
            self._settle(ticket)

    def _send_again(self, ticket: Ticket) -> None:
        del self._waiting[ticket]
        ticket.retry_obeyed += 1
        ticket.grant = ticket.queued = None
        self._start(ticket)

    def _settle(self, ticket: Ticket) -> None:
        if self._abandoned and ticket.reason == pb.END_REASON_CANCELLED:
            self.cut += 1
        else:
            outcome = ticket.outcome(self._model)
            self.outcomes.append(outcome)
            self.ended = max(self.ended, ticket.ended)
            self.tally.by_ending[outcome.ended] += 1
            self.tally.ended[outcome.tier] += 1
            self.tally.met[outcome.tier] += outcome.met(self._tiers[outcome.tier])
        ticket.life = None
        self._look_for_quiet()

    def _look_for_quiet(self) -> None:
        if self._all_sent and not self._live and not self._waiting:
            self._quiet.set()
