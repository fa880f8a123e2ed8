"""Which worker is kept for which request: the head of each queue that lacks room has one (`backfill`)."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import inf
from typing import TypeAlias

from diplex_core.backfill import Ending, Reservation, Start, start_of
from diplex_core.fleet import Worker
from diplex_core.ledger import PoolLedger
from diplex_core.placement.filters import ever_fits
from diplex_core.placement.rules import Need, Wish, need_on, whole
from diplex_core.words import Blocks, Seconds, Slots, Tokens

_Question: TypeAlias = tuple[PoolLedger, int, Blocks, Slots, Blocks, Slots]
"""What a start depends on: the account, its changes, what is open and free there, and what is needed."""


class Reservations:
    """At most one for a request, and for a worker. A request of a higher priority takes a worker over."""

    def __init__(self) -> None:
        self._of: dict[int, tuple[Reservation, Worker]] = {}
        self._loosened: dict[str, Worker] = {}
        self._endings: dict[str, tuple[PoolLedger, int, Sequence[Ending]]] = {}  # by worker, at some change
        self._starts: dict[str, tuple[_Question, Start]] = {}  # by worker, the last that was worked out

    def __len__(self) -> int:
        return len(self._of)

    def of(self, lease_id: int) -> Reservation | None:
        """`None` where none is kept for it, or one that takes nothing now."""
        held = self._of.get(lease_id)
        return held[0] if held is not None and not held[1].trouble else None

    def hold(self, wish: Wish, workers: Iterable[Worker], *, owed: bool) -> None:
        """Keep a worker for a wish that finds no room: the one on which it can start first. It stays the same
        one while that takes requests, and the start is counted anew.

        Args:
            workers: of kinds that may take it, by every rule but those that look at its size.
        """
        held = self._of.get(wish.lease_id)
        if held is not None and not held[1].trouble and held[1].reserved is held[0]:
            need = need_on(wish, held[1])
            self._keep(wish, held[1], need, self._start_on(held[1], need, wish.now), owed)
            return
        self.lift(wish.lease_id)
        best: tuple[tuple[Seconds, Blocks, int], Worker, Need, Start] | None = None
        needs: dict[tuple[Tokens, Tokens], tuple[Blocks, Need]] = {}
        for worker in workers:
            if worker.trouble:
                continue
            facts, ledger = worker.facts, worker.ledger
            size = facts.block_tokens, facts.draft_tokens
            known = needs.get(size)
            if known is None or not wish.stated or wish.block_hashes:
                known = needs[size] = max(whole(wish, facts), wish.least_blocks), need_on(wish, worker)
            most, need = known
            if not ever_fits(wish, facts, most):
                continue
            if ledger.fits(need.blocks, need.slots, need.hits):
                return  # it is not room that it lacks
            if self._may_take(wish, worker, owed):
                start = self._start_on(worker, need, wish.now)
                key = start.at, start.short, worker.order
                if best is None or key < best[0]:
                    best = key, worker, need, start
        if best is not None:
            self._keep(wish, *best[1:], owed)

    def look_again(self, worker: Worker, now: Seconds) -> None:
        """Somebody was placed on a worker that is kept for another."""
        kept = worker.reserved
        if kept is not None:
            need = Need(kept.blocks, kept.slots, 0)
            self._put(kept.at(self._start_on(worker, need, now)), worker)

    def lift(self, lease_id: int) -> None:
        """The request needs it no longer."""
        held = self._of.pop(lease_id, None)
        if held is not None and held[1].reserved is held[0]:
            held[1].reserved = None
            self._loosened[held[1].name] = held[1]

    def loosened(self) -> list[Worker]:
        """The workers that may take requests now which they were kept from, since this was last asked."""
        loosened = list(self._loosened.values())
        self._loosened.clear()
        return loosened

    def _may_take(self, wish: Wish, worker: Worker, owed: bool) -> bool:
        kept = worker.reserved
        return kept is None or (owed, wish.tier.priority) > (kept.owed, kept.priority)

    def _start_on(self, worker: Worker, need: Need, now: Seconds) -> Start:
        """When it can start there; it stays what it was while nothing changes in what is charged there."""
        ledger = worker.ledger
        question = ledger, ledger.changes, ledger.open_blocks, ledger.slots.free, need.blocks, need.slots
        known = self._starts.get(worker.name)
        if known is not None and known[0] == question:
            start = known[1]
            return start if start.at >= now else replace(start, at=now)
        start = start_of(
            need.blocks,
            need.slots,
            free_blocks=ledger.open_blocks,
            free_slots=ledger.slots.free,
            endings=self._endings_on(worker),
            now=now,
        )
        self._starts[worker.name] = question, start
        return start

    def _endings_on(self, worker: Worker) -> Sequence[Ending]:
        """When its guests will be over, by what is predicted of them, the first first."""
        ledger = worker.ledger
        of, changes, endings = self._endings.get(worker.name, (None, 0, ()))
        if of is not ledger or changes != ledger.changes:
            endings = sorted(
                [Ending(-inf if c.reclaiming else c.over, c.blocks, c.slots) for c in ledger.charges()]
            )
            self._endings[worker.name] = ledger, ledger.changes, endings
        return endings

    def _keep(self, wish: Wish, worker: Worker, need: Need, start: Start, owed: bool) -> None:
        reservation = Reservation(
            wish.lease_id, worker.name, wish.tier.priority, owed, need.blocks, need.slots, start
        )
        other = worker.reserved
        if other is not None and other.lease_id != wish.lease_id:
            self.lift(other.lease_id)
        self._put(reservation, worker)

    def _put(self, kept: Reservation, worker: Worker) -> None:
        before = worker.reserved
        if before is not None and kept.lets_more_pass_than(before):
            self._loosened[worker.name] = worker
        worker.reserved = kept
        self._of[kept.lease_id] = kept, worker


def kept_for(kept: Reservation, now: Seconds) -> str:
    """What a reservation says, as a user may read it."""
    if kept.start.at == inf:
        return f"{kept.worker} is kept for it: nobody knows when it will have room there"
    wait = max(0.0, kept.start.at - now)
    return f"{kept.worker} is kept for it: it is expected to have room there in {wait:.1f} s"
