"""Which claims a router must have charged on one worker, and what it may believe resident there, by rule.

The rule is the design's. A claim is charged from its grant, or from the first report that lists it, until the
worker says that it is over, a full report no longer lists one that was held, the worker starts anew or
changes its pool, or it is given up.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from diplex_core.events import Report, WorkerFacts
from diplex_core.fleet import GIVEN_UP_AFTER
from diplex_core.words import BlockHash, Claim, Seconds


@dataclass(slots=True)
class Book:
    """One worker, as one router is to see it."""

    lost_at: Seconds
    linked: bool = False
    charged: dict[Claim, bool] = field(
        default_factory=dict
    )  # and whether the worker has said that it holds it
    resident: set[BlockHash] = field(default_factory=set)
    _facts: WorkerFacts | None = None

    def granted(self, claim: Claim) -> None:
        self.charged[claim] = False

    def report(self, report: Report) -> None:
        """A report that was taken: read in the order facts, held, ended, and what a full one leaves out."""
        self.linked = True
        facts, known = report.facts, self._facts
        if facts is not None and (known is None or _pool_of(facts) != _pool_of(known)):
            self.charged, self.resident = {}, set()
        self._facts = facts or known
        self.charged |= {held.claim: True for held in report.held}
        for ended in report.ended:
            self.charged.pop(ended.claim, None)
        if report.full:
            listed = {held.claim for held in report.held}
            self.charged = {c: held for c, held in self.charged.items() if c in listed or not held}
            self.resident = set(report.stored)
        self.resident = (self.resident - set(report.removed)) | set(report.stored)

    def link_lost(self, now: Seconds) -> None:
        if self.linked:
            self.linked, self.lost_at = False, now

    def time_passes(self, now: Seconds) -> None:
        if not self.linked and now - self.lost_at >= GIVEN_UP_AFTER:
            self.charged = {}


def _pool_of(facts: WorkerFacts) -> tuple[int, int, int, int]:
    return facts.boot, facts.capacity_blocks, facts.capacity_slots, facts.guard_blocks
