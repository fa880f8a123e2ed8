"""What a router must have charged on one worker, and what it may believe resident there, by rule.

The rule is the design's. A claim is charged from its grant, or from the first report that lists it, until the
worker says that it is over, a full report no longer lists one that was held, the worker starts anew or
changes its pool, or it is given up. Its size is what was granted, then what the worker says; from a raise to
the `held` that answers it, at least what it is raised to.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from diplex_core.events import Granted, HeldClaim, RaiseClaim, Report, StopClaim, WorkerFacts
from diplex_core.fleet import GIVEN_UP_AFTER
from diplex_core.words import BlockHash, Blocks, Claim, EndReason, Seconds, Slots


@dataclass(slots=True)
class Charged:
    """One claim, as its router is to see it.

    Attributes:
        arrived: when it was first asked for, as this router knows.
        held: its worker has said that it holds it.
        read: and that its prompt is read.
        raised: the number of the raise that is not answered; 0: none.
        wants: the whole size that it waits to grow to; 0: it waits for none.
        since: when it began to wait.
        stopped: its router wants it back, and why; `None`: it does not.
    """

    blocks: Blocks
    slots: Slots
    tenant: str
    grows: bool
    priority: int
    arrived: Seconds
    held: bool = False
    read: bool = False
    raised: int = 0
    wants: Blocks = 0
    since: Seconds = 0.0
    stopped: EndReason | None = None

    @property
    def rank(self) -> tuple[int, Seconds]:
        """The least gives way first: the lowest priority, and of that the youngest."""
        return self.priority, -self.arrived


@dataclass(slots=True)
class Book:
    """One worker, as one router is to see it."""

    lost_at: Seconds
    linked: bool = False
    charged: dict[Claim, Charged] = field(default_factory=dict)
    resident: set[BlockHash] = field(default_factory=set)
    _facts: WorkerFacts | None = None

    @property
    def coming_back(self) -> Blocks:
        """Blocks of claims that are wanted back."""
        return sum(charged.blocks for charged in self.charged.values() if charged.stopped)

    def held_by(self, tenant: str) -> Blocks:
        """Blocks of a tenant's claims, but for those that are wanted back."""
        mine = (c for c in self.charged.values() if c.tenant == tenant and not c.stopped)
        return sum(charged.blocks for charged in mine)

    @property
    def wanted(self) -> Blocks:
        """By how much claims wait to grow."""
        return sum(max(0, charged.wants - charged.blocks) for charged in self.charged.values())

    # What the router decides.

    def granted(self, granted: Granted, arrived: Seconds) -> None:
        self.charged[granted.claim] = Charged(
            granted.blocks, granted.slots, granted.tenant, granted.grows, granted.priority, arrived
        )

    def raise_(self, order: RaiseClaim) -> None:
        charged = self.charged[order.claim]
        charged.blocks, charged.raised, charged.wants = order.blocks, order.number, 0

    def stop(self, stop: StopClaim) -> None:
        if (charged := self.charged.get(stop.claim)) is not None:
            charged.stopped, charged.wants = stop.reason, 0

    # What the worker says.

    def report(self, report: Report, now: Seconds) -> None:
        """One that was taken: read in the order facts, held, ended, what a full one leaves out, wants."""
        self.linked = True
        facts, known = report.facts, self._facts
        if facts is not None and (known is None or _pool_of(facts) != _pool_of(known)):
            self.charged, self.resident = {}, set()
        self._facts = facts or known
        for held in report.held:
            self._held(held, now)
        for ended in report.ended:
            self.charged.pop(ended.claim, None)
        if report.full:
            self._whole(report)
        for wanted in report.wants:
            charged = self.charged.get(wanted.claim)
            if charged is not None and charged.grows and not charged.stopped and not charged.raised:
                charged.since = charged.since if charged.wants else now
                charged.wants = wanted.blocks
        self.resident = (self.resident - set(report.removed)) | set(report.stored)
        if report.residency_problem:
            self.resident = set()

    def link_lost(self, now: Seconds) -> None:
        if self.linked:
            self.linked, self.lost_at = False, now

    def time_passes(self, now: Seconds) -> None:
        if not self.linked and now - self.lost_at >= GIVEN_UP_AFTER:
            self.charged = {}

    def _held(self, held: HeldClaim, now: Seconds) -> None:
        charged = self.charged.get(held.claim)
        if charged is None:
            charged = Charged(held.blocks, held.slots, held.tenant, held.grows, held.priority, now)
            self.charged[held.claim] = charged
        charged.held = True
        charged.read |= held.prefilled
        if charged.raised and charged.raised != held.answers_raise:
            charged.blocks = max(charged.blocks, held.blocks)
        else:
            charged.blocks, charged.raised = held.blocks, 0

    def _whole(self, report: Report) -> None:
        """It lists every claim that is held, and every one that wants."""
        listed = {held.claim for held in report.held}
        want = {wanted.claim for wanted in report.wants}
        self.charged = {c: charged for c, charged in self.charged.items() if c in listed or not charged.held}
        for claim, charged in self.charged.items():
            if claim not in want:
                charged.wants = 0
        self.resident = set(report.stored)


def _pool_of(facts: WorkerFacts) -> tuple[int, int, int, int]:
    return facts.boot, facts.capacity_blocks, facts.capacity_slots, facts.guard_blocks
