"""A worker's desk on invented time, with an engine that does only what a test tells it to."""

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import worker_pb2
from diplex.wire.grants import Keys
from diplex_core.words import Claim, EndReason
from diplex_workers.account import Account
from diplex_workers.desk import Desk
from diplex_workers.engines.engine import Counted, Facts, Job, ModelFacts, Output
from diplex_workers.feed import Feed
from diplex_workers.gate import Gate
from diplex_workers.news import EngineNews
from diplex_workers.reception import Reception
from diplex_workers.sequence import Sequence as Running
from diplex_workers.settings import WorkerSettings
from diplex_workers.stream import TokenStream

BOOT = 77
EPOCH = 5
FACTS = Facts(
    kind="scripted",
    models=(ModelFacts("chatty"), ModelFacts("plain", has_chat_template=False)),
    block_tokens=32,
    capacity_blocks=100,
    capacity_slots=8,
    context=2048,
)


@dataclass(order=True)
class Alarm:
    when: float
    order: int
    do: Callable[[], None] = field(compare=False)
    off: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.off = True


class InventedClock:
    """Time that passes when a test says so; what is due in between happens in order."""

    def __init__(self) -> None:
        self._now = 0.0
        self._alarms: list[Alarm] = []
        self._order = count()

    def now(self) -> float:
        return self._now

    def at(self, when: float, do: Callable[[], None]) -> Alarm:
        alarm = Alarm(when, next(self._order), do)
        heapq.heappush(self._alarms, alarm)
        return alarm

    def pass_time(self, seconds: float) -> None:
        until = self._now + seconds
        while self._alarms and self._alarms[0].when <= until:
            alarm = heapq.heappop(self._alarms)
            self._now = max(self._now, alarm.when)
            if not alarm.off:
                alarm.do()
        self._now = until


@dataclass
class ScriptedEngine:
    """Remembers what it is asked for, and lets go of a job when the test says so."""

    jobs: dict[Claim, Job] = field(default_factory=dict)
    cancelled: list[Claim] = field(default_factory=list)
    limits: list[tuple[Claim, int]] = field(default_factory=list)

    async def serve(self, host: object) -> None:
        await asyncio.Event().wait()

    async def count(self, model: str, prompt: pb.Prompt) -> Counted:
        return Counted(len(prompt.ids.ids) or len(prompt.text))

    def submit(self, job: Job) -> None:
        self.jobs[job.claim] = job

    def cancel(self, claim: Claim) -> None:
        self.cancelled.append(claim)

    def limit(self, claim: Claim, tokens: int) -> None:
        self.limits.append((claim, tokens))

    def observed_blocks(self) -> int | None:
        return None

    def slots_now(self) -> int | None:
        return None


class House:
    """A desk, its engine, one client's stream, and a router called `r1` that is linked."""

    def __init__(self, *, open_to_all: bool = False, facts: Facts | None = FACTS) -> None:
        self.keys = Keys.of("secret")
        self.clock = InventedClock()
        self.engine = ScriptedEngine()
        self.uncounted: list[Running] = []
        settings = WorkerSettings("w0", "pkg0", "A", keys=self.keys, open=open_to_all)
        self.account = Account(settings, BOOT, self.clock, self.engine)
        self.gate = Gate("w0", BOOT, self.keys)
        self.desk = Desk(self.account, self.gate)
        self.reception = Reception(self.desk, self.uncounted.append)
        self.news = EngineNews(self.desk)
        if facts is not None:
            self.news.ready(facts)
        self.stream = TokenStream()
        self.feed = self.link()

    def link(self, router: str = "r1", epoch: int = EPOCH, *, taken: bool = True) -> Feed:
        self.gate.hello(self.keys.hello(router, epoch, "w0"))
        feed = Feed(router, lambda: None)
        self.account.link(feed)
        if taken:
            feed.take(self.account)
        return feed

    def grant(self, lease: int = 1, **more: object) -> pb.Grant:
        words = {
            "claim": pb.Claim(lease_id=lease, attempt=1),
            "request_id": f"request-{lease}",
            "router": "r1",
            "epoch": EPOCH,
            "worker": "w0",
            "boot": BOOT,
            "blocks": 10,
            "slots": 1,
            "max_tokens": 64,
            "tier": "standard",
            "tenant": "acme",
            "choices": 1,
            "start_by_ms": round((self.clock.now() + 5) * 1000),
            **more,
        }
        return pb.Grant(**words)  # type: ignore[arg-type]

    def begin(
        self, lease: int = 1, *, seq: int = 0, stream: TokenStream | None = None, **more: object
    ) -> Claim:
        """Show a good grant (its words may be bent), with a prompt of 100 tokens."""
        start_words = {key: more.pop(key) for key in START_WORDS & more.keys()}
        self.show(self.keys.sign(self.grant(lease, **more)), seq or lease, stream, **start_words)
        return Claim(lease, 1)

    def show(
        self, grant: pb.SignedGrant, seq: int, stream: TokenStream | None = None, **more: object
    ) -> None:
        words = {"prompt": pb.Prompt(text="x" * 100), **more}
        start = worker_pb2.Start(seq=seq, grant=grant, **words)  # type: ignore[arg-type]
        self.reception.start(start, stream or self.stream)

    def counted(self, tokens: int = 100, *, exact: bool = True) -> None:
        """Every prompt that waits to be counted has that many tokens."""
        uncounted, self.uncounted[:] = list(self.uncounted), []
        for sequence in uncounted:
            self.reception.counted(sequence, Counted(tokens, exact))

    def run(self, lease: int = 1, **more: object) -> Claim:
        """Begin and count: the engine has it."""
        claim = self.begin(lease, **more)  # type: ignore[arg-type]
        self.counted()
        return claim

    def say(self, claim: Claim, number: int = 1, *, choice: int = 0, end: EndReason | None = None) -> None:
        """The engine makes `number` tokens, one an iteration, the last one with `end`."""
        for left in range(number, 0, -1):
            output = Output(claim, choice, 1, (7,), " a", end if left == 1 else None)
            self.news.deliver([output])

    def let_go(self, claim: Claim, end: EndReason = EndReason.CANCELLED, choice: int = 0) -> None:
        self.news.deliver([Output(claim, choice, end=end)])

    def frame(self, stream: TokenStream | None = None) -> worker_pb2.WorkerSessionResponse:
        """What a client would read now; empty where there is nothing."""
        return (stream or self.stream).take() or worker_pb2.WorkerSessionResponse()

    def done(self, stream: TokenStream | None = None) -> pb.Done:
        """The one `done` that a client reads now."""
        (done,) = self.frame(stream).done
        return done

    def report(self, feed: Feed | None = None) -> worker_pb2.WorkerLinkResponse:
        """What the router would read now; empty where there is nothing."""
        return (feed or self.feed).take(self.account) or worker_pb2.WorkerLinkResponse()

    @property
    def used(self) -> tuple[int, int]:
        return self.account.pool.used_blocks, self.account.pool.used_slots


START_WORDS = {
    "block_hashes",
    "hash_block_tokens",
    "model",
    "prompt",
    "sampling",
    "window_upto",
    "resume",
    "timeout_ms",
    "traceparent",
}


@pytest.fixture
def facts() -> Facts:
    return FACTS


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
def new_house() -> Callable[..., House]:
    return House
