"""What a router knows: its workers, leases, queues and accounts, and how each of them ends.

Serving and listening (`serving`, `listening`) both change these books, and neither calls the other: what one
does is seen by the other here.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from diplex_core.demand import Demand
from diplex_core.due import Due
from diplex_core.events import (
    AskKey,
    Decision,
    Refusal,
    Refused,
    StopClaim,
    Why,
    WorkerFacts,
)
from diplex_core.fleet import Worker
from diplex_core.giving_way import GivingWay
from diplex_core.lease import ON_SESSION, Lease, Turn
from diplex_core.lengths import Lengths
from diplex_core.past import Ending, Explanation, Outcome, Past
from diplex_core.peers import Peers
from diplex_core.placement.index import Index
from diplex_core.placement.place import Placement
from diplex_core.placement.rules import Wish
from diplex_core.prefixes import Prefixes
from diplex_core.prospects import hopeless
from diplex_core.queueing import LEAST_WAIT, Queueing
from diplex_core.register import Register
from diplex_core.reservations import Reservations
from diplex_core.words import Blocks, Claim, EndReason, Rules, Seconds, Tokens


class Books:
    """One router's books.

    Args:
        rules: models, tiers and tenants; replaced by `RulesChanged`.
        workers: names of the workers that it will be linked to.
        epoch: 32 bits drawn by the caller at its start: the upper half of every lease id.
        now: when it starts.
    """

    def __init__(
        self,
        rules: Rules,
        workers: Iterable[str],
        *,
        epoch: int,
        now: Seconds,
        placement: Placement | None = None,
    ) -> None:
        self.rules = rules
        self.rules_version = 0
        self.epoch = epoch
        self._prefixes = Prefixes()
        self._index = Index(self._prefixes)
        self._peers: defaultdict[WorkerFacts, Peers] = defaultdict(Peers)  # by kind
        self._demand = Demand()
        self.workers = {
            name: Worker(name, order, self._prefixes.shelf(), lost_at=now, demand=self._demand)
            for order, name in enumerate(workers)
        }
        self.ready = not self.workers
        self.leases = Register(epoch)
        self.refused_by_worker = 0
        self.over_capacity = 0
        self.preempted = 0
        self.drift_max: Blocks = 0
        self.outcomes: Counter[tuple[str, str]] = Counter()  # (decision, reason)
        self.past = Past()
        self.lengths = Lengths()
        self.queueing = Queueing(self.lengths)
        self.queueing.quotas.recount(quota_bound(rules), {})
        self.waiting = self.queueing.waiting
        self._placement = placement or Placement()
        self._started = now
        self._silent = set(self.workers)  # since this router's start
        self._unlinked = set(self.workers)  # and not given up yet
        self._due = Due()
        self._reservations = Reservations()
        self._giving_way = GivingWay(epoch, self._placement)
        self._room = False  # something happened that may let a queue's head in,
        self._anew = False  # and it may be anywhere
        self._out: list[Decision] = []

    # Who is asked.

    def _known(self) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.known is not None]

    def _standing(self, wish: Wish, now: Seconds) -> Sequence[Worker]:
        """By whom it is judged whether waiting helps: all, in a large fleet some that stand for them."""
        if len(self.workers) <= self._placement.thorough:
            return self._known()
        standing = self._index.standing(wish.tenant.packages, now)
        return [self.workers[member.name] for member in standing]

    def _hopeless(self, wish: Wish, now: Seconds) -> Refusal | None:
        return hopeless(wish, self._standing(wish, now), self._placement, LEAST_WAIT, now)

    # Ends of a lease.

    def _refuse(
        self, key: AskKey, lease: Lease | None, refusal: Refusal, now: Seconds, wish: Wish | None = None
    ) -> None:
        if lease is not None:
            self._drop(lease, refusal.message, now)
        self.outcomes["refused", refusal.why] += 1
        model = wish.model if wish is not None else ""
        tier = (wish.degraded_from or wish.tier.name) if wish is not None else ""
        self._out.append(Refused(key, refusal, model, tier))

    def _left(self, lease: Lease, reason: str, now: Seconds) -> None:
        """Withdrawn, or its client's session ended."""
        if lease.state in ON_SESSION:
            self._drop(lease, reason, now)
        else:  # its token stream goes on to its end; should it come to nothing, nobody waits here
            self.leases.bind(lease, None)

    def _drop(self, lease: Lease | None, reason: str, now: Seconds) -> None:
        """Close a lease that lives on its session, and take back what it was granted."""
        if lease is None or lease.state not in ON_SESSION:
            return
        self._want_back(lease, EndReason.REVOKED, reason, now)
        if lease.ask is not None:
            if lease.wish is not None and self.past.of(lease.ask.request_id) is None:
                untried = "others came before it"
                self.past.note(
                    Explanation(lease.ask.request_id, now, Outcome.QUEUED, lease.wish, "", untried)
                )
            self.past.ended(lease.ask.request_id, Ending(now, reason))
        self._close(lease, Turn.DROPPED, now)

    def _want_back(self, lease: Lease, reason: EndReason, message: str, now: Seconds) -> None:
        """The lease's present claim, if it is still charged, is to be ended at its worker."""
        worker = self.workers.get(lease.worker)
        if worker is not None and worker.want_back(lease.claim):
            self._giving_way.freed(worker)
            self._out.append(StopClaim(worker.name, lease.claim, reason, Refusal(Why.NEVER_STARTED, message)))

    def _close(self, lease: Lease, turn: Turn, now: Seconds, output: Tokens | None = None) -> bool:
        """Close a lease, if the table lets this turn close it now. `output`: `None` where nobody told."""
        if not self.leases.close(lease, turn):
            return False
        self._step_out(lease)
        ran = turn is Turn.ENDED or lease.first_token is not None
        self.queueing.over(lease, output, now, ran=ran)
        self._due.expect(lease.lease_id, None)
        self._room = True  # it may have been the head that others waited behind
        return True

    def _free(self, worker: Worker, claim: Claim, now: Seconds) -> None:
        """The worker holds the claim no longer."""
        worker.left(claim)
        if worker.ledger.release(claim) is not None:
            tenant = self.queueing.quotas.freed(claim)
            if tenant:
                self.waiting.let_in(tenant)
            self._opens(worker)

    # What opens.

    def _opens(self, worker: Worker) -> None:
        """Something on a worker may let a queue's head in, or a claim grow."""
        self._room = True
        self._giving_way.freed(worker)
        self._index.opens(worker)

    def _step_out(self, lease: Lease) -> None:
        """It gives up its place in its queue, and the worker that was kept for it there."""
        self._lift(lease.lease_id)
        self.waiting.leave(lease.lease_id)

    def _lift(self, lease_id: int) -> None:
        """A request needs its reservation no longer."""
        if len(self._reservations):
            self._reservations.lift(lease_id)
            self._open_loosened()

    def _open_loosened(self) -> None:
        for worker in self._reservations.loosened():
            self._opens(worker)

    # When to come back.

    def _retry_after(
        self, wish: Wish, now: Seconds, least: Seconds = LEAST_WAIT, *, book: bool = True
    ) -> Seconds:
        return self.queueing.retry_after(wish, now, self._predicted_rate, least=least, book=book)

    def _predicted_rate(self, wish: Wish) -> float | None:
        """Tokens a second that the fleet serves of such requests, going by how long one would take now."""
        rate, tokens = 0.0, self.queueing.work_of(wish).tokens
        for group in self._index.groups(wish.tenant.packages):
            worker = self.workers[group.largest.name]
            if self._placement.can_ever(wish, worker):
                rate += len(group.members) * (worker.serves(wish, tokens) or 0.0)
        share = self.queueing.shares.of(wish.tier.name, wish.now)
        return rate * (share or 1.0) or None


def quota_bound(rules: Rules) -> frozenset[str]:
    """The tenants that may hold so many blocks at a time, and no more."""
    return frozenset(t.name for t in rules.tenants if t.max_concurrent_blocks is not None)
