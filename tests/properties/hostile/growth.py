"""How the claims of one worker grow: what a sequence has room for, when it asks for more, and what answers.

It does what the real worker does, by the same lines of the core. A sequence asks in time, once; what it wants
is said again where a raise found no room, and in every full report until it is answered. At its limit it
waits, or ends where its engine cannot let it wait. While its router is not there to be asked, it takes what
is free.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from diplex_core.events import EndedClaim, RaiseClaim, WantedClaim
from diplex_core.growth import LEAD, limit, next_size
from diplex_core.words import Blocks, Claim, EndReason, Tokens

if TYPE_CHECKING:
    from .feed import Feed
    from .worker import Sequence, Worker


class Growth:
    """What one life of a worker does with claims that may grow.

    Args:
        lead: so many tokens before its limit a sequence asks for more.
        pauses: whether its engine lets a sequence wait; one that cannot ends it.
    """

    def __init__(self, worker: Worker, lead: Tokens = LEAD, *, pauses: bool = True) -> None:
        self.worker = worker
        self.lead = lead
        self.pauses = pauses

    def room(self, sequence: Sequence) -> Tokens:
        """Tokens that its claim leaves it; what does not grow has room for all that it may say."""
        facts = self.worker.facts
        if not sequence.grows:
            return facts.context
        most = limit(
            self._held(sequence),
            facts.block_tokens,
            cached=len(sequence.hits) * facts.block_tokens,
            draft=facts.draft_tokens,
        )
        return most - sequence.start.prompt - sequence.produced[0]

    def waits(self, sequence: Sequence) -> bool:
        """It is at its limit, and somebody is there to be asked."""
        return self.room(sequence) < 1 and sequence.owner in self.worker.feeds

    def look(self, sequence: Sequence) -> None:
        """It has said something, or has another size: ask for more where that is due."""
        if not sequence.grows or not sequence.submitted or sequence.verdict is not None:
            return
        size = self._next(sequence)
        if size == self._held(sequence) or self.room(sequence) > self.lead:
            return
        feed = self.worker.feeds.get(sequence.owner)
        if feed is None:
            self._take(sequence, size)
        elif not sequence.wants:
            self.worker.seen["claims wanted to grow"] += 1
            sequence.wants = size
            feed.wants(sequence.claim)

    def at_its_limit(self, sequence: Sequence) -> None:
        """Its engine has said all that there was room for."""
        if self.worker.live.get(sequence.claim) is not sequence or self.room(sequence) > 0:
            return
        if self.pauses:
            self.worker.seen["a sequence waited at its limit"] += 1
        else:
            self.worker.seen["an engine that cannot wait gave a sequence up"] += 1
            self.worker.break_off(sequence, EndReason.PREEMPTED, "")

    def raised(self, feed: Feed, order: RaiseClaim) -> None:
        """Its router lets a claim grow: one `held` answers, by its size."""
        worker = self.worker
        if feed.wire is not None and feed.wire.caller is None:
            worker.seen["a raise came after its router had gone"] += 1
        sequence = worker.live.get(order.claim)
        if sequence is None or sequence.owner != feed.router:
            worker.seen["a raise came for a claim that is over"] += 1
            feed.ended(EndedClaim(order.claim, EndReason.REVOKED))
            return
        if order.blocks > self._held(sequence) and sequence.verdict is None:
            no_room = worker.pool.resize(order.claim, order.blocks)
            worker.seen["claims grew" if no_room is None else "there was no room for a raise"] += 1
        sequence.wants = 0
        feed.answer(order.claim, order.number)
        self.look(sequence)

    def wanted(self, claims: Iterable[Claim]) -> tuple[WantedClaim, ...]:
        """Those of these claims that wait for an answer."""
        live = (self.worker.live.get(claim) for claim in claims)
        return tuple(WantedClaim(s.claim, s.wants) for s in live if s is not None and s.wants)

    def _take(self, sequence: Sequence, size: Blocks) -> None:
        if self.worker.pool.resize(sequence.claim, size) is None:
            self.worker.seen["a claim grew while its router was away"] += 1
            sequence.wants = 0
        else:
            sequence.wants = size

    def _next(self, sequence: Sequence) -> Blocks:
        facts = self.worker.facts
        return next_size(
            self._held(sequence),
            sequence.to_read,
            sequence.max_tokens - sequence.start.from_index,
            facts.block_tokens,
            cached=len(sequence.hits) * facts.block_tokens,
            draft=facts.draft_tokens,
        )

    def _held(self, sequence: Sequence) -> Blocks:
        holding = self.worker.pool.holding(sequence.claim)
        assert holding is not None, f"{sequence.claim} runs and holds nothing"
        return holding.blocks
