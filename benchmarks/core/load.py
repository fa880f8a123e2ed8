"""A fleet under load, and a stand-in for its engines: what decisions.py times. Others use parts of it.

Half of the workers are C, half A. Half of the requests are of a tier that promises a first token and gives
way when late, half are bulk; both with random sizes. The stand-in answers each grant with the three reports
that a worker sends: held, first token out (when it was predicted), and ended. What is measured is the
processor time within `Admission.step`, by what the step was about. No wire, no engine.
"""

import gc
import random
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from time import process_time

from diplex_core.admission import Admission
from diplex_core.events import (
    Ask,
    Asked,
    AskKey,
    EndedClaim,
    Event,
    Granted,
    HeldClaim,
    Report,
    Reported,
    Ticked,
    WorkerFacts,
)
from diplex_core.words import (
    BlockHash,
    Claim,
    EndReason,
    Pattern,
    Promise,
    Rules,
    Seconds,
    Target,
    Tier,
    WhenLate,
    packed,
)

FAST = Tier(
    "interactive", (Pattern.C, Pattern.A), Promise(Target(0.2, 0.045), 0.012), 1024, 100,
    when_late=WhenLate.DEGRADE, max_queue_requests=2_000_000,
)  # fmt: skip
BULK = Tier("bulk", (Pattern.A, Pattern.B), max_output_tokens=8192, max_queue_requests=2_000_000)
RULES = Rules(frozenset({"m"}), "m", {tier.name: tier for tier in (FAST, BULK)}, BULK.name)
BLOCK = 32
C, A = (
    WorkerFacts(
        "", "", pattern, frozenset({"m"}), 1, "", BLOCK, 20_000, slots, context=65_536, calibration="chapter",
        gpu="b200", profile="qwen2.5-72b", weights="mxfp4-mixed", kv_cache="mxfp8", prefill_budget=budget,
        reports_residency=True,
    )
    for pattern, slots, budget in ((Pattern.C, 16, 256), (Pattern.A, 32, 0))
)  # fmt: skip
LOAD = {"half": 0.5, "spare": 0.9, "queue": 1.2, "prefixes": 0.9, "both": 1.2}
"""Of the slots that there are, by case; in the two overloaded ones bulk requests wait from the beginning."""
ALIKE = ("prefixes", "both")
"""In these four of five prompts begin with the blocks of one of many conversations."""
TICK = 0.1
LASTS = {FAST.name: 1.0, BULK.name: 2.0}  # seconds, on average: so C is filled by one half, A by the other
KEPT = 400  # blocks that a worker keeps, before it evicts those that were used last


def slow_collector() -> None:
    """Python's cycle collector at the pace of `diplex simulate`."""
    gc.set_threshold(50_000, 50, 100)


def pace() -> float:
    """Milliseconds of processor time that a fixed loop takes just now, the least of five: the same loop has
    been seen to differ by half from hour to hour on a machine that others use too."""
    return min(_loop() for _ in range(5)) * 1000


def _loop() -> float:
    began, seen = process_time(), dict[int, tuple[int, int]]()
    for i in range(20_000):
        seen[i & 1023] = (i, i + 1)
    return process_time() - began


def _cost_of_a_clock() -> float:
    """Seconds that two looks at the clock see of themselves."""
    least = 1.0
    for _ in range(1000):
        began = process_time()
        least = min(least, process_time() - began)
    return least


@dataclass
class Stand:
    """A worker's part of the conversation."""

    facts: WorkerFacts
    number: int = 0
    kept: OrderedDict[BlockHash, None] = field(default_factory=OrderedDict)

    def keep(self, hashes: Sequence[BlockHash]) -> tuple[tuple[BlockHash, ...], tuple[BlockHash, ...]]:
        """It keeps these; answers which are new, and which had to go for them."""
        stored = tuple(block for block in hashes if block not in self.kept)
        for block in hashes:
            self.kept[block] = None
            self.kept.move_to_end(block)
        return stored, tuple(self.kept.popitem(last=False)[0] for _ in range(len(self.kept) - KEPT))


class Bench:
    """One fleet under one load.

    Attributes:
        took: seconds of the core's own time, by what it was for: asks, the three reports, ticks.
        ended: requests that came to their end meanwhile.
    """

    def __init__(
        self, workers: int, case: str, *, predictions: bool = True, waiting: int = 100_000, seed: int = 1
    ) -> None:
        self.dice = random.Random(seed)
        self.case = case
        kinds = (replace(C if i % 2 == 0 else A, name=f"w{i}", package=f"p{i}") for i in range(workers))
        if not predictions:
            kinds = (replace(facts, profile="", calibration="") for facts in kinds)
        self.stands = {facts.name: Stand(facts) for facts in kinds}
        self.admission = Admission(RULES, self.stands, epoch=1, now=0.0)
        self.now: Seconds = 0.0
        self.took: Counter[str] = Counter()
        self.ended = 0
        self.asked = 0
        self._clock = _cost_of_a_clock()
        self._due: list[tuple[Seconds, int, str, Granted]] = []
        self._order = 0
        self._asked_with: dict[AskKey, Sequence[BlockHash]] = {}
        self._hashes: dict[Claim, Sequence[BlockHash]] = {}
        for name in self.stands:
            self._report(name, "full")
        self._rate = LOAD[case] * workers / 2 * (C.capacity_slots + A.capacity_slots / LASTS[BULK.name])
        self._next_ask = self._next_tick = 0.0
        if LOAD[case] > 1:
            for _ in range(waiting):
                self._ask(BULK.name)

    def warm(self) -> None:
        """Until the fleet has filled and is in the state in which it stays."""
        while self.now < (3.0 if len(self.stands) <= 256 else 1.5):
            self._next()

    def run(self, requests: int) -> Counter[str]:
        """Microseconds of the core's time for each of so many requests that end, by what they were for."""
        self.took.clear()
        self.ended = 0
        while self.ended < requests:
            self._next()
        return Counter({what: took / self.ended * 1e6 for what, took in self.took.items()})

    def _next(self) -> None:
        ahead = self._due[0][0] if self._due else float("inf")
        self.now = min(self._next_ask, self._next_tick, ahead)
        if ahead == self.now:
            _, _, what, granted = heappop(self._due)
            self._happens(what, granted)
        elif self._next_ask == self.now:
            self._ask(FAST.name if self.dice.random() < 0.5 else BULK.name)
            self._next_ask += self.dice.expovariate(self._rate)
        else:
            self._next_tick += TICK
            self._tell(Ticked(), "tick")

    def _ask(self, tier: str) -> None:
        self.asked += 1
        prompt = self.dice.randint(200, 1800)
        hashes: Sequence[BlockHash] = ()
        if self.case in ALIKE and self.dice.random() < 0.8:
            many = 10 * len(self.stands)
            family = min(int(self.dice.expovariate(4.0 / many)), many)
            hashes = packed([1000 * family + i for i in range(prompt // BLOCK)])
        ask = Ask(
            f"r{self.asked}", "m", tier, "", prompt, True, hashes, max_tokens=self.dice.randint(16, 400)
        )
        key = AskKey(1, self.asked)
        if hashes:
            self._asked_with[key] = hashes
        self._tell(Asked(key, ask), "ask")

    def _happens(self, what: str, granted: Granted) -> None:
        name, claim = granted.worker.name, granted.claim
        if what == "ended":
            self.ended += 1
            last = EndedClaim(claim, EndReason.STOP, 1000, 100, 0.05, 1.0)
            self._report(name, "ended", ended=(last,))
            return
        first = what == "first"
        hashes = self._hashes.pop(claim, ()) if first else ()
        stored, removed = self.stands[name].keep(hashes) if hashes else ((), ())
        held = HeldClaim(claim, granted.blocks, 1, prefilled=first, prompt_tokens=1000)
        self._report(name, what, held=(held,), stored=stored, removed=removed)

    def _report(self, name: str, what: str, **said: object) -> None:
        stand = self.stands[name]
        stand.number += 1
        full = stand.number == 1
        facts = stand.facts if full else None
        report = Report(stand.number, full, self.now, 0, 0, facts=facts, **said)  # type: ignore[arg-type]
        self._tell(Reported(name, report), what)

    def _tell(self, event: Event, what: str) -> None:
        began = process_time()
        decisions = self.admission.step(event, self.now)
        self.took[what] += process_time() - began - self._clock
        for decision in decisions:
            if not isinstance(decision, Granted):
                continue
            if hashes := self._asked_with.pop(decision.key, ()):
                self._hashes[decision.claim] = hashes
            lasts = self.dice.expovariate(1.0 / LASTS[FAST.name if decision.priority else BULK.name])
            read = (decision.predicted_ttft or 0.0) - decision.queued
            for after, happens in ((0.001, "held"), (read, "first"), (read + lasts, "ended")):
                self._order += 1
                heappush(self._due, (self.now + max(0.0, after), self._order, happens, decision))
