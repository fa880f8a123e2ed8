"""What a request's whole life costs the core of a large fleet: at 90 % load, at 120 % with a long bulk queue,
and with prompts that begin alike.

    .venv/bin/python benchmarks/core/scale.py                       # the table in benchmarks/core/README.md
    .venv/bin/python benchmarks/core/scale.py --workers 1000 --case queue --profile

Half of the workers are C, half A. Half of the requests are of a tier that promises a first token and gives
way when late, half are bulk; both with random sizes. A stand-in for the engines answers each grant with the
three reports that a worker sends: held, first token out (when it was predicted), and ended. What is measured
is the processor time within `Admission.step` for each request that ended, ticks included. No wire, no engine.

    spare     arrivals fill nine tenths of the slots
    queue     arrivals want 1.2 times the slots that there are; 100,000 bulk requests wait from the beginning
    prefixes  as `spare`; four in five prompts begin with the blocks of one of many conversations, and workers
              say which blocks they keep and evict
    both      as `queue`, with the prompts of `prefixes`
"""

import argparse
import cProfile
import gc
import pstats
import random
import resource
from collections import OrderedDict
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
)

FAST = Tier(
    "interactive", (Pattern.C, Pattern.A), Promise(Target(0.2, 0.045), 0.012), 1024, 100,
    when_late=WhenLate.DEGRADE, max_queue_requests=1_000_000,
)  # fmt: skip
BULK = Tier("bulk", (Pattern.A, Pattern.B), max_output_tokens=8192, max_queue_requests=1_000_000)
RULES = Rules(frozenset({"m"}), "m", {tier.name: tier for tier in (FAST, BULK)}, BULK.name)
BLOCK = 32
C, A = (
    WorkerFacts(
        "", "", pattern, frozenset({"m"}), 1, "", BLOCK, 20_000, slots, context=65_536, calibration="chapter",
        gpu="b200", profile="qwen2.5-72b", weights="mxfp4-mixed", kv_cache="mxfp8", prefill_budget=budget,
    )
    for pattern, slots, budget in ((Pattern.C, 16, 256), (Pattern.A, 32, 0))
)  # fmt: skip
LOAD = {"spare": 0.9, "queue": 1.2, "prefixes": 0.9, "both": 1.2}
ALIKE = ("prefixes", "both")
WAITING = 100_000
TICK = 0.1
LASTS = {FAST.name: 1.0, BULK.name: 2.0}  # seconds, on average: so C is filled by one half, A by the other
KEPT = 400  # blocks that a worker keeps, before it evicts those that were used last


@dataclass
class Stand:
    """A worker's part of the conversation."""

    facts: WorkerFacts
    number: int = 0
    kept: OrderedDict[BlockHash, None] = field(default_factory=OrderedDict)

    def keep(self, hashes: tuple[BlockHash, ...]) -> tuple[tuple[BlockHash, ...], tuple[BlockHash, ...]]:
        """It keeps these; answers which are new, and which had to go for them."""
        stored = tuple(block for block in hashes if block not in self.kept)
        for block in hashes:
            self.kept[block] = None
            self.kept.move_to_end(block)
        return stored, tuple(self.kept.popitem(last=False)[0] for _ in range(len(self.kept) - KEPT))


class Bench:
    """One fleet under one load."""

    def __init__(self, workers: int, case: str, seed: int = 1) -> None:
        self.dice = random.Random(seed)
        self.case = case
        kinds = (replace(C if i % 2 == 0 else A, name=f"w{i}", package=f"p{i}") for i in range(workers))
        self.stands = {facts.name: Stand(facts) for facts in kinds}
        self.admission = Admission(RULES, self.stands, epoch=1, now=0.0)
        self.now: Seconds = 0.0
        self.took = 0.0
        self.ended = 0
        self.asked = 0
        self._due: list[tuple[Seconds, int, str, Granted]] = []
        self._order = 0
        self._asked_with: dict[AskKey, tuple[BlockHash, ...]] = {}
        self._hashes: dict[Claim, tuple[BlockHash, ...]] = {}
        for name in self.stands:
            self._report(name)
        self._rate = LOAD[case] * workers / 2 * (C.capacity_slots + A.capacity_slots / LASTS[BULK.name])
        if LOAD[case] > 1:
            for _ in range(WAITING):
                self._ask(BULK.name)
        self.took, self.ended = 0.0, 0

    def run(self, requests: int) -> float:
        """Seconds of the core's time for each of so many requests that end, once the fleet is full."""
        next_ask, next_tick, counted = self.now, self.now, False
        warm = self.now + 2.0
        while not counted or self.ended < requests:
            if not counted and self.now >= warm:
                counted, self.took, self.ended = True, 0.0, 0
            ahead = self._due[0][0] if self._due else float("inf")
            self.now = min(next_ask, next_tick, ahead)
            if ahead == self.now:
                _, _, what, granted = heappop(self._due)
                self._happens(what, granted)
            elif next_ask == self.now:
                self._ask(FAST.name if self.dice.random() < 0.5 else BULK.name)
                next_ask += self.dice.expovariate(self._rate)
            else:
                next_tick += TICK
                self._tell(Ticked())
        return self.took / self.ended

    def _ask(self, tier: str) -> None:
        self.asked += 1
        prompt, hashes = self.dice.randint(200, 1800), tuple[BlockHash, ...]()
        if self.case in ALIKE and self.dice.random() < 0.8:
            many = 10 * len(self.stands)
            family = min(int(self.dice.expovariate(4.0 / many)), many)
            hashes = tuple(1000 * family + i for i in range(prompt // BLOCK))
        ask = Ask(f"r{self.asked}", "m", tier, "", prompt, True, hashes, self.dice.randint(16, 400))
        key = AskKey(1, self.asked)
        if hashes:
            self._asked_with[key] = hashes
        self._tell(Asked(key, ask))

    def _happens(self, what: str, granted: Granted) -> None:
        name, claim = granted.worker.name, granted.claim
        if what == "ended":
            self.ended += 1
            last = EndedClaim(claim, EndReason.STOP, 1000, 100, 0.05, 1.0)
            self._report(name, ended=(last,))
            return
        first = what == "first"
        hashes = self._hashes.pop(claim, ()) if first else ()
        stored, removed = self.stands[name].keep(hashes) if hashes else ((), ())
        held = HeldClaim(claim, granted.blocks, 1, prefilled=first, prompt_tokens=1000)
        self._report(name, held=(held,), stored=stored, removed=removed)

    def _report(self, name: str, **said: object) -> None:
        stand = self.stands[name]
        stand.number += 1
        full = stand.number == 1
        facts = stand.facts if full else None
        report = Report(stand.number, full, self.now, 0, 0, facts=facts, **said)  # type: ignore[arg-type]
        self._tell(Reported(name, report))

    def _tell(self, event: Event) -> None:
        began = process_time()
        decisions = self.admission.step(event, self.now)
        self.took += process_time() - began
        for decision in decisions:
            if not isinstance(decision, Granted):
                continue
            if hashes := self._asked_with.pop(decision.key, ()):
                self._hashes[decision.claim] = hashes
            lasts = self.dice.expovariate(1.0 / LASTS[FAST.name if decision.priority else BULK.name])
            read = (decision.predicted_ttft or 0.0) - decision.queued
            for after, what in ((0.001, "held"), (read, "first"), (read + lasts, "ended")):
                self._order += 1
                heappush(self._due, (self.now + max(0.0, after), self._order, what, decision))


def main() -> None:
    parser = argparse.ArgumentParser(description="What a request's whole life costs the core.")
    parser.add_argument("--workers", type=int, action="append")
    parser.add_argument("--case", choices=tuple(LOAD), action="append")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--profile", action="store_true", help="and where the time goes")
    options = parser.parse_args()
    gc.set_threshold(50_000, 50, 100)  # as `diplex simulate` does
    print("workers  case      us a request  waiting   granted   MB")
    for workers in options.workers or (2, 16, 64, 256, 1000, 4000):
        for case in options.case or tuple(LOAD):
            bench = Bench(workers, case)
            profile = cProfile.Profile() if options.profile else None
            if profile is not None:
                profile.enable()
            took = bench.run(options.requests) * 1e6
            if profile is not None:
                profile.disable()
            waiting, granted = len(bench.admission.waiting), bench.admission.outcomes["granted", ""]
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"{workers:7}  {case:8}  {took:12.0f}  {waiting:7}  {granted:8}  {memory:4.0f}", flush=True)
            if profile is not None:
                pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
