"""Events and the time come in, decisions go out. Nothing else in a router decides anything.

`Admission` owns the leases, the queues and the ledger of every pool. The router's shell feeds it what arrives
on its streams and carries out what it answers; the simulator and the property tests drive the same object.
It calls no clock: `now` is seconds on any clock that never goes back.
"""

from collections.abc import Mapping
from typing import Final, assert_never

from diplex_core.appointments import Appointment
from diplex_core.books import quota_bound
from diplex_core.events import (
    Again,
    Ask,
    Asked,
    AskKey,
    Decision,
    Event,
    LinkLost,
    RaiseClaim,
    Refusal,
    Reported,
    Revoked,
    RulesChanged,
    SessionEnded,
    StopClaim,
    Ticked,
    Why,
    Withdrawn,
)
from diplex_core.fleet import GIVEN_UP_AFTER
from diplex_core.giving_way import orders_again
from diplex_core.lease import Lease, State, Turn
from diplex_core.listening import Listening
from diplex_core.past import Explanation, Outcome
from diplex_core.placement.place import Choice
from diplex_core.placement.rules import Wish, need_on
from diplex_core.reservations import kept_for
from diplex_core.serving import NEVER_STARTED_AFTER, Serving, runs_out
from diplex_core.waits import wait_of, words_of
from diplex_core.wishes import asks_the_same, wish_again, wish_of
from diplex_core.words import Blocks, Claim, EndReason, Seconds, Tier

REBUILD_WITHIN: Seconds = 3.0
"""After a start nothing is admitted before every worker has reported, or this has passed."""
MOST_REFUSALS = 20
_AGAIN: Final = 8
"""So many times at most the queues are looked at after one event."""
_NOT_READY: Final = "the router admits nothing before every worker has reported, or was given up"


class Admission(Serving, Listening):
    """One router's decisions: the one object that its shell talks to. Its arguments are those of `Books`."""

    # What the shell calls.

    def step(self, event: Event, now: Seconds) -> list[Decision]:
        """Take one event and answer everything that follows from it, in order."""
        out: list[Decision] = []
        self._out = out
        match event:
            case Reported():  # the most frequent first
                self._reported(self.workers[event.worker], event.report, now)
            case Asked():
                self._asked(event.key, event.ask, now)
            case Withdrawn():
                if (lease := self.leases.at(event.key)) is not None:
                    self._left(lease, "the client withdrew it", now)
            case SessionEnded():
                for lease in self.leases.of_session(event.session):
                    self._left(lease, "the client's session ended", now)
            case LinkLost():
                self._link_lost(self.workers[event.worker], event.problem, now)
            case RulesChanged():
                self.rules = event.rules
                self.rules_version += 1
                self._index.rules_changed()
                self._rules_changed()
                self._room = self._anew = True
            case Ticked():
                self._ticked(now)
                self._giving_way.time_passed()
                self._room = self._anew = True
            case _:
                assert_never(event)
        for worker, orders in self._giving_way.answers(now):  # before anybody is admitted
            out += orders
            for order in orders:
                if isinstance(order, RaiseClaim):
                    self.queueing.quotas.resized(order.claim, order.blocks)
            self._index.touched(worker)
        for _ in range(_AGAIN):  # whoever is served may leave a worker that was kept for it
            if not self._room:
                break
            self._serve_queues(now)
        return out

    def explain(self, ask: Ask, now: Seconds) -> Explanation:
        """What would happen to this ask now, with every rule's word on every worker. Changes nothing."""
        wish = wish_of(ask, self.rules)
        if isinstance(wish, Refusal):
            return Explanation(ask.request_id, now, Outcome.REFUSED, reason=wish.message)
        wish = wish.at(now - ask.age, now, self._expected(wish), self.queueing.likely(wish))
        pools = self._known()
        choice = self._placement.place(wish, pools)
        words = {pool.name: self._placement.explain(wish, pool) for pool in pools}
        refusal = (
            self._hopeless(wish, now)
            if choice.picked is None
            else self._turned_away(wish, choice, book=False)
        )
        refusal = refusal or self._limited(wish, now)
        if refusal is not None:
            return Explanation(
                ask.request_id, now, Outcome.REFUSED, wish, reason=refusal.message, words=words
            )
        queue = self.waiting.queue(wish.queue)
        ahead, also = len(queue) if queue is not None else 0, self._holds_back(wish, choice)
        if choice.picked is not None and not also and not self._comes_behind(wish, now):
            return Explanation(ask.request_id, now, Outcome.GRANTED, wish, choice.picked.name, words=words)
        wait = wait_of(wish, ahead, ahead + 1, pools, words, also)
        reason = words_of(wait, wish, words)
        return Explanation(ask.request_id, now, Outcome.QUEUED, wish, "", reason, words, wait)

    def explain_request(self, request_id: str, now: Seconds) -> Explanation | None:
        """Why a request waits now, or what was last decided on it and how it ended; `None`: forgotten."""
        lease = self.leases.named(request_id)
        if lease is None or lease.state is not State.WAITING or lease.wish is None:
            return self.past.of(request_id)
        wish = self._seen(lease, lease.wish, now)
        pools = self._known()
        words = {pool.name: self._placement.explain(wish, pool) for pool in pools}
        ahead, queued = self.waiting.standing(lease.lease_id)
        also = [] if self.ready else [_NOT_READY]
        if (kept := self._reservations.of(lease.lease_id)) is not None:
            also.append(kept_for(kept, now))
        if self.waiting.is_aside(lease.lease_id):
            also.append(self.queueing.quotas.words(wish.tenant))
        wait = wait_of(wish, ahead, queued, pools, words, "; ".join(also))
        reason = words_of(wait, wish, words)
        return Explanation(request_id, now, Outcome.QUEUED, wish, "", reason, words, wait)

    def _limited(self, wish: Wish, now: Seconds) -> Refusal | None:
        """Why its tenant's quotas, or its queue's bounds, would not take in a new request."""
        if (refusal := self._quota_too_small(wish, now)) is not None:
            return refusal
        return self.queueing.would_turn_away(wish, self.rules, self._block_tokens(wish), now)

    def _holds_back(self, wish: Wish, choice: Choice) -> str:
        """Why a request would wait that has room; "": for nothing that this knows."""
        if not self.ready:
            return _NOT_READY
        if choice.picked is None or not self.rules.enforce_limits:
            return ""
        quotas, blocks = self.queueing.quotas, need_on(wish, choice.picked).blocks
        return "" if quotas.room(wish.tenant, blocks) else quotas.words(wish.tenant)

    def _comes_behind(self, wish: Wish, now: Seconds) -> bool:
        """Whether a new request would wait behind others though there is room: those that are smaller than
        the head of their queue may pass it."""
        queue = self.waiting.queue(wish.queue)
        head = queue.head(now) if queue is not None else None
        return head is not None and self.queueing.work_of(wish).tokens >= head.tokens

    def weights_of(self, tier: Tier) -> Mapping[str, float]:
        """What each scorer counts for a request of this tier."""
        return self._placement.weights_of(tier)

    @property
    def rule_failures(self) -> Mapping[tuple[str, str], int]:
        """How often each placement rule of another package failed, by kind and name."""
        return self._placement.book.failures.counts

    def resend_orders(self, worker: str) -> list[StopClaim | RaiseClaim]:
        """The orders that a new link has to repeat: the old one may have lost them."""
        return orders_again(self.workers[worker])

    # Asks.

    def _asked(self, key: AskKey, ask: Ask, now: Seconds) -> None:
        lease = self.leases.get(ask.again.claim.lease_id) if ask.again else None
        if lease is not None and lease.key is not None and key.session < lease.key.session:
            return  # read late: its client has left that session since, and waits on a newer one
        rules = self.rules
        if lease is not None and lease.ask and lease.wish and lease.rules and asks_the_same(ask, lease.ask):
            rules, wish = lease.rules, wish_again(ask, lease.wish)
        else:
            wish = wish_of(ask, rules)
        if isinstance(wish, Refusal):
            self._refuse(key, lease, wish, now)
            return
        if lease is None:
            self._demand.asked(wish, self.queueing.work_of(wish).tokens, now)
            back = self._turned_away_at_once(wish, now)
            if isinstance(back, Refusal):
                self.past.note(Explanation(ask.request_id, now, Outcome.REFUSED, wish, "", back.message))
                self._refuse(key, None, back, now, wish)
                return
            lease = self.leases.open(now - ask.age)
            self.queueing.taken_in(lease.lease_id, wish, rules, back, now)
        elif ask.again is not None and not self._taken_up(lease, ask.again, now):
            self._refuse(key, lease, _refused_too_often(lease), now, wish)
            return
        lease.ask, lease.wish, lease.rules = ask, wish, rules
        lease.deadline = now + ask.timeout if ask.timeout is not None else None
        self.leases.bind(lease, key)
        self._due.expect(lease.lease_id, runs_out(lease))
        self._line_up(lease, wish, now)

    def _turned_away_at_once(self, wish: Wish, now: Seconds) -> Refusal | Appointment | None:
        """Why a new request is not taken in; else its appointment, where it had one."""
        if (refusal := self._quota_too_small(wish, now)) is not None:
            return refusal
        return self.queueing.turns_away(wish, self.rules, self._block_tokens(wish), now, self._predicted_rate)

    def _taken_up(self, lease: Lease, again: Again, now: Seconds) -> bool:
        """Bring a lease back to waiting; False where it was refused too often."""
        self._step_out(lease)
        # Also a claim that is newer than the one it names: its grant was lost on the way to the client.
        self._want_back(lease, EndReason.REVOKED, "the client asked for its request again", now)
        lease.refusals += again.reason is EndReason.REFUSED
        lease.turn(Turn.AGAIN)
        return lease.refusals <= MOST_REFUSALS

    # What time alone brings about, and new rules.

    def _ticked(self, now: Seconds) -> None:
        if not self.ready and now - self._started >= REBUILD_WITHIN:
            self.ready = True
        if self._unlinked:
            for worker in self.workers.values():
                if worker.name in self._unlinked and now - worker.lost_at >= GIVEN_UP_AFTER:
                    self._give_up(worker, now)
        for lease_id in self._due.by(now):
            lease = self.leases.get(lease_id)
            if lease is not None and lease.state is State.GRANTED:
                self._never_started(lease, now)
            elif lease is not None and lease.state is State.WAITING:
                self._overdue(lease, now)
            elif lease is not None and lease.state is State.BETWEEN:
                self._drop(lease, "it was not asked for again", now)

    def _never_started(self, lease: Lease, now: Seconds) -> None:
        refusal = Refusal(
            Why.NEVER_STARTED,
            f"{lease.worker} saw no start within {NEVER_STARTED_AFTER:.0f} s of the grant",
            0.0,
        )
        key, claim = lease.key, lease.claim
        self._drop(lease, refusal.message, now)
        if key is not None:
            self._out.append(Revoked(key, claim, refusal))

    def _overdue(self, lease: Lease, now: Seconds) -> None:
        if lease.key is None or lease.wish is None:
            return
        waited, most = now - lease.arrived, lease.wish.tier.max_queue
        if lease.deadline is not None and now >= lease.deadline:
            refusal = Refusal(
                Why.DEADLINE_PASSED,
                f"waited {waited:.1f} s for room, to the end of its deadline",
                self._retry_after(self._seen(lease, lease.wish, now), now),
            )
        elif most is not None and waited >= most and self.ready:
            refusal = Refusal(
                Why.QUEUED_TOO_LONG,
                f"waited {waited:.1f} s for room; tier {lease.wish.tier.name} waits {most:g} s at most",
                self._retry_after(self._seen(lease, lease.wish, now), now),
            )
        else:
            self._due.expect(lease.lease_id, now)  # nobody waits too long while nothing is admitted
            return
        self.past.note(self._of_the_past(lease, refusal, now))
        self._refuse(lease.key, lease, refusal, now, lease.wish)

    def _of_the_past(self, lease: Lease, refusal: Refusal, now: Seconds) -> Explanation:
        """The end of a wait, with what the workers' rules said when they were last asked."""
        request_id = lease.ask.request_id if lease.ask is not None else ""
        waited = self.past.of(request_id)
        words = waited.words if waited is not None else {}
        return Explanation(request_id, now, Outcome.REFUSED, lease.wish, "", refusal.message, words)

    def _rules_changed(self) -> None:
        """Other tenants may have quotas now."""
        bounded = quota_bound(self.rules)
        held: dict[Claim, tuple[str, Blocks]] = {}
        for lease in self.leases.all() if bounded else ():
            worker = self.workers.get(lease.worker)
            charge = worker.ledger.charge_of(lease.claim) if worker is not None else None
            if charge is not None:
                held[lease.claim] = lease.tenant, charge.blocks
        self.queueing.quotas.recount(bounded, held)
        for queue in self.waiting.queues():
            for tenant_name in list(queue.lines):
                self.waiting.let_in(tenant_name)


def _refused_too_often(lease: Lease) -> Refusal:
    return Refusal(
        Why.REFUSED_TOO_OFTEN,
        f"workers refused the request {lease.refusals} times; the last was {lease.worker}",
        1.0,
    )
