"""A router's admission and simulated workers on one virtual clock: what a trace comes to, in no time.

The core decides as it does in a server, and each worker is the simulated engine's own batch, so what is found
out here about tiers, budgets and placement holds there; only the wire is missing: messages take no time, and
nothing is lost. Everything is simulated, and equal arguments give equal runs.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from diplex_core.admission import Admission
from diplex_core.events import (
    Ask,
    Asked,
    AskKey,
    EndedClaim,
    Granted,
    HeldClaim,
    Refused,
    Report,
    Reported,
    Served,
    Ticked,
    WorkerFacts,
)
from diplex_core.model.forecast import times_of
from diplex_core.model.steps import StepTimes
from diplex_core.pool import Pool
from diplex_core.sim.arrivals import Arrival
from diplex_core.sim.batch import Batch, Work
from diplex_core.words import Claim, EndReason, Rules, Seconds, Tokens

TICK: Seconds = 0.1
"""How often a server's router looks at what has become due."""


@dataclass(slots=True)
class Fate:
    """What became of an arrival. `served` None: it was refused, for the reason that `refused` gives.
    `longest_gap`: between two of its tokens."""

    arrival: Arrival
    served: Served | None = None
    refused: str = ""
    longest_gap: Seconds = 0.0


@dataclass(slots=True)
class _Guest:
    granted: Granted
    arrival: int
    work: Work
    started: Seconds
    first: Seconds | None = None
    last: Seconds = 0.0
    said: Tokens = 0


@dataclass(slots=True)
class VirtualWorker:
    """One simulated worker: the engine's batch, the authority on its pool, and its reports."""

    facts: WorkerFacts
    batch: Batch
    pool: Pool
    guests: dict[Claim, _Guest] = field(default_factory=dict)
    number: int = 0
    stepping: bool = False

    @classmethod
    def of(cls, facts: WorkerFacts, *, seed: int = 0) -> "VirtualWorker":
        """A worker by what it says of itself, on the step times that its facts name.

        Raises:
            ValueError: there are no figures for such a worker.
        """
        return cls(
            facts, _batch(facts, times_of(facts), seed), Pool(facts.capacity_blocks, facts.capacity_slots)
        )

    def report(
        self,
        now: Seconds,
        held: Iterable[HeldClaim] = (),
        ended: Iterable[EndedClaim] = (),
        *,
        full: bool = False,
    ) -> Reported:
        self.number += 1
        return Reported(
            self.facts.name,
            Report(
                self.number,
                full,
                now,
                self.pool.used_blocks,
                self.pool.used_slots,
                held=tuple(held),
                ended=tuple(ended),
                facts=self.facts if full else None,
                observed_blocks=self.batch.cache.used,
            ),
        )


def _batch(facts: WorkerFacts, times: StepTimes, seed: int) -> Batch:
    return Batch(
        times,
        capacity=facts.capacity_blocks,
        slots=facts.capacity_slots,
        block_tokens=facts.block_tokens,
        prefill_budget=facts.prefill_budget or None,
        seed=seed,
    )


class VirtualFleet:
    """One router in front of simulated workers, from the first arrival to the last word."""

    def __init__(self, rules: Rules, workers: Iterable[WorkerFacts], *, seed: int = 0) -> None:
        self.workers = {facts.name: VirtualWorker.of(facts, seed=seed) for facts in workers}
        self.admission = Admission(rules, self.workers, epoch=1, now=0.0)
        self.now: Seconds = 0.0
        self._due: list[tuple[Seconds, int, str]] = []  # ends of iterations, by worker
        self._order = count()
        for worker in self.workers.values():
            self._tell(worker.report(0.0, full=True))

    def run(self, arrivals: Iterable[Arrival]) -> list[Fate]:
        """Every arrival's fate, in the order in which they came."""
        self._fates = [Fate(arrival) for arrival in arrivals]
        coming = iter(enumerate(self._fates))
        ahead = next(coming, None)
        tick = TICK
        while ahead is not None or self._due or self.admission.waiting:
            moments = [tick]
            if ahead is not None:
                moments.append(ahead[1].arrival.at)
            if self._due:
                moments.append(self._due[0][0])
            self.now = min(moments)
            if self._due and self._due[0][0] == self.now:
                self._step_over(self.workers[heappop(self._due)[2]])
            elif ahead is not None and ahead[1].arrival.at == self.now:
                self._ask(*ahead)
                ahead = next(coming, None)
            else:
                tick += TICK
                self._tell(Ticked())
        return self._fates

    def _ask(self, number: int, fate: Fate) -> None:
        arrival = fate.arrival
        ask = Ask(
            f"r{number}",
            "",
            arrival.tier,
            prompt_tokens=arrival.prompt_tokens,
            exact=True,
            max_tokens=arrival.output_tokens,
        )
        self._tell(Asked(AskKey(1, number), ask))

    def _tell(self, event: Asked | Reported | Ticked) -> None:
        for decision in self.admission.step(event, self.now):
            match decision:
                case Granted():
                    self._start(decision)
                case Refused():
                    self._fates[decision.key.ask_id].refused = decision.refusal.why
                case Served():
                    self._fates[int(decision.request_id[1:])].served = decision
                case _:
                    pass

    def _start(self, granted: Granted) -> None:
        worker = self.workers[granted.worker.name]
        no_room = worker.pool.take(granted.claim, granted.blocks, granted.slots, "router")
        if no_room is not None:
            raise AssertionError(f"{worker.facts.name} has no room for what it was granted: {no_room}")
        arrival = self._fates[granted.key.ask_id].arrival
        work = Work(
            granted.claim,
            granted.claim.lease_id,
            arrival.prompt_tokens,
            arrival.output_tokens,
            to_the_limit=True,
        )
        worker.guests[granted.claim] = _Guest(granted, granted.key.ask_id, work, self.now)
        worker.batch.submit(work)
        self._tell(worker.report(self.now, [_held(worker, granted.claim)]))
        if not worker.stepping:
            self._step(worker)

    def _step(self, worker: VirtualWorker) -> None:
        worker.stepping = not worker.batch.idle
        if worker.stepping:
            took = worker.batch.plan(lambda claim: None) / worker.facts.time_scale
            heappush(self._due, (self.now + took, next(self._order), worker.facts.name))

    def _step_over(self, worker: VirtualWorker) -> None:
        first: list[Claim] = []
        over: list[Claim] = []

        def say(claim: Claim, choice: int, token_id: int | None, text: str, end: EndReason | None) -> None:
            guest = worker.guests[claim]
            guest.said += token_id is not None
            if guest.first is None:
                guest.first = self.now
                first.append(claim)
            else:
                fate = self._fates[guest.arrival]
                fate.longest_gap = max(fate.longest_gap, self.now - guest.last)
            guest.last = self.now
            if end is not None:
                over.append(claim)

        worker.batch.finish(say)
        held = [_held(worker, claim) for claim in first if claim not in over]
        ended = []
        for claim in over:
            guest = worker.guests.pop(claim)
            worker.pool.release(claim)
            since = guest.first - guest.started if guest.first is not None else None
            ended.append(
                EndedClaim(
                    claim,
                    EndReason.LENGTH,
                    guest.work.prompt_tokens,
                    guest.said,
                    since,
                    self.now - guest.started,
                )
            )
        self._step(worker)
        if held or ended:
            self._tell(worker.report(self.now, held, ended))


def _held(worker: VirtualWorker, claim: Claim) -> HeldClaim:
    guest = worker.guests[claim]
    return HeldClaim(
        claim,
        guest.granted.blocks,
        guest.granted.slots,
        prefilled=guest.first is not None,
        prompt_tokens=guest.work.prompt_tokens,
    )
