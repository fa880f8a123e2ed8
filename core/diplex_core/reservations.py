"""Which worker is kept for which request: the head of each queue that lacks room has one (`backfill`)."""

from collections.abc import Iterable
from dataclasses import replace
from math import inf
from typing import TypeAlias

from diplex_core.backfill import Ending, Reservation, Start, start_of
from diplex_core.fleet import Worker
from diplex_core.ledger import PoolLedger
from diplex_core.placement.place import Placement
from diplex_core.placement.rules import Need, Wish, need_on
from diplex_core.words import Blocks, Seconds, Slots

_Question: TypeAlias = tuple[PoolLedger, int, Blocks, Slots, Blocks, Slots]
"""What a start depends on: the account, its changes, what is open and free there, and what is needed."""


class Reservations:
    """At most one for a request, and for a worker. A request of a higher priority takes a worker over."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._of: dict[int, tuple[Reservation, Worker]] = {}
        self._loosened: dict[str, Worker] = {}
        self._starts: dict[str, tuple[_Question, Start]] = {}  # by worker, the last that was worked out

    def __len__(self) -> int:
        return len(self._of)

    def of(self, lease_id: int) -> Reservation | None:
        """`None` where none is kept for it, or one that takes nothing now."""
        held = self._of.get(lease_id)
        return held[0] if held is not None and not held[1].trouble else None

    def hold(self, wish: Wish, workers: Iterable[Worker], *, owed: bool) -> None:
        """Keep a worker for a wish that finds no room: the one on which it can start first. It stays the same
        one while that takes requests, and the start is counted anew."""
        held = self._of.get(wish.lease_id)
        if held is not None and not held[1].trouble and held[1].reserved is held[0]:
            need = need_on(wish, held[1])
            self._keep(wish, held[1], need, self._start_on(held[1], need, wish.now), owed)
            return
        self.lift(wish.lease_id)
        best: tuple[tuple[Seconds, Blocks, int], Worker, Need, Start] | None = None
        for worker in workers:
            if worker.trouble or not self._placement.can_ever(wish, worker):
                continue
            need = need_on(wish, worker)
            if worker.ledger.fits(need.blocks, need.slots, need.hits):
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
        """As `start_on`; it stays what it was while nothing changes in what is charged there."""
        ledger = worker.ledger
        question = ledger, ledger.changes, ledger.open_blocks, ledger.slots.free, need.blocks, need.slots
        known = self._starts.get(worker.name)
        if known is not None and known[0] == question:
            start = known[1]
            return start if start.at >= now else replace(start, at=now)
        start = start_on(worker, need, now)
        self._starts[worker.name] = question, start
        return start

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


def start_on(worker: Worker, need: Need, now: Seconds) -> Start:
    """When it can start on this worker, by what is predicted of those that are there."""
    ledger = worker.ledger
    endings = []
    for charge in ledger.charges():
        at = now if charge.reclaiming else charge.over
        endings.append(Ending(at, charge.blocks, charge.slots))
    return start_of(
        need.blocks,
        need.slots,
        free_blocks=ledger.open_blocks,
        free_slots=ledger.slots.free,
        endings=endings,
        now=now,
    )


def kept_for(kept: Reservation, now: Seconds) -> str:
    """What a reservation says, as a user may read it."""
    if kept.start.at == inf:
        return f"{kept.worker} is kept for it: nobody knows when it will have room there"
    wait = max(0.0, kept.start.at - now)
    return f"{kept.worker} is kept for it: it is expected to have room there in {wait:.1f} s"
