"""Claims are raised before anybody is admitted; where a pool is too short for that, others give way.

What happens on a worker is noted here and answered at the end of the router's step: so a report in which one
claim ends and another wants to grow comes to a raise, and to nobody's stop.
"""

from typing import Final

from diplex_core.events import RaiseClaim, Refusal, StopClaim, WantedClaim, Why
from diplex_core.fleet import Worker
from diplex_core.growing import Growing
from diplex_core.ledger import Charge, PoolLedger
from diplex_core.placement.place import Placement
from diplex_core.placement.rules import Wish, need_on
from diplex_core.words import Blocks, Claim, EndReason, Seconds

_FEW: Final = 64
"""Of a large fleet so many workers are looked at to see where others may give way to a newcomer."""


class GivingWay:
    """One router's raises and preemptions.

    Args:
        epoch: the upper half of each raise's number: an answer to a former life's is none to this one's.
    """

    def __init__(self, epoch: int, placement: Placement) -> None:
        self._placement = placement
        self._last_raise = epoch << 32
        self._wanting: dict[str, Worker] = {}  # on these claims wait to grow,
        self._noted: dict[str, Worker] = {}  # and on these something has happened since
        self._grown_on: dict[str, Worker] = {}  # these had growing claims when they were last looked at

    def wants(self, worker: Worker, wanted: WantedClaim, now: Seconds) -> None:
        """A claim is near its limit. While a raise is on its way to it, it is not raised again."""
        charge = worker.ledger.charge_of(wanted.claim)
        if charge is None or charge.reclaiming or charge.raising or wanted.claim not in worker.growing:
            return
        worker.growing.wants(wanted.claim, wanted.blocks, now)
        self._wanting[worker.name] = self._noted[worker.name] = worker

    def grows_on(self, worker: Worker) -> None:
        """A claim that may grow has come to a worker."""
        self._grown_on[worker.name] = worker

    def freed(self, worker: Worker) -> None:
        """Something may be free there that was not, or fewer wait."""
        if worker.name in self._wanting:
            self._noted[worker.name] = worker

    def time_passed(self) -> None:
        """Whoever waits to grow may have been patient enough."""
        self._noted.update(self._wanting)

    def answers(self, now: Seconds) -> list[tuple[Worker, list[RaiseClaim | StopClaim]]]:
        """What is to be done on each worker where something happened, which has changed by that."""
        if not self._noted:
            return []
        noted, self._noted = self._noted, {}
        return [(worker, self._grow(worker, now)) for worker in noted.values()]

    def _grow(self, worker: Worker, now: Seconds) -> list[RaiseClaim | StopClaim]:
        """Raise those that wait to grow, in the order of their ranks, as far as the pool goes."""
        ledger, growing = worker.ledger, worker.growing
        orders: list[RaiseClaim | StopClaim] = []
        for claim, want in growing.waiting():
            charge = ledger.charge_of(claim)
            if charge is None or want.blocks <= (charge.said or 0):
                growing.answered(claim)
                continue
            more = want.blocks - charge.blocks
            if more > ledger.blocks.free:
                orders += self._give_way_to(worker, claim, more, now)
                break
            growing.answered(claim)
            self._last_raise += 1
            ledger.grow(claim, max(want.blocks, charge.blocks), self._last_raise)
            orders.append(RaiseClaim(worker.name, claim, charge.blocks, self._last_raise))
        self._count_wanted(worker)
        return orders

    def _count_wanted(self, worker: Worker) -> None:
        """What claims wait to grow by is promised to nobody else."""
        ledger, waiting = worker.ledger, worker.growing.waiting()
        charges = ((claim, ledger.charge_of(claim)) for claim, _ in waiting)
        ledger.wanted = sum(
            worker.growing.wanted_by(claim, charge.blocks) for claim, charge in charges if charge
        )
        if waiting:
            self._wanting[worker.name] = worker
        else:
            self._wanting.pop(worker.name, None)

    def _give_way_to(self, worker: Worker, claim: Claim, more: Blocks, now: Seconds) -> list[StopClaim]:
        """A claim waits for so many blocks: the least of those beside it give way, once it is patient no
        longer, unless enough are on their way back already."""
        ledger, growing = worker.ledger, worker.growing
        short = ledger.blocks.lacks(more)
        if short <= 0:
            return []
        mine, stops = growing.rank(claim), []
        for giver, rank in growing.givers():
            charge = ledger.charge_of(giver)
            if charge is None:
                continue
            if rank.priority >= mine.priority and growing.is_patient(claim, now, _running(ledger, growing)):
                break
            short -= charge.blocks
            stops += _preempt(worker, giver)
            if giver == claim or short <= 0:
                break
        return stops

    def make_way(self, wish: Wish) -> tuple[Worker, list[StopClaim]] | None:
        """Nobody has room for a wish: growing claims of a lower priority give way where fewest have to.
        `None`: nowhere, as that would not help, or enough is on its way back."""
        chosen: tuple[Worker, list[Claim]] | None = None
        looked = 0
        for worker in list(self._grown_on.values()):
            if not len(worker.growing):
                del self._grown_on[worker.name]
                continue
            if worker.trouble:
                continue
            looked += 1
            if looked > _FEW:
                break
            givers = self._givers(wish, worker)
            if givers is None:
                return None
            if givers and (chosen is None or len(givers) < len(chosen[1])):
                chosen = worker, givers
        if chosen is None:
            return None
        worker, givers = chosen
        stops = [stop for claim in givers for stop in _preempt(worker, claim)]
        self._count_wanted(worker)
        return worker, stops

    def _givers(self, wish: Wish, worker: Worker) -> list[Claim] | None:
        """Who would have to give way on a worker for a wish to find room; none: that does not help. `None`:
        nobody, enough is on its way back."""
        rules = self._placement.rules_of(wish.tier)
        if not self._placement.can_ever(wish, worker) or any(rule(wish, worker) for _, rule in rules.own):
            return []
        ledger, need = worker.ledger, need_on(wish, worker)
        blocks = ledger.blocks.lacks(need.blocks + len(need.hits) + ledger.wanted)
        slots = ledger.slots.lacks(need.slots)
        if blocks <= 0 and slots <= 0:
            return None
        givers: list[Claim] = []
        for claim, rank in worker.growing.givers():
            charge = ledger.charge_of(claim)
            if rank.priority >= wish.tier.priority:
                break
            if charge is None:
                continue
            givers.append(claim)
            blocks -= charge.blocks + worker.growing.wanted_by(claim, charge.blocks)
            slots -= charge.slots
            if blocks <= 0 and slots <= 0:
                return givers
        return []


def orders_again(worker: Worker) -> list[StopClaim | RaiseClaim]:
    """What a worker was told of its claims and has not answered: a lost link may have lost it."""
    charges = ((claim, worker.ledger.charge_of(claim)) for claim in worker.ledger.claims())
    return [order for claim, charge in charges if charge and (order := _order(worker, claim, charge))]


def _order(worker: Worker, claim: Claim, charge: Charge) -> StopClaim | RaiseClaim | None:
    if charge.reclaiming and charge.gives_way:
        return StopClaim(worker.name, claim, EndReason.PREEMPTED, _gave_way(worker))
    if charge.reclaiming:
        taken_back = Refusal(Why.NEVER_STARTED, "taken back by the router")
        return StopClaim(worker.name, claim, EndReason.REVOKED, taken_back)
    return RaiseClaim(worker.name, claim, charge.blocks, charge.raising) if charge.raising else None


def _preempt(worker: Worker, claim: Claim) -> list[StopClaim]:
    """Stop a growing claim in favour of others. Its client asks for it again, with what was produced."""
    if not worker.want_back(claim, gives_way=True):
        return []
    return [StopClaim(worker.name, claim, EndReason.PREEMPTED, _gave_way(worker))]


def _gave_way(worker: Worker) -> Refusal:
    return Refusal(Why.GAVE_WAY, f"had to give way to others on {worker.name}", 0.0)


def _running(ledger: PoolLedger, growing: Growing) -> int:
    """Claims that may end by themselves, others' too: they neither wait to grow nor are they taken back."""
    charges = (ledger.charge_of(claim) for claim in ledger.claims())
    mine = sum(1 for charge in charges if charge and not charge.reclaiming) - growing.wanting
    return mine + (ledger.blocks.foreign > 0)
