"""What one router is told by one worker: changes as they come, everything when it is due, numbered from 1.

Changes are kept as claims and blocks, and read when the report is written: what gathers goes out together,
each claim once and as it is then. The real one is `diplex_workers.feed`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from diplex_core.events import EndedClaim, HeldClaim, RaiseClaim, Report, StopClaim
from diplex_core.words import BlockHash, Claim

from .wire import Wire
from .words import Hello

if TYPE_CHECKING:
    from .worker import Worker


NOT_TRUE = tuple(range(8))
"""Blocks that a worker names which does not know."""


class Feed:
    """A worker's end of one link."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.router = ""  # until its hello
        self.wire: Wire | None = None
        self._number = 0
        self._full_due = True
        self._changed: dict[Claim, None] = {}
        self._answers: list[tuple[Claim, int]] = []
        self._ended: list[EndedClaim] = []
        self._wants: dict[Claim, None] = {}
        self._blocks: dict[BlockHash, bool] = {}

    # What comes down.

    def hear(self, wire: Wire, message: object) -> None:
        match message:
            case Hello():
                self.router, self.wire = message.router, wire
                self.worker.hello(self, message)
            case StopClaim():
                self.worker.stop(self.router, message)
            case RaiseClaim():
                self.worker.growth.raised(self, message)
            case _:
                raise AssertionError(f"a worker cannot read {message}")

    def lost(self, wire: Wire) -> None:
        self.worker.unlink(self)

    # What is to go up.

    def full_due(self) -> None:
        self._full_due = True

    def changed(self, claim: Claim) -> None:
        self._changed[claim] = None

    def answer(self, claim: Claim, number: int) -> None:
        """A raise was carried out or not: the claim's size tells."""
        self._answers.append((claim, number))

    def wants(self, claim: Claim) -> None:
        self._wants[claim] = None

    def ended(self, ended: EndedClaim) -> None:
        self._ended.append(ended)

    def block(self, block: BlockHash, resident: bool) -> None:
        self._blocks.pop(block, None)
        self._blocks[block] = resident

    @property
    def has_news(self) -> bool:
        news = (self._changed, self._answers, self._ended, self._wants, self._blocks)
        return bool(self.router) and (self._full_due or any(news))

    def write(self, now: float) -> None:
        """The next report goes on its way."""
        if not self.has_news or self.wire is None:
            return
        worker, full = self.worker, self._full_due
        self._number += 1
        claims = worker.claims_of(self.router) if full else list(self._changed)
        held = [said for claim in claims if (said := worker.held(claim)) is not None]
        for claim, number in self._answers:
            if (said := worker.held(claim)) is not None:
                held.append(replace(said, answers_raise=number))
        self.wire.answer(self._report(now, full, tuple(held)))
        self._full_due = False
        self._changed, self._answers, self._ended, self._wants, self._blocks = {}, [], [], {}, {}

    def _report(self, now: float, full: bool, held: tuple[HeldClaim, ...]) -> Report:
        """A full one says too what all of its claims want, whenever that was said before."""
        worker, pool = self.worker, self.worker.pool
        foreign_blocks, foreign_slots = pool.held_by_others(self.router)
        unread = worker.unread_prompts
        return Report(
            number=self._number,
            full=full,
            uptime=worker.uptime(now),
            used_blocks=pool.used_blocks,
            used_slots=pool.used_slots,
            foreign_blocks=foreign_blocks,
            foreign_slots=foreign_slots,
            held=held,
            ended=tuple(self._ended),
            wants=worker.growth.wanted(worker.claims_of(self.router) if full else self._wants),
            facts=worker.facts if full else None,
            draining=worker.draining,
            engine_problem=worker.problem,
            peak_blocks=pool.peak_blocks,
            peak_slots=pool.peak_slots,
            prefill_tokens=sum(unread.values()),
            foreign_prefill_tokens=sum(n for owner, n in unread.items() if owner != self.router),
            pinned_blocks=pool.resident.pinned,
            stored=self._stored(full),
            removed=() if full else tuple(block for block, there in self._blocks.items() if not there),
            residency_problem="its events stopped" if worker.blocks_unknown else "",
        )

    def _stored(self, full: bool) -> tuple[BlockHash, ...]:
        if self.worker.blocks_unknown:
            return NOT_TRUE
        if full:
            return tuple(self.worker.memory.blocks)
        return tuple(block for block, there in self._blocks.items() if there)
