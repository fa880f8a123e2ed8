"""What is true after every step, worked out anew from what is charged and held and compared with the sums."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from itertools import product

from diplex_core.admission import Admission
from diplex_core.fleet import Worker as Known
from diplex_core.lease import State
from diplex_core.ledger import Charge
from diplex_core.words import Claim, salted

from .router import Router
from .scenes import BOUNDED, FAMILIES
from .worker import Sequence, Worker

AXES = ("blocks", "slots", "prefill")
"""The fields of a charge, one for each of the ledger's axes."""


def about_router(router: Router) -> None:
    """One router's account is whole."""
    admission = router.admission
    assert admission.over_capacity == 0, "a worker said that it holds more than it has"
    for worker in admission.workers.values():
        _no_axis_is_over_committed(worker)
        assert worker.guests.claims() <= set(worker.ledger.claims())
        _charges_are_by_the_book(router, worker)
    _the_index_agrees(admission)
    _leases_and_queues_agree(admission)
    _charges_and_leases_agree(admission)


def about_worker(worker: Worker) -> None:
    """One worker never holds more than it has, over all its routers."""
    pool, facts = worker.pool, worker.facts
    held = [pool.holding(claim) for claim in worker.live]
    holdings = [holding for holding in held if holding is not None]
    assert len(holdings) == len(held), f"{facts.name} runs a claim that holds nothing"
    assert pool.used_blocks == sum(holding.blocks for holding in holdings)
    assert pool.used_slots == sum(holding.slots for holding in holdings)
    used = {block for holding in holdings for block in holding.hits}
    assert pool.resident.pinned == len(used), f"{facts.name} counts {pool.resident.pinned} pinned, not {used}"
    assert pool.used_blocks + pool.resident.pinned + facts.guard_blocks <= facts.capacity_blocks
    assert pool.used_slots <= facts.capacity_slots
    memory = worker.memory
    assert memory.occupied <= memory.capacity
    assert used <= set(memory.blocks), f"{facts.name} has lost blocks that live claims use"


def about_both(workers: list[Worker], routers: list[Router]) -> None:
    """No lease runs twice, unless what is older is being stopped."""
    running: defaultdict[int, list[tuple[Worker, Sequence]]] = defaultdict(list)
    for worker in workers:
        for claim, sequence in worker.live.items():
            running[claim.lease_id].append((worker, sequence))
            _it_is_counted_whole(worker, sequence, routers)
    for several in running.values():
        if len(several) > 1:
            newest = max(sequence.claim for _, sequence in several)
            for worker, sequence in several:
                assert sequence.claim == newest or _is_being_stopped(worker, sequence, routers), (
                    f"{sequence.claim} runs on {worker.name}, and {newest} runs too"
                )


def at_the_end(workers: list[Worker], routers: list[Router]) -> None:
    """Nothing is left: no lease, no place in a queue, no charge, no holding."""
    for router in routers:
        admission = router.admission
        assert admission.leases.opened == admission.leases.closed
        assert not admission.leases.all(), f"{router.name} has open leases: {admission.leases.all()}"
        assert len(admission.waiting) == 0 and not admission.waiting.queues()
        quotas, counters = admission.queueing.quotas, admission.waiting.counters
        assert not quotas._claims and not quotas._taken and not any(quotas._blocks.values())
        assert not counters._charges and not counters._waiting
        assert not admission.queueing._back, "who came back is over, and not forgotten"
        for worker in admission.workers.values():
            assert len(worker.ledger) == 0, f"{worker.name} is charged {worker.ledger.claims()}"
            for axis in worker.ledger.axes:
                assert (axis.own - axis.guard, axis.stray, axis.foreign) == (0, 0, 0), (
                    f"{worker.name}: {axis}"
                )
            at = next(at for at in workers if at.name == worker.name)
            kept = at.memory.blocks
            assert worker.ledger.cached == worker.ledger.leading(list(kept)) == len(kept), (
                f"{router.name} believes in other blocks than the {kept} of {worker.name}"
            )
    for at in workers:
        assert not at.live
        assert (at.pool.used_blocks, at.pool.used_slots, at.pool.resident.pinned) == (0, 0, 0)


def _charges_are_by_the_book(router: Router, worker: Known) -> None:
    """Each claim is charged that must be, and as large as the rule says."""
    ledger, book = worker.ledger, router.books[worker.name]
    charged, must_be = set(ledger.claims()), set(book.charged)
    assert charged == must_be, f"{router.name} charges {charged} on {worker.name}, and must {must_be}"
    for claim, by_rule in book.charged.items():
        charge = ledger.charge_of(claim)
        assert charge is not None
        assert (charge.blocks, charge.slots, charge.held, charge.reclaiming) == (
            by_rule.blocks,
            by_rule.slots,
            by_rule.held,
            by_rule.stopped is not None,
        ), f"{router.name} charges {claim} on {worker.name} {charge}, and must {by_rule}"
        assert not (by_rule.read and charge.prefill), f"{claim} is read, and charged {charge}"
    grow = {claim for claim, by_rule in book.charged.items() if by_rule.grows and by_rule.stopped is None}
    assert len(worker.growing) == len(grow) and all(claim in worker.growing for claim in grow)
    assert ledger.wanted == book.wanted, f"{worker.name} owes {ledger.wanted} blocks, and must {book}"


def _no_axis_is_over_committed(worker: Known) -> None:
    ledger = worker.ledger
    charges = [charge for claim in ledger.claims() if (charge := ledger.charge_of(claim)) is not None]
    pinned = len({block for charge in charges for block in charge.hits})
    for field, axis in zip(AXES, ledger.axes, strict=True):
        assert axis.own <= axis.capacity, f"{worker.name} is over-committed in {field}: {axis}"
        assert axis.reserved == _sum(charges, field, lambda c: not c.stray and not c.reclaiming), field
        assert axis.reclaiming == _sum(charges, field, lambda c: not c.stray and c.reclaiming), field
        assert axis.stray == _sum(charges, field, lambda c: c.stray), field
        assert axis.returning == _sum(charges, field, lambda c: c.stray and c.reclaiming), field
        assert axis.pinned == (pinned if axis is ledger.blocks else 0), f"{worker.name}: {axis}, not {pinned}"


def _sum(charges: list[Charge], field: str, counts: Callable[[Charge], bool]) -> int:
    return sum(getattr(charge, field) for charge in charges if counts(charge))


def _the_index_agrees(admission: Admission) -> None:
    """Who has room, who will have read what, and who has which blocks, is as the workers' own records say."""
    index, known = admission._index, [w for w in admission.workers.values() if w.known is not None]
    groups = index.groups(None)
    assert sorted(who for group in groups for who in group.members) == [worker.order for worker in known]
    for group in groups:
        members = [worker for worker in known if worker.order in group.members]
        assert all(worker.facts.kind == group.kind for worker in members)
        able = [worker for worker in members if not worker.trouble and worker.ledger.room]
        assert group.rooms.entries == sorted((-worker.ledger.room, worker.order) for worker in able)
        assert group.reads.entries == sorted((worker.read_by, worker.order) for worker in able)
        assert {worker.bit for worker in members} == {m.bit for m in group.holders((1 << 200) - 1)}
    for family, tenant in product(range(FAMILIES), BOUNDED):
        prompt = tuple(salted(block, tenant.salt) for block in range(1000 * family, 1000 * family + 8))
        leading = index.leading(prompt)
        for worker in known:
            if worker.history is None:
                assert leading.of(worker.bit) == worker.ledger.leading(prompt)
            else:  # guessed: scored, and never counted on
                assert worker.ledger.leading(prompt) == 0
    for worker in known:
        if worker.history is not None:
            assert len(worker.history) == len(worker.shelf or ()) <= worker.facts.usable_blocks


def _leases_and_queues_agree(admission: Admission) -> None:
    leases = admission.leases.all()
    kept = [w.reserved for w in admission.workers.values() if w.reserved is not None]
    assert len(admission._reservations) == len(kept)
    heads = {queue.reserves for queue in admission.waiting.queues()}
    for reservation in kept:
        lease = admission.leases.get(reservation.lease_id)
        assert lease is not None and lease.lease_id in admission.waiting, f"{reservation} is for nobody"
        assert lease.wish is not None and lease.wish.tier.priority == reservation.priority, f"{lease} moved"
        assert lease.lease_id in heads, f"{reservation} is kept for one that heads no queue"
    assert admission.leases.opened - admission.leases.closed == len(leases)
    waiting = {lease.lease_id for lease in leases if lease.state is State.WAITING}
    queued = [place.lease_id for queue in admission.waiting.queues() for place in queue]
    assert len(queued) == len(set(queued)) == len(admission.waiting)
    assert waiting == set(queued), "a lease waits without a place, or a place without a lease"
    for lease in leases:
        assert lease.state is not State.CLOSED
        if lease.key is not None:
            assert admission.leases.at(lease.key) is lease


def _charges_and_leases_agree(admission: Admission) -> None:
    """What a lease holds is charged where it says; what no lease holds is being taken back."""
    charged: dict[Claim, tuple[str, Charge]] = {}
    for worker in admission.workers.values():
        for claim in worker.ledger.claims():
            charge = worker.ledger.charge_of(claim)
            assert charge is not None
            assert claim not in charged, f"{claim} is charged on {worker.name} and on {charged[claim][0]}"
            charged[claim] = worker.name, charge
    for lease in admission.leases.all():
        if lease.state in (State.GRANTED, State.RUNNING):
            assert charged.get(lease.claim, ("",))[0] == lease.worker, f"{lease} is charged nowhere"
    for claim, (name, charge) in charged.items():
        if charge.reclaiming:
            continue
        owner = admission.leases.get(claim.lease_id)
        assert owner is not None and owner.claim == claim and owner.worker == name, (
            f"{claim} is charged on {name} for nobody, and nobody takes it back: {owner}"
        )
        assert owner.state in (State.GRANTED, State.RUNNING), f"{claim} is charged on {name}: {owner}"


def _is_being_stopped(worker: Worker, sequence: Sequence, routers: list[Router]) -> bool:
    """Its client has left the stream, its engine is letting go, or its router wants it back."""
    if sequence.verdict is not None or sequence.wire.cut or sequence.wire.caller is None:
        return True
    for router in routers:
        if router.name == sequence.owner:
            charge = router.admission.workers[worker.name].ledger.charge_of(sequence.claim)
            return charge is not None and charge.reclaiming
    return True  # its router is down: nobody can have granted a newer one since


def _it_is_counted_whole(worker: Worker, sequence: Sequence, routers: list[Router]) -> None:
    """While the link between them holds, no claim is larger at its worker than its router counts it."""
    for router in routers:
        feed = worker.feeds.get(router.name)
        if router.name != sequence.owner or feed is None or router.ports.get(worker.name) is not feed.wire:
            continue
        charge = router.admission.workers[worker.name].ledger.charge_of(sequence.claim)
        holding = worker.pool.holding(sequence.claim)
        assert charge is None or holding is None or holding.blocks <= charge.blocks, (
            f"{worker.name} holds {holding} for {sequence.claim}, and {router.name} counts {charge}"
        )
