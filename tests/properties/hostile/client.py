"""A client that follows the protocol: asks, shows its grant, reads, asks again where that came to nothing.

The table of its states is the real one (`diplex.wire.life`); the runner beside it does what `RequestLife`
does, in steps that the world calls. Every token is checked as it comes: none is lost and none repeated, over
all attempts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from diplex.wire.life import AT_A_WORKER, AT_THE_ROUTER, NEXT, State, Turn
from diplex_core.events import Again, Ask, Granted, Refused
from diplex_core.words import BlockHash, Blocks, EndReason, Seconds, Tokens

from .wire import Wire
from .words import Answer, AskSaid, Cancel, DoneSaid, Grant, Start, TokensSaid, WithdrawSaid

MOST_REFUSALS = 20
GRACE: Seconds = 1.0
_PASSING = frozenset({"RESOURCE_EXHAUSTED", "ABORTED", "UNAVAILABLE", ""})


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request as its user means it. `prompt`: its true count; `said`: what the client believes it is."""

    request_id: str
    model: str
    tier: str
    api_key: str
    prompt: Tokens
    said: Tokens
    exact: bool
    hashes: tuple[BlockHash, ...]
    hash_block_tokens: Tokens
    max_tokens: Tokens
    choices: int
    timeout: Seconds | None


class Attempt:
    """A client's end of one stream to one worker."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.done = False

    def hear(self, wire: Wire, message: object) -> None:
        match message:
            case TokensSaid():
                assert not self.done, f"{message} came after the last word"
                self.request.tokens_came(self, message)
            case DoneSaid():
                assert not self.done, f"a second last word: {message}"
                self.done = True
                wire.caller_lets_go()
                self.request.attempt_done(self, message)

    def lost(self, wire: Wire) -> None:
        if not self.done:
            self.done = True
            self.request.attempt_done(self, DoneSaid(EndReason.FAILED, "UNAVAILABLE", "the stream broke"))


class Request:
    """One request's life."""

    def __init__(self, client: Client, ask_id: int, wanted: Wanted, now: Seconds) -> None:
        self.client = client
        self.ask_id = ask_id
        self.wanted = wanted
        self.state = State.NEW
        self.asked_at = now
        self.said, self.exact = wanted.said, wanted.exact
        self.deadline = None if wanted.timeout is None else now + wanted.timeout
        self.grace: Seconds | None = None
        self.refusals = 0
        self.again: Again | None = None
        self.grant: Grant | None = None
        self.wire: Wire | None = None
        self.attempt: Attempt | None = None
        self.produced: Counter[int] = Counter()  # by choice
        self.last_word: DoneSaid | None = None

    @property
    def longest(self) -> Tokens:
        return max(self.produced.values(), default=0)

    def begin(self) -> None:
        self._turn(Turn.BEGIN)
        self._ask()

    def cancel(self) -> None:
        self._leave()

    def pause_over(self) -> None:
        if self._turn(Turn.PAUSED):
            self._ask()

    def time_passes(self, now: Seconds) -> None:
        if self.state is State.LEAVING:
            if self.grace is None:
                self.grace = now + GRACE
            elif now >= self.grace:
                self._end(DoneSaid(EndReason.CANCELLED, why="the worker took too long"), withdraw=True)
        elif self.deadline is not None and now >= self.deadline and self.state is not State.OVER:
            self._leave()

    # What its session says.

    def answered(self, answer: Answer) -> None:
        match answer.decision:
            case Granted():
                assert answer.grant is not None
                self._granted(answer.grant)
            case Refused():
                if self.state in AT_THE_ROUTER:
                    why, after = answer.decision.refusal.why, answer.decision.refusal.retry_after
                    if after is not None:
                        self.client.told_to_come.append((self.client.now() + after, self.wanted))
                    self._end(DoneSaid(EndReason.REFUSED, str(why), answer.decision.refusal.message))

    def router_lost(self) -> None:
        self._turn(Turn.LOST)

    def router_back(self) -> None:
        if self._turn(Turn.BACK):
            self._ask()

    # What its worker says.

    def tokens_came(self, attempt: Attempt, tokens: TokensSaid) -> None:
        if attempt is not self.attempt or self.state not in AT_A_WORKER:
            return
        assert tokens.request_id == self.wanted.request_id, f"{self.wanted.request_id} was sent {tokens}"
        have = self.produced[tokens.choice]
        assert tokens.index == have, f"{have} tokens have come, and now {tokens}: lost or repeated"
        self.produced[tokens.choice] += tokens.count
        self.client.seen["tokens"] += tokens.count

    def attempt_done(self, attempt: Attempt, done: DoneSaid) -> None:
        if attempt is not self.attempt or self.state not in AT_A_WORKER:
            return
        self.attempt = self.wire = None
        if done.prompt_tokens:
            self.said, self.exact = done.prompt_tokens, True
        if not _came_to_nothing(done):
            # Refused for good: the router only hears that it was refused, and would wait for it here.
            self._end(done, withdraw=done.reason is EndReason.REFUSED)
        elif self.state is State.LEAVING:
            self._end(DoneSaid(EndReason.CANCELLED), withdraw=True)
        elif not self._can_go_on:
            self.client.seen["cut short"] += 1
            self._end(DoneSaid(EndReason.FAILED, "UNAVAILABLE", "CUT_SHORT"), withdraw=True)
        else:
            self.refusals += done.reason is not EndReason.PREEMPTED
            if self.refusals > MOST_REFUSALS:
                self._end(DoneSaid(EndReason.FAILED, "UNAVAILABLE", "REFUSED_TOO_OFTEN"), withdraw=True)
            else:
                self._ask_again(done.reason, done.needed_blocks)

    # Parts.

    @property
    def _can_go_on(self) -> bool:
        if not self.longest:
            return True
        grant = self.grant
        return self.wanted.choices == 1 and grant is not None and grant.granted.worker.can_resume

    def _granted(self, grant: Grant) -> None:
        if not self._turn(Turn.GRANTED):
            self.client.seen["a grant came too late"] += 1
            return
        self.grant = grant
        if not self._can_go_on:
            self._end(DoneSaid(EndReason.FAILED, "UNAVAILABLE", "CUT_SHORT"), withdraw=True)
            return
        wanted = self.wanted
        start = Start(
            grant,
            wanted.model,
            wanted.prompt,
            wanted.hashes,
            wanted.hash_block_tokens,
            self.longest,
            None if self.deadline is None else max(0.001, self.deadline - self.client.now()),
        )
        self.client.shown.append(start)
        self.attempt = Attempt(self)
        self.wire = self.client.open_stream(grant.granted.worker.name, self.attempt)
        self.wire.call(start)

    def _ask_again(self, reason: EndReason, needed: Blocks) -> None:
        assert self.grant is not None
        self.client.seen[f"asked again after {reason}"] += 1
        worker = self.grant.granted.worker.name
        self.again = Again(self.grant.claim, reason, worker, self.longest, needed)
        self._turn(Turn.CAME_TO_NOTHING)

    def _ask(self) -> None:
        if self.client.session is None:
            self._turn(Turn.LOST)
            return
        wanted, now = self.wanted, self.client.now()
        ask = Ask(
            request_id=wanted.request_id,
            model=wanted.model,
            tier=wanted.tier,
            api_key=wanted.api_key,
            prompt_tokens=self.said,
            exact=self.exact,
            block_hashes=wanted.hashes,
            hash_block_tokens=wanted.hash_block_tokens,
            max_tokens=wanted.max_tokens,
            choices=wanted.choices,
            timeout=None if self.deadline is None else max(0.001, self.deadline - now),
            age=now - self.asked_at,
            again=self.again,
        )
        self.client.session.call(AskSaid(self.ask_id, ask))

    def _leave(self) -> None:
        if not self._turn(Turn.LEFT):
            return
        if self.state is State.LEAVING and self.wire is not None:
            self.wire.call(Cancel())
        else:
            self._end(DoneSaid(EndReason.CANCELLED), withdraw=True)

    def _end(self, done: DoneSaid, *, withdraw: bool = False) -> None:
        assert self.last_word is None, f"{self.wanted.request_id} ends twice: {self.last_word}, then {done}"
        self.last_word = done
        self._turn(Turn.END)
        self.state = State.OVER
        if withdraw and self.client.session is not None:
            self.client.session.call(WithdrawSaid(self.ask_id))
        self.client.over(self)
        if done.reason in (EndReason.STOP, EndReason.LENGTH):
            said = [n for n in done.produced]
            came = [self.produced[choice] for choice in range(len(said))]
            assert came == said, f"the worker has said {said} tokens, {came} came"

    def _turn(self, turn: Turn) -> bool:
        to = NEXT.get((self.state, turn))
        if to is None:
            return False
        self.state = to
        return True


class Client:
    """A client process: one session with its router, and a stream for each attempt."""

    def __init__(
        self,
        name: str,
        router: str,
        seen: Counter[str],
        now: Callable[[], Seconds],
        open_stream: Callable[[str, Attempt], Wire],
    ) -> None:
        self.name = name
        self.router = router
        self.seen = seen
        self.now = now
        self.open_stream = open_stream
        self.session: Wire | None = None
        self.requests: dict[int, Request] = {}
        self.shown: list[Start] = []  # of late: a hostile world shows them once more
        self.told_to_come: list[tuple[Seconds, Wanted]] = []  # when, of late
        self._last_ask = 0

    def ask(self, wanted: Wanted) -> Request:
        self._last_ask += 1
        request = Request(self, self._last_ask, wanted, self.now())
        self.requests[request.ask_id] = request
        request.begin()
        return request

    def over(self, request: Request) -> None:
        self.requests.pop(request.ask_id, None)
        self.seen["requests that are over"] += 1

    def connected(self, session: Wire) -> None:
        self.session = session
        for request in list(self.requests.values()):
            request.router_back()

    # As the caller of its session.

    def hear(self, wire: Wire, message: object) -> None:
        assert isinstance(message, Answer)
        request = self.requests.get(message.ask_id)
        if request is not None:
            request.answered(message)
        elif isinstance(message.decision, Granted):
            self.seen["a grant came too late"] += 1

    def lost(self, wire: Wire) -> None:
        if wire is self.session:
            self.session = None
            for request in list(self.requests.values()):
                request.router_lost()


def _came_to_nothing(done: DoneSaid) -> bool:
    """An end that is none for the request: another attempt may do better."""
    match done.reason:
        case EndReason.PREEMPTED:
            return True
        case EndReason.REFUSED | EndReason.REVOKED:
            return done.code in _PASSING
        case EndReason.FAILED:
            return done.code == "UNAVAILABLE"
        case _:
            return False
