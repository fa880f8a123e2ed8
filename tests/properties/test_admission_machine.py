"""The core against a model of its workers: starts, ends, crashes and broken links in any order.

The model keeps what a worker really holds and refuses what it cannot; the links deliver reports late, lose
them when they break, and lose orders too. After every step no pool is over-committed in the router's account
or in the worker's, and in the end everything is free.
"""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from diplex_core.admission import Admission
from diplex_core.events import (
    Again,
    Ask,
    Asked,
    AskKey,
    EndedClaim,
    Event,
    Granted,
    HeldClaim,
    LinkLost,
    Redial,
    Refused,
    Report,
    Reported,
    Revoked,
    SessionEnded,
    StopClaim,
    Ticked,
    Withdrawn,
    WorkerFacts,
)
from diplex_core.pool import Pool
from diplex_core.words import Claim, EndReason, Pattern, Rules, Tier

MODEL = "m"
RULES = Rules(
    frozenset({MODEL}),
    MODEL,
    {
        "chat": Tier("chat", (Pattern.C, Pattern.A), priority=9, max_queue=4.0),
        "bulk": Tier("bulk", (Pattern.A,)),
    },
    "bulk",
)
NAMES = ("c", "a")
BLOCKS, SLOTS = 12, 3


@dataclass
class ModelWorker:
    """A worker's truth, and the messages that are on their way up its link."""

    name: str
    boot: int = 1
    pool: Pool = field(default_factory=lambda: Pool(BLOCKS, SLOTS))
    linked: bool = False
    number: int = 0
    up: list[Report] = field(default_factory=list)
    stopped: set[Claim] = field(default_factory=set)
    shown: set[Claim] = field(default_factory=set)

    def facts(self) -> WorkerFacts:
        pattern = Pattern.C if self.name == "c" else Pattern.A
        return WorkerFacts(
            self.name, self.name, pattern, frozenset({MODEL}), self.boot, "", 32, BLOCKS, SLOTS, context=4096
        )

    def say(
        self,
        now: float,
        *,
        full: bool = False,
        held: tuple[HeldClaim, ...] = (),
        ended: tuple[EndedClaim, ...] = (),
    ) -> None:
        if not self.linked:
            return
        self.number += 1
        used = (self.pool.used_blocks, self.pool.used_slots)
        facts = self.facts() if full else None
        self.up.append(Report(self.number, full, now, *used, held=held, ended=ended, facts=facts))

    def everything(self) -> tuple[HeldClaim, ...]:
        return tuple(self._held(claim) for claim in sorted(self.shown) if self.pool.holding(claim))

    def _held(self, claim: Claim) -> HeldClaim:
        holding = self.pool.holding(claim)
        assert holding is not None
        return HeldClaim(claim, holding.blocks, holding.slots)

    def start(self, granted: Granted, now: float) -> bool:
        """A client shows a grant; False: refused."""
        if granted.worker.boot != self.boot or granted.claim in self.shown | self.stopped:
            return False
        self.shown.add(granted.claim)
        if self.pool.take(granted.claim, granted.blocks, granted.slots, "r") is not None:
            self.say(now, ended=(EndedClaim(granted.claim, EndReason.REFUSED),))
            return False
        self.say(now, held=(self._held(granted.claim),))
        return True

    def end(self, claim: Claim, reason: EndReason, now: float) -> None:
        self.pool.release(claim)
        self.say(now, ended=(EndedClaim(claim, reason),))

    def crash(self) -> None:
        self.__init__(self.name, self.boot + 1)  # type: ignore[misc]


class AdmissionMachine(RuleBasedStateMachine):
    @initialize()
    def build(self) -> None:
        self.now = 0.0
        self.asks = 0
        self.admission = Admission(RULES, NAMES, epoch=1, now=0.0)
        self.workers = {name: ModelWorker(name) for name in NAMES}
        self.granted: list[Granted] = []  # shown to no worker yet
        self.asked: dict[AskKey, Ask] = {}
        self.running: list[tuple[str, Claim]] = []
        for name in NAMES:
            self.a_link_comes_up(name)
            self.reports_arrive(name, 1)

    def tell(self, event: Event) -> None:
        for decision in self.admission.step(event, self.now):
            match decision:
                case Granted():
                    self.granted.append(decision)
                case StopClaim():
                    self.deliver_stop(decision)
                case Redial():
                    self.break_link(decision.worker)
                case Refused() | Revoked():
                    self.asked.pop(decision.key, None)

    def deliver_stop(self, stop: StopClaim) -> None:
        worker = self.workers[stop.worker]
        if worker.linked:
            worker.stopped.add(stop.claim)
            worker.end(stop.claim, stop.reason, self.now)

    @rule(
        prompt=st.integers(1, 120),
        max_tokens=st.integers(1, 60),
        tier=st.sampled_from(["chat", "bulk"]),
        session=st.integers(1, 2),
        choices=st.integers(1, 2),
    )
    def a_client_asks(self, prompt: int, max_tokens: int, tier: str, session: int, choices: int) -> None:
        self.asks += 1
        key = AskKey(session, self.asks)
        ask = Ask(f"r{self.asks}", MODEL, tier, prompt_tokens=prompt, max_tokens=max_tokens, choices=choices)
        self.asked[key] = ask
        self.tell(Asked(key, ask))

    @rule(pick=st.integers(0, 99), boot_seen=st.booleans())
    def a_client_starts_what_it_was_granted(self, pick: int, boot_seen: bool) -> None:
        if not self.granted:
            return
        granted = self.granted.pop(pick % len(self.granted))
        worker = self.workers[granted.worker.name]
        if worker.start(granted, self.now):
            self.running.append((worker.name, granted.claim))
        elif boot_seen and granted.key in self.asked:
            again = Again(granted.claim, EndReason.REFUSED, worker.name)
            ask = self.asked[granted.key]
            self.tell(
                Asked(
                    granted.key,
                    Ask(
                        ask.request_id,
                        MODEL,
                        ask.tier,
                        prompt_tokens=ask.prompt_tokens,
                        max_tokens=ask.max_tokens,
                        choices=ask.choices,
                        again=again,
                    ),
                )
            )

    @rule(
        pick=st.integers(0, 99),
        reason=st.sampled_from([EndReason.STOP, EndReason.CANCELLED, EndReason.FAILED]),
    )
    def a_sequence_ends(self, pick: int, reason: EndReason) -> None:
        if self.running:
            name, claim = self.running.pop(pick % len(self.running))
            self.workers[name].end(claim, reason, self.now)

    @rule(pick=st.integers(0, 99))
    def a_client_withdraws(self, pick: int) -> None:
        if self.asked:
            self.tell(Withdrawn(sorted(self.asked)[pick % len(self.asked)]))

    @rule(session=st.integers(1, 2), seldom=st.integers(0, 4))
    def a_client_goes_away(self, session: int, seldom: int) -> None:
        if not seldom:
            self.tell(SessionEnded(session))

    @rule(name=st.sampled_from(NAMES))
    def a_link_comes_up(self, name: str) -> None:
        worker = self.workers[name]
        if not worker.linked:
            worker.linked, worker.number, worker.up = True, 0, []
            worker.say(self.now, full=True, held=worker.everything())

    @rule(name=st.sampled_from(NAMES), count=st.integers(1, 5))
    def reports_arrive(self, name: str, count: int) -> None:
        worker = self.workers[name]
        for _ in range(min(count, len(worker.up))):
            report = worker.up.pop(0)
            self.tell(Reported(name, report))
            if report.number == 1:
                for stop in self.admission.resend_stops(name):
                    self.deliver_stop(stop)
            if not worker.linked:
                break

    @rule(name=st.sampled_from(NAMES))
    def a_full_report_is_sent(self, name: str) -> None:
        worker = self.workers[name]
        worker.say(self.now, full=True, held=worker.everything())

    @rule(name=st.sampled_from(NAMES), seldom=st.integers(0, 4))
    def a_link_breaks(self, name: str, seldom: int) -> None:
        if not seldom:
            self.break_link(name)

    def break_link(self, name: str) -> None:
        worker = self.workers[name]
        if worker.linked:
            worker.linked, worker.up = False, []
            self.tell(LinkLost(name))

    @rule(name=st.sampled_from(NAMES), seldom=st.integers(0, 9))
    def a_worker_crashes(self, name: str, seldom: int) -> None:
        if seldom:
            return
        self.break_link(name)
        self.workers[name].crash()
        self.running = [(where, claim) for where, claim in self.running if where != name]

    @rule(seconds=st.sampled_from([0.05, 0.5, 2.0, 7.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.tell(Ticked())

    @invariant()
    def nobody_holds_more_than_there_is(self) -> None:
        if not hasattr(self, "workers"):
            return
        assert self.admission.over_capacity == 0
        for name, worker in self.workers.items():
            ledger = self.admission.workers[name].ledger
            assert worker.pool.used_blocks <= BLOCKS
            assert worker.pool.used_slots <= SLOTS
            for axis in (ledger.blocks, ledger.slots):
                assert axis.own <= axis.capacity

    def teardown(self) -> None:
        """Everything ends: no lease stays open, no block and no slot stays charged."""
        if not hasattr(self, "workers"):
            return
        for session in (1, 2):
            self.tell(SessionEnded(session))
        for name in NAMES:
            self.a_link_comes_up(name)
        for name, claim in self.running:
            self.workers[name].end(claim, EndReason.STOP, self.now)
        for _ in range(3):
            self.now += 7
            self.tell(Ticked())
            for name in NAMES:
                self.a_link_comes_up(name)
                self.a_full_report_is_sent(name)
                self.reports_arrive(name, len(self.workers[name].up))
        assert self.admission.leases.opened == self.admission.leases.closed
        assert not any(self.admission.leases.by_state().values())
        for name in NAMES:
            ledger = self.admission.workers[name].ledger
            assert (len(ledger), ledger.blocks.own, ledger.slots.own) == (0, 0, 0)
            assert self.workers[name].pool.used_blocks == 0


def walk(machine: AdmissionMachine, dice: random.Random) -> None:
    """One step, weighted so that most requests get somewhere before something breaks."""
    name = dice.choice(NAMES)
    steps = {
        12: lambda: machine.a_client_asks(
            dice.randint(1, 120),
            dice.randint(1, 60),
            dice.choice(["chat", "bulk"]),
            dice.randint(1, 2),
            dice.randint(1, 2),
        ),
        18: lambda: machine.a_client_starts_what_it_was_granted(dice.randrange(99), dice.random() < 0.8),
        14: lambda: machine.a_sequence_ends(
            dice.randrange(99), dice.choice([EndReason.STOP, EndReason.FAILED])
        ),
        20: lambda: machine.reports_arrive(name, dice.randint(1, 5)),
        6: lambda: machine.a_link_comes_up(name),
        5: lambda: machine.a_full_report_is_sent(name),
        4: lambda: machine.a_client_withdraws(dice.randrange(99)),
        3: lambda: machine.time_passes(dice.choice([0.05, 0.5, 2.0, 7.0])),
        2: lambda: machine.a_link_breaks(name, 0),
        1: lambda: (
            machine.a_worker_crashes(name, 0) if dice.random() < 0.5 else machine.a_client_goes_away(1, 0)
        ),
    }
    dice.choices(list(steps.values()), weights=list(steps))[0]()


@pytest.mark.parametrize("seed", range(12))
def test_long_hostile_walks_end_with_every_lease_closed_and_nothing_charged(seed: int) -> None:
    machine, dice = AdmissionMachine(), random.Random(seed)
    machine.build()
    for _ in range(1500):
        walk(machine, dice)
        machine.nobody_holds_more_than_there_is()
    granted = sum(worker.requests for worker in machine.admission.workers.values())
    machine.teardown()
    assert granted > 50  # the walk got somewhere


AdmissionMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=60, deadline=None)
TestAdmissionUnderHostileTime = AdmissionMachine.TestCase
