"""A small fleet's admission, driven with invented time."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from diplex_core.admission import Admission
from diplex_core.events import (
    Ask,
    Asked,
    AskKey,
    Decision,
    EndedClaim,
    Event,
    Granted,
    HeldClaim,
    LinkLost,
    Report,
    Reported,
    Served,
    WantedClaim,
    WorkerFacts,
)
from diplex_core.words import Claim, EndReason, Pattern, Rules, Tier

MODEL = "qwen2.5-72b-instruct"
INTERACTIVE = Tier("interactive", (Pattern.C, Pattern.A), max_output_tokens=1024, priority=100, max_queue=0.2)
BULK = Tier("bulk", (Pattern.A, Pattern.B), max_output_tokens=8192)
RULES = Rules(
    frozenset({MODEL, "other"}), MODEL, {"interactive": INTERACTIVE, "bulk": BULK}, default_tier="bulk"
)


def worker_facts(
    name: str, pattern: Pattern = Pattern.A, *, blocks: int = 100, slots: int = 4, boot: int = 1
) -> WorkerFacts:
    return WorkerFacts(
        name,
        name,
        pattern,
        frozenset({MODEL}),
        boot,
        f"{name}:1",
        32,
        blocks,
        slots,
        context=32768,
        engine="sim",
        reports_residency=True,
    )


@dataclass
class Desk:
    """Admission with one script: what workers hold is remembered here as they would."""

    admission: Admission
    now: float = 0.0
    numbers: dict[str, int] = field(default_factory=dict)
    held: dict[str, dict[Claim, HeldClaim]] = field(default_factory=dict)
    asks: int = 0
    served: list[Served] = field(default_factory=list)

    def tell(self, event: Event) -> list[Decision]:
        """What is to be done; what only tells of a request that is over gathers in `served`."""
        decisions = self.admission.step(event, self.now)
        self.served += [decision for decision in decisions if isinstance(decision, Served)]
        return [decision for decision in decisions if not isinstance(decision, Served)]

    def link(self, worker: WorkerFacts) -> list[Decision]:
        self.numbers[worker.name] = 0
        self.held.setdefault(worker.name, {})
        return self.report(worker.name, full=worker)

    def report(
        self,
        worker: str,
        *held: HeldClaim,
        ended: tuple[EndedClaim, ...] = (),
        full: WorkerFacts | None = None,
        problem: str = "",
        foreign: int = 0,
        wants: tuple[WantedClaim, ...] = (),
    ) -> list[Decision]:
        self.numbers[worker] += 1
        mine = self.held[worker]
        mine.update({claim.claim: claim for claim in held})
        for over in ended:
            mine.pop(over.claim, None)
        report = Report(
            number=self.numbers[worker],
            full=full is not None,
            uptime=self.now + 1000,
            used_blocks=sum(claim.blocks for claim in mine.values()),
            used_slots=sum(claim.slots for claim in mine.values()),
            foreign_blocks=foreign,
            held=tuple(mine.values()) if full else held,
            ended=ended,
            wants=wants,
            facts=full,
            engine_problem=problem,
        )
        return self.tell(Reported(worker, report))

    def ask(
        self, prompt: int = 32, max_tokens: int = 32, *, session: int = 1, **more: object
    ) -> list[Decision]:
        self.asks += 1
        ask = Ask(f"r{self.asks}", MODEL, prompt_tokens=prompt, max_tokens=max_tokens, **more)  # type: ignore[arg-type]
        return self.tell(Asked(AskKey(session, self.asks), ask))

    def grant(self, prompt: int = 32, max_tokens: int = 32, **more: object) -> Granted:
        """Ask for something that must be granted at once."""
        (granted,) = self.ask(prompt, max_tokens, **more)  # type: ignore[arg-type]
        assert isinstance(granted, Granted), granted
        return granted

    def start(self, granted: Granted) -> list[Decision]:
        """The worker takes a granted claim on."""
        return self.report(granted.worker.name, HeldClaim(granted.claim, granted.blocks, granted.slots))

    def end(self, granted: Granted, reason: EndReason = EndReason.STOP) -> list[Decision]:
        return self.report(granted.worker.name, ended=(EndedClaim(granted.claim, reason),))

    def lose(self, worker: str) -> list[Decision]:
        return self.tell(LinkLost(worker))

    def free(self, worker: str) -> int:
        return self.admission.workers[worker].ledger.blocks.free


@pytest.fixture
def facts() -> Callable[..., WorkerFacts]:
    return worker_facts


@pytest.fixture
def new_desk() -> Callable[..., Desk]:
    def build(*workers: WorkerFacts, rules: Rules = RULES, silent: tuple[str, ...] = ()) -> Desk:
        names = [worker.name for worker in workers] + list(silent)
        desk = Desk(Admission(rules, names, epoch=7, now=0.0))
        for worker in workers:
            desk.link(worker)
        return desk

    return build
