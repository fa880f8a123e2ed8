"""Hostile clients, routers and engines in any order: the worker never holds more than it has, tells every
client `done` once and last, tells the router of every end, and holds nothing in the end."""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import worker_pb2
from diplex.wire.status import Problem
from diplex_core.words import Claim, EndReason
from diplex_workers.engines.engine import Counted, Output
from diplex_workers.stream import TokenStream

NATURAL = [EndReason.STOP, EndReason.LENGTH, EndReason.FAILED]
SOME = st.integers(0, 5)  # which of those that there are

STEPS = st.one_of(
    st.tuples(
        st.just("start"),
        st.fixed_dictionaries(
            {
                "blocks": st.integers(0, 120),
                "choices": st.integers(1, 3),
                "max_tokens": st.integers(1, 200),
                "window_upto": st.sampled_from([0, 0, 1, 5]),
                "timeout_ms": st.sampled_from([0, 0, 700, 20_000]),
            }
        ),
    ),
    st.tuples(st.just("replay"), SOME),
    st.tuples(st.just("stale"), st.sampled_from(["epoch", "boot"])),
    st.tuples(st.just("count"), SOME, st.integers(1, 2100)),
    st.tuples(st.just("say"), SOME, st.integers(1, 6)),
    st.tuples(st.just("end"), SOME, st.sampled_from(NATURAL)),
    st.tuples(st.just("let_go"), SOME),
    st.tuples(st.just("cancel"), SOME),
    st.tuples(st.just("window"), SOME, st.integers(0, 12)),
    st.tuples(st.just("leave")),
    st.tuples(st.just("stop"), SOME, st.sampled_from([pb.END_REASON_PREEMPTED, pb.END_REASON_REVOKED])),
    st.tuples(st.just("stop_unknown"), st.integers(1, 40)),
    st.tuples(st.just("raise"), SOME, st.integers(0, 130)),
    st.tuples(st.just("relink"), st.booleans()),
    st.tuples(st.just("pass_time"), st.sampled_from([0.1, 1.0, 31.0])),
    st.tuples(st.just("unready")),
    st.tuples(st.just("ready")),
    st.tuples(st.just("drain"), st.booleans()),
)


# Where claims grow: few kinds of steps, so that many of them come near their limits.
GROWTH = st.one_of(
    st.tuples(
        st.just("start"),
        st.fixed_dictionaries(
            {
                "blocks": st.integers(3, 12) | st.just(80),
                "choices": st.just(1),
                "max_tokens": st.just(1000),
                "window_upto": st.sampled_from([0, 0, 50]),
                "timeout_ms": st.just(0),
                "grows": st.just(True),
            }
        ),
    ),
    *[st.tuples(st.just("count"), SOME, st.just(100))] * 2,
    *[st.tuples(st.just("say"), SOME, st.integers(30, 200))] * 3,
    *[st.tuples(st.just("raise"), SOME, st.integers(0, 60))] * 2,
    st.tuples(st.just("end"), SOME, st.sampled_from(NATURAL)),
    st.tuples(st.just("let_go"), SOME),
    st.tuples(st.just("stop"), SOME, st.just(pb.END_REASON_PREEMPTED)),
    st.tuples(st.just("relink"), st.booleans()),
)


# Where prompts begin alike: what was read stays, is hit, and goes when its room is needed.
PREFIXES = st.one_of(
    # One request, as far as its first token or to its end: its prompt, and how much of it is counted on.
    *[st.tuples(st.just("ask"), st.integers(0, 3), st.sampled_from([0, 0, 1, 2, 3]), st.booleans())] * 4,
    st.tuples(st.just("count"), SOME, st.sampled_from([100, 70, 10])),
    st.tuples(st.just("say"), SOME, st.integers(1, 3)),
    *[st.tuples(st.just("end"), SOME, st.sampled_from(NATURAL))] * 3,
    st.tuples(st.just("let_go"), SOME),
    st.tuples(st.just("cancel"), SOME),
    st.tuples(st.just("raise"), SOME, st.integers(0, 12)),
    st.tuples(st.just("relink"), st.booleans()),
    st.tuples(st.just("ready")),
)


@dataclass
class Client:
    """Reads one stream and checks what it reads."""

    stream: TokenStream = field(default_factory=TokenStream)
    started: set[int] = field(default_factory=set)
    done: Counter[int] = field(default_factory=Counter)
    due: dict[tuple[int, int], int] = field(default_factory=dict)
    upto: dict[int, int] = field(default_factory=dict)

    def read(self) -> None:
        frame = self.stream.take()
        if frame is None:
            return
        for tokens in frame.tokens:
            key = (tokens.seq, tokens.choice)
            assert tokens.seq not in self.done, "nothing comes behind the last word"
            assert tokens.index == self.due.get(key, 0), "no hole and no repeat"
            self.due[key] = tokens.index + tokens.count
            upto = self.upto[tokens.seq]
            assert upto == 0 or self.due[key] <= upto, "nothing beyond the window"
        self.done.update(done.seq for done in frame.done)
        assert all(times == 1 for times in self.done.values())


@dataclass
class World:
    house: Any
    client: Client = field(default_factory=Client)
    clients: list[Client] = field(default_factory=list)
    grants: list[pb.SignedGrant] = field(default_factory=list)
    at_router: set[Claim] = field(default_factory=set)
    in_engine: dict[Claim, set[int]] = field(default_factory=dict)
    limits: dict[Claim, int] = field(default_factory=dict)
    linked: bool = True
    asking: dict[Claim, int] = field(default_factory=dict)  # what the router was told that they want
    resident: set[int] = field(default_factory=set)  # what it was told of prefix blocks

    def __post_init__(self) -> None:
        self.clients.append(self.client)

    @property
    def pauses(self) -> bool:
        facts = self.house.account.facts
        return bool(facts.can_grow and facts.can_pause)

    def act(self, step: tuple[Any, ...]) -> None:
        getattr(self, step[0])(*step[1:])
        for claim, job in self.house.engine.jobs.items():
            self.in_engine.setdefault(claim, set(range(job.choices)))
            self.limits[claim] = job.limit or 2**32
        self.house.engine.jobs.clear()
        self.limits.update(self.house.engine.limits)
        self.house.engine.limits.clear()
        self.check()

    def check(self) -> None:
        pool, live = self.house.account.pool, self.house.account.live
        kept = set(self.house.account.resident())
        in_use = set().union(*(s.hits for s in live.values() if pool.holding(s.claim)))
        assert pool.resident.pinned == len(in_use)
        assert in_use <= kept, "what is used is not evicted"
        idle = kept - in_use - set().union(*(s.own for s in live.values() if s.first_token is not None))
        assert 0 <= pool.used_blocks + len(in_use) + len(idle) <= pool.capacity
        assert 0 <= pool.used_slots <= 8
        holdings = [pool.holding(claim) for claim in live]
        assert sum(h.blocks for h in holdings if h) == pool.used_blocks
        for client in self.clients:
            client.read()
        self.check_growth()
        if not self.linked:
            return
        report = self.house.report()
        if report.full:
            self.resident = set(report.stored_blocks)
        else:
            self.resident = self.resident - set(report.removed_blocks) | set(report.stored_blocks)
        assert self.resident == kept, "the router knows what is resident"
        self.asking |= {Claim(w.claim.lease_id, w.claim.attempt): w.blocks for w in report.wants}
        for sequence in live.values():
            if sequence.wanted and sequence.verdict is None:
                assert self.asking[sequence.claim] == sequence.wanted, "the router knows what is wanted"
        self.at_router |= {Claim(h.claim.lease_id, h.claim.attempt) for h in report.held}
        for ended in report.ended:
            claim = Claim(ended.claim.lease_id, ended.claim.attempt)
            assert claim not in live, "`ended` for what still runs would free it"
            self.at_router.discard(claim)
        assert self.at_router <= set(live)

    def check_growth(self) -> None:
        pool = self.house.account.pool
        for sequence in self.house.account.live.values():
            holding = pool.holding(sequence.claim)
            if not sequence.limit or holding is None or sequence.verdict is not None:
                continue
            assert sequence.limit <= 32 * holding.blocks
            assert not sequence.wanted or sequence.wanted > holding.blocks
            if not sequence.submitted:
                continue
            if sequence.length >= sequence.asks_at:
                assert sequence.wanted, "whoever is near its limit asks"
            if self.pauses:
                assert self.limits[sequence.claim] == sequence.limit, "its engine knows it"
                assert sequence.length <= sequence.limit
            else:
                assert sequence.length < sequence.limit, "it would have given way"

    def live(self, which: int) -> Any:
        sequences = list(self.house.account.live.values())
        return sequences[which % len(sequences)] if sequences else None

    # What may happen.

    def start(self, words: dict[str, int], *, blocks: tuple[int, ...] = (), **bent: int) -> None:
        seq = len(self.grants) + 1
        more = dict(words)
        upto, timeout = more.pop("window_upto"), more.pop("timeout_ms")
        grant = self.house.keys.sign(self.house.grant(seq, slots=more["choices"], **more, **bent))
        self.grants.append(grant)
        self.client.started.add(seq)
        self.client.upto[seq] = upto
        self.house.show(
            grant, seq, self.client.stream, window_upto=upto, timeout_ms=timeout, block_hashes=blocks
        )

    def ask(self, prompt: int, cached: int, ends: bool) -> None:
        """Prompts have three whole blocks, of which the first one or two are alike."""
        words = {"blocks": 5 - cached, "choices": 1, "max_tokens": 60, "window_upto": 0, "timeout_ms": 0}
        self.start(words, blocks=(1, 10 + prompt // 2, 20 + prompt), cached_blocks=cached)
        self.act(("count", -1, 100))
        self.act(("say", -1, 1))
        if ends:
            self.act(("end", -1, EndReason.STOP))

    def stale(self, word: str) -> None:
        plain = {"blocks": 1, "choices": 1, "max_tokens": 1, "window_upto": 0, "timeout_ms": 0}
        self.start(plain, **{word: 1})

    def replay(self, which: int) -> None:
        if self.grants:
            seq = 1000 + len(self.client.started)
            self.client.started.add(seq)
            self.client.upto[seq] = 0
            self.house.show(self.grants[which % len(self.grants)], seq, self.client.stream)

    def count(self, which: int, tokens: int) -> None:
        if self.house.uncounted:
            sequence = self.house.uncounted.pop(which % len(self.house.uncounted))
            self.house.reception.counted(sequence, Counted(tokens))

    def say(self, which: int, number: int) -> None:
        if self.in_engine:
            claim = list(self.in_engine)[which % len(self.in_engine)]
            if self.pauses and (sequence := self.house.account.live.get(claim)) is not None:
                number = min(number, self.limits[claim] - sequence.length)
                if number <= 0:
                    return  # it waits at its limit
            self.house.news.deliver(
                [Output(claim, choice, number, (1,) * number, "a") for choice in self.in_engine[claim]]
            )

    def end(self, which: int, reason: EndReason) -> None:
        if self.in_engine:
            claim = list(self.in_engine)[which % len(self.in_engine)]
            choice = self.in_engine[claim].pop()
            if not self.in_engine[claim]:
                del self.in_engine[claim]
            self.house.news.deliver([Output(claim, choice, end=reason)])

    def let_go(self, which: int) -> None:
        cancelled = [claim for claim in self.house.engine.cancelled if claim in self.in_engine]
        if cancelled:
            claim = cancelled[which % len(cancelled)]
            choices = self.in_engine.pop(claim)
            self.house.news.deliver([Output(claim, choice, end=EndReason.CANCELLED) for choice in choices])

    def cancel(self, which: int) -> None:
        sequence = self.live(which)
        if sequence is not None:
            self.house.desk.cancel(sequence.stream, sequence.seq)

    def window(self, which: int, upto: int) -> None:
        sequences = [s for client in self.clients for s in client.stream.sequences.values()]
        if sequences:
            sequence = sequences[which % len(sequences)]
            owner = next(client for client in self.clients if client.stream is sequence.stream)
            # A client may take a window back, which does not call back what was sent.
            owner.upto[sequence.seq] = upto and max(upto, *(n for (s, _), n in owner.due.items()), 0)
            self.house.desk.window(sequence.stream, sequence.seq, upto)

    def leave(self) -> None:
        self.house.desk.stream_ended(self.client.stream)
        self.client = Client()
        self.clients.append(self.client)

    def stop(self, which: int, reason: pb.EndReason.ValueType) -> None:
        sequence = self.live(which)
        if sequence is not None:
            claim = pb.Claim(lease_id=sequence.claim.lease_id, attempt=sequence.claim.attempt)
            self.house.desk.stop("r1", worker_pb2.Stop(claim=claim, reason=reason))

    def stop_unknown(self, lease: int) -> None:
        claim = pb.Claim(lease_id=lease, attempt=1)
        self.house.desk.stop("r1", worker_pb2.Stop(claim=claim, reason=pb.END_REASON_REVOKED))

    def raise_(self, which: int, blocks: int) -> None:
        sequence = self.live(which)
        if sequence is not None:
            claim = pb.Claim(lease_id=sequence.claim.lease_id, attempt=sequence.claim.attempt)
            self.house.desk.raise_claim("r1", worker_pb2.Raise(claim=claim, blocks=blocks, id=1))

    def relink(self, up: bool) -> None:
        if not up:
            self.house.desk.unlink(self.house.feed)
        else:
            self.asking.clear()
            self.house.feed = self.house.link(taken=False)
            self.at_router = set()  # whatever it lists is all that there is
        self.linked = up

    def pass_time(self, seconds: float) -> None:
        self.house.clock.pass_time(seconds)

    def unready(self) -> None:
        self.in_engine.clear()
        self.house.news.unready("gone")

    def ready(self) -> None:
        self.in_engine.clear()
        self.house.news.ready(self.house.account.facts)

    def drain(self, active: bool) -> None:
        self.house.desk.drain(active)

    def come_to_rest(self) -> None:
        while self.house.uncounted:
            self.act(("count", 0, 10))
        while self.in_engine:
            self.act(("end", 0, EndReason.STOP))
        self.act(("relink", True))
        self.act(("pass_time", 100.0))


setattr(World, "raise", World.raise_)  # a step is named as the order is


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=60))
def test_whatever_happens_the_pool_holds_and_every_sequence_ends_once(new_house, steps):
    come_through(World(new_house()), steps)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(GROWTH, min_size=20, max_size=60), pauses=st.booleans())
def test_claims_that_grow_ask_in_time_and_stay_within_what_they_hold(new_house, facts, steps, pauses):
    come_through(World(new_house(facts=replace(facts, can_grow=True, can_pause=pauses))), steps)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(PREFIXES, min_size=20, max_size=60))
def test_prefix_blocks_that_are_used_stay_and_the_router_knows_all_that_do(new_house, facts, steps):
    come_through(World(new_house(facts=replace(facts, keeps_prefixes=True, capacity_blocks=12))), steps)


def come_through(world: World, steps: list[tuple[Any, ...]]) -> None:
    for step in steps:
        world.act(step)
    world.come_to_rest()
    assert world.house.used == (0, 0)
    assert world.house.account.live == {}
    assert world.at_router == set()
    for client in world.clients:
        assert set(client.done) == client.started


def test_the_world_would_notice_a_hole(new_house):
    world = World(new_house())
    world.start({"blocks": 10, "choices": 1, "max_tokens": 9, "window_upto": 0, "timeout_ms": 0})
    world.client.due[1, 0] = 3
    world.count(0, 10)
    world.act(("pass_time", 0.0))
    try:
        world.act(("say", 0, 1))
    except AssertionError as noticed:
        assert "no hole" in str(noticed)
    else:
        raise AssertionError("a hole went unnoticed")


def test_problems_of_a_start_can_all_be_read(new_house):
    world = World(new_house())
    world.stale("epoch")
    done = world.client.stream.take()
    assert done is not None
    assert Problem.from_bytes(done.done[0].error).reason == "OLD_EPOCH"
