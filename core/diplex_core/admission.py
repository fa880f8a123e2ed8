"""Events and the time come in, decisions go out. Nothing else in a router decides anything.

`Admission` owns the leases, the queues and the ledger of every pool. The router's shell feeds it what arrives
on its streams and carries out what it answers; the simulator and the property tests drive the same object.
It calls no clock: `now` is seconds on any clock that never goes back.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, auto
from itertools import chain, islice
from typing import Final, assert_never

from diplex_core.appointments import Appointment
from diplex_core.demand import Demand
from diplex_core.due import Due
from diplex_core.events import (
    Again,
    Ask,
    Asked,
    AskKey,
    Decision,
    EndedClaim,
    Event,
    Granted,
    HeldClaim,
    LinkLost,
    Queued,
    RaiseClaim,
    Redial,
    Refusal,
    Refused,
    Report,
    Reported,
    Revoked,
    RulesChanged,
    SessionEnded,
    StopClaim,
    Ticked,
    Why,
    Withdrawn,
    WorkerFacts,
)
from diplex_core.fleet import GIVEN_UP_AFTER, Worker
from diplex_core.giving_way import GivingWay, orders_again
from diplex_core.growing import PATIENCE, Growing
from diplex_core.guests import Guest, Guests
from diplex_core.lateness import late_by, lowered
from diplex_core.lease import ON_SESSION, Lease, State, Turn
from diplex_core.lengths import Lengths
from diplex_core.lessons import Lessons
from diplex_core.model.forecast import forecast_of
from diplex_core.outcome import outcome_of
from diplex_core.past import Ending, Explanation, Outcome, Past
from diplex_core.peers import Peers
from diplex_core.placement.index import Index, Member
from diplex_core.placement.place import Choice, Placement
from diplex_core.placement.rules import Need, Wish, need_on, whole
from diplex_core.placement.search import allowed_kinds, kinds_for, search
from diplex_core.prefixes import Prefixes
from diplex_core.prospects import hopeless
from diplex_core.queueing import LEAST_WAIT, Queueing
from diplex_core.register import Register
from diplex_core.reservations import Reservations, kept_for
from diplex_core.waiting import Place, Queue, QueueKey
from diplex_core.waits import wait_of, words_of
from diplex_core.wishes import asks_the_same, wish_again, wish_of
from diplex_core.words import Blocks, Claim, EndReason, Rules, Seconds, Tier, Tokens, WhenLate

START_WITHIN: Seconds = 5.0
"""A grant is void if the worker does not see its start within this (design §5.8)."""
NEVER_STARTED_AFTER: Seconds = START_WITHIN + 1.0
REBUILD_WITHIN: Seconds = 3.0
"""After a start nothing is admitted before every worker has reported, or this has passed."""
MOST_REFUSALS = 20
BETWEEN_AT_MOST: Seconds = 30.0
"""A request that gave way and is not asked for again within this is taken to be given up."""

_GAVE_WAY = frozenset({EndReason.REFUSED, EndReason.PREEMPTED})
_WHOLE = frozenset({EndReason.STOP, EndReason.LENGTH})
BEHIND: Final = 16
"""So many of those behind a queue's head are looked at, to see whether they may pass it."""
_AGAIN: Final = 8
"""So many times at most the queues are looked at after one event."""
_IN_VAIN: Final = 2
_NOT_READY: Final = "the router admits nothing before every worker has reported, or was given up"
_FEW: Final = 16
"""Of a large fleet so many workers of each kind are looked at for one to be kept for a request."""


class Fate(Enum):
    """What became of a request that was to be served."""

    DONE = auto()  # granted, refused, or in another queue
    WAITS = auto()  # nobody has room for it
    YIELDS = auto()  # it waits, as its room is kept for those who were told to come back
    ASIDE = auto()  # it waits, and its tenant's line is passed over


_ANOTHER_IS_HEAD: Final = frozenset({Fate.DONE, Fate.ASIDE})


class Admission:
    """One router's decisions.

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
        self.queueing.quotas.recount(_bounded(rules), {})
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

    def weights_of(self, tier: Tier) -> Mapping[str, float]:
        """What each scorer counts for a request of this tier."""
        return self._placement.weights_of(tier)

    @property
    def rule_failures(self) -> Mapping[tuple[str, str], int]:
        """How often each placement rule of another package failed, by kind and name."""
        return self._placement.book.failures.counts

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
        self._due.expect(lease.lease_id, _runs_out(lease))
        self._line_up(lease, wish, now)

    def _turned_away_at_once(self, wish: Wish, now: Seconds) -> Refusal | Appointment | None:
        """Why a new request is not taken in; else its appointment, where it had one."""
        if (refusal := self._quota_too_small(wish, now)) is not None:
            return refusal
        return self.queueing.turns_away(wish, self.rules, self._block_tokens(wish), now, self._predicted_rate)

    def _quota_too_small(self, wish: Wish, now: Seconds) -> Refusal | None:
        most = wish.tenant.max_concurrent_blocks if self.rules.enforce_limits else None
        if most is None:
            return None
        pools = [pool for pool in self._standing(wish, now) if self._placement.can_ever(wish, pool)]
        least = min((whole(wish, pool.facts) for pool in pools), default=0)
        return _quota_too_small(wish, least, most) if least > most else None

    def _line_up(self, lease: Lease, wish: Wish, now: Seconds) -> None:
        """Serve a request at once, if it may be; else it waits, and its client hears how many come before."""
        key, fate = wish.queue, Fate.WAITS
        if self.waiting.queue(key) is None and self.ready:
            fate = self._serve(lease, now)
        if fate is Fate.DONE:
            return
        if lease.key is None or lease.lease_id in self.waiting:
            return  # it has come to wait in another tier
        position = self.queueing.enter(lease, wish, self._block_tokens(wish), now)
        if fate is Fate.ASIDE:
            self.waiting.set_aside(lease.lease_id)
        elif self.ready and position <= BEHIND and self._passes(lease, key, now):
            return
        self._out.append(Queued(lease.key, position))

    def _taken_up(self, lease: Lease, again: Again, now: Seconds) -> bool:
        """Bring a lease back to waiting; False where it was refused too often."""
        self._step_out(lease)
        # Also a claim that is newer than the one it names: its grant was lost on the way to the client.
        self._want_back(lease, EndReason.REVOKED, "the client asked for its request again", now)
        lease.refusals += again.reason is EndReason.REFUSED
        lease.turn(Turn.AGAIN)
        return lease.refusals <= MOST_REFUSALS

    # Placing what waits.

    def _serve_queues(self, now: Seconds) -> None:
        """Place heads of queues until each queue's head must wait."""
        self._room, anew, self._anew = False, self._anew, False
        if not self.ready:
            self._anew = True  # when it is
            return
        if not self.waiting:
            return
        owed = frozenset(self.queueing.owed(self.rules.tiers, now))
        for queue in self.waiting.queues(owed):
            self._serve_queue(queue, queue.key.tier in owed, anew, now)

    def _serve_queue(self, queue: Queue, owed: bool, anew: bool, now: Seconds) -> None:
        """Place heads until one finds no room; a worker is kept for that one, and those behind may pass."""
        while (head := queue.head(now)) is not None:
            # It may have been tried before when it was not the head.
            anew_or_first = anew or queue.reserves != head.lease_id or head.lease_id not in queue.tried
            self._keep_for(queue, head, now)
            if self._try(queue, head, anew, now) in _ANOTHER_IS_HEAD:
                continue
            if anew_or_first or self._reservations.of(head.lease_id) is not None:
                self._reserve(head, owed, now)
            self._backfill(queue, head, anew, now)
            return

    def _backfill(self, queue: Queue, head: Place, anew: bool, now: Seconds) -> None:
        """Let those behind a head pass that find room and put nobody off. Where one finds none, one that asks
        for no less fares no better; after some in vain the others wait for something to happen."""
        least, vain = head.tokens, 0
        smaller = [place for place in queue.first(BEHIND + 1, now)[1:] if place.tokens < least]
        if smaller:
            least = min(least, self._most_room(head) + 1)
        for place in smaller:
            if place.tokens < least and self._try(queue, place, anew, now) is not Fate.DONE:
                least, vain = place.tokens, vain + 1
                if vain == _IN_VAIN:
                    return

    def _passes(self, lease: Lease, key: QueueKey, now: Seconds) -> bool:
        """Whether one that has just come to wait is served at once: as the head, or before that if smaller.
        For a head that is not, a worker is kept."""
        queue, mine = self.waiting.queue(key), self.waiting.place_of(lease.lease_id)
        head = queue.head(now) if queue is not None else None
        if queue is None or head is None:
            return False
        if head is not mine:
            if queue.reserves != head.lease_id:  # it is the head only since
                self._keep_for(queue, head, now)
                self._reserve(head, False, now)
            smaller = mine.tokens < head.tokens and mine.tokens <= self._most_room(head)
            return smaller and self._serve(lease, now) is Fate.DONE
        if len(queue) > 1 and self._serve(lease, now) is Fate.DONE:
            return True  # alone, it was tried before it came to wait
        self._keep_for(queue, head, now)
        self._reserve(head, False, now)
        return False

    def _try(self, queue: Queue, place: Place, anew: bool, now: Seconds) -> "Fate":
        """Try to serve one of those that wait: where something opened since it was tried in vain."""
        opened = self._index.opened
        known = None if anew else queue.tried.get(place.lease_id)
        if known is not None and (known == opened or not self._index.room_since(known)):
            queue.tried[place.lease_id] = opened
            return Fate.WAITS  # one that is late by now is found out on the next tick
        fate = self._serve(self.leases.get(place.lease_id), now, known)
        if fate is Fate.WAITS:
            queue.tried[place.lease_id] = opened
        return fate

    def _keep_for(self, queue: Queue, head: Place, now: Seconds) -> None:
        """No worker is kept any longer for one that was the queue's head before."""
        if queue.reserves != head.lease_id:
            if queue.reserves:
                self._lift(queue.reserves)
            queue.reserves, queue.since = head.lease_id, now

    def _reserve(self, head: Place, owed: bool, now: Seconds) -> None:
        lease = self.leases.get(head.lease_id)
        if lease is not None and lease.wish is not None:
            wish = self._seen(lease, lease.wish, now)
            self._reservations.hold(wish, self._some(wish), owed=owed)
            self._open_loosened()

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

    def _some(self, wish: Wish) -> Iterable[Worker]:
        """Workers among which one is kept for a request: in a large fleet the roomiest of each kind."""
        small = len(self.workers) <= self._placement.thorough
        for kind, _ in kinds_for(self._placement, wish, self._index):
            group = kind.group
            members: Iterable[Member] = group.members.values()
            if not small:
                roomy = (group.members[who] for _, who in group.rooms.entries)
                members = {member.order: member for member in islice(chain(roomy, members), _FEW)}.values()
            for member in members:
                yield self.workers[member.name]

    def _most_room(self, head: Place) -> Tokens:
        """More than this, in tokens, nobody has room for of the kinds that may take those who wait behind a
        head; in a large fleet only a bound of that."""
        lease = self.leases.get(head.lease_id)
        if lease is None or lease.wish is None:
            return 0
        most, small = 0, len(self.workers) <= self._placement.thorough
        for kind in allowed_kinds(self._placement, lease.wish, self._index):
            group, size = kind.group, kind.facts.block_tokens
            if not small and group.rooms.entries:
                most = max(most, group.most_blocks * size)
            elif small:
                for _, who in group.rooms.entries:
                    most = max(most, group.members[who].ledger.open_blocks * size)
        return most

    def _seen(self, lease: Lease, wish: Wish, now: Seconds) -> Wish:
        """A lease's wish as it is now."""
        likely = self.queueing.likely(wish)
        headed = self.waiting.headed(lease.lease_id, now)
        owed = headed is not None and self.queueing.shares.owes(wish.tier, now)
        return wish.at(lease.arrived, now, self._expected(wish), likely, lease.lease_id, headed or 0.0, owed)

    def _serve(self, lease: Lease | None, now: Seconds, tried_at: int | None = None) -> "Fate":
        """Grant or refuse one waiting lease, or say why it waits.

        Args:
            tried_at: it found no room when so many times something had opened; `None`: it is to be tried
                everywhere.
        """
        if lease is None or lease.wish is None or lease.key is None or lease.ask is None:
            raise LookupError(f"{lease} waits without an ask")
        wish = self._seen(lease, lease.wish, now)
        choice = self._place(wish, tried_at)
        affordable = self._affordable(wish, choice, now)
        if isinstance(affordable, Refusal):
            self._remember(lease, wish, choice, now, affordable)
            self._refuse(lease.key, lease, affordable, now, wish)
            return Fate.DONE
        choice = affordable
        refusal = None if choice.picked is not None or choice.able else self._hopeless(wish, now)
        refusal = refusal or self._turned_away(wish, choice)
        if refusal is not None:
            self._remember(lease, wish, choice, now, refusal)
            self._refuse(lease.key, lease, refusal, now, wish)
            return Fate.DONE
        if (lower := self._given_way(wish, choice, lease.rules or self.rules)) is not None:
            return self._degrade(lease, lower, now)
        if choice.picked is None:
            if tried_at is None:
                self._remember(lease, wish, choice, now)
            if wish.ttft_target is not None or wish.waited >= PATIENCE:
                self._make_way(wish)
            return Fate.WAITS
        need = need_on(wish, choice.picked)
        if self.rules.enforce_limits and not self.queueing.quotas.room(wish.tenant, need.blocks):
            return self._put_aside(lease, wish, choice, now)
        if self.queueing.takes_what_is_kept(wish, choice.picked, need, now):
            return Fate.YIELDS
        self._remember(lease, wish, choice, now)
        self._grant(lease, wish, self.workers[choice.picked.name], need, now)
        return Fate.DONE

    def _put_aside(self, lease: Lease, wish: Wish, choice: Choice, now: Seconds) -> "Fate":
        """Its tenant holds all that it may: its line is passed over until it holds less."""
        if lease.lease_id in self.waiting:
            self.waiting.set_aside(lease.lease_id)
        self._remember(lease, wish, choice._replace(picked=None), now)
        return Fate.ASIDE

    def _affordable(self, wish: Wish, choice: Choice, now: Seconds) -> Choice | Refusal:
        """The choice, but where the worker that was picked takes more blocks than the tenant may ever hold:
        then one among those that do not. A refusal: they all do."""
        most = wish.tenant.max_concurrent_blocks if self.rules.enforce_limits else None
        if most is None or choice.picked is None:
            return choice
        needed = need_on(wish, choice.picked).blocks
        if needed <= most:
            return choice
        pools = [pool for pool in self._standing(wish, now) if need_on(wish, pool).blocks <= most]
        if not any(self._placement.can_ever(wish, pool) for pool in pools):
            return _quota_too_small(wish, needed, most)
        return self._placement.place(wish, pools)

    def _make_way(self, wish: Wish) -> None:
        """Nobody has room: growing claims of a lower priority may give way."""
        made = self._giving_way.make_way(wish)
        if made is not None:
            worker, stops = made
            self._out += stops
            self._index.touched(worker)

    def _expected(self, wish: Wish) -> Tokens | None:
        """Output tokens that such requests mostly come to, beyond what was produced; `None`: it holds in
        full, as long as nobody knows."""
        if not wish.may_grow:
            return None
        tier = wish.tier
        length = self.lengths.quantile(
            wish.tenant.name, tier.name, wish.model, tier.expected_quantile, beyond=wish.produced
        )
        return None if length is None else max(1, length - wish.produced)

    def _place(self, wish: Wish, tried_at: int | None = None) -> Choice:
        """A small fleet is asked whole; of a larger one, after a try in vain, what has opened since."""
        placement, index = self._placement, self._index
        if len(self.workers) <= placement.everyone:
            return placement.place(wish, self._known())
        return search(placement, wish, index, tried_at)

    def _standing(self, wish: Wish, now: Seconds) -> Sequence[Worker]:
        """By whom it is judged whether waiting helps: all, in a large fleet some that stand for them."""
        if len(self.workers) <= self._placement.thorough:
            return self._known()
        standing = self._index.standing(wish.tenant.packages, now)
        return [self.workers[member.name] for member in standing]

    def _turned_away(self, wish: Wish, choice: Choice, *, book: bool = True) -> Refusal | None:
        """The refusal of a wish that its tier rejects rather than serve late; `None`: it does not.

        Args:
            book: it is told to come back, and is waited for.
        """
        late = None
        if wish.tier.when_late is WhenLate.REJECT:
            late = late_by(wish, choice, self.queueing.before(wish, wish.now))
        if late is None or wish.ttft_target is None or wish.produced:
            return None
        target = wish.ttft_target
        message = (
            f"the first token would come {late * 1000:.0f} ms after the {target * 1000:.0f} ms that tier "
            f"{wish.tier.name} promises for {wish.prompt} prompt tokens"
        )
        least = LEAST_WAIT if choice.picked is None else late
        return Refusal(Why.TOO_LATE, message, self._retry_after(wish, wish.now, least, book=book))

    def _given_way(self, wish: Wish, choice: Choice, rules: Rules) -> Wish | None:
        """The wish in a lower tier, where it is late and its tier says so; `None`: it stays as it is."""
        if wish.tier.when_late is not WhenLate.DEGRADE or late_by(wish, choice) is None:
            return None
        return lowered(wish, rules, self._standing(wish, wish.now), self._placement)

    def _degrade(self, lease: Lease, lower: Wish, now: Seconds) -> "Fate":
        """Move a waiting lease to a lower tier's queue; it keeps its arrival, and may be served at once."""
        self.outcomes["degraded", lower.tier.name] += 1
        lease.wish = lower
        self._due.expect(lease.lease_id, _runs_out(lease))
        self._step_out(lease)
        self._line_up(lease, lower, now)
        return Fate.DONE  # whatever became of it: it is no longer the head of its old queue

    def _remember(
        self, lease: Lease, wish: Wish, choice: Choice, now: Seconds, refusal: Refusal | None = None
    ) -> None:
        picked = choice.picked.name if choice.picked is not None else ""
        outcome, reason = _outcome(picked, refusal)
        request_id = lease.ask.request_id if lease.ask is not None else ""
        self.past.note(Explanation(request_id, now, outcome, wish, picked, reason, choice.words))

    def _grant(self, lease: Lease, wish: Wish, worker: Worker, need: Need, now: Seconds) -> None:
        if lease.key is None or lease.ask is None:
            raise LookupError(f"lease {lease.lease_id:016x} is granted without an ask")
        ttft, tpot = worker.ttft(wish), worker.tpot(wish)
        lease.attempt += 1
        worker.receive(lease.claim, wish, need)
        self._index.touched(worker)
        if need.grows:
            self._giving_way.grows_on(worker)
        lease.worker = worker.name
        lease.queued = now - lease.arrived
        if lease.predicted_ttft is None:
            lease.predicted_ttft = ttft
        self._due.expect(lease.lease_id, now + NEVER_STARTED_AFTER)
        lease.turn(Turn.GRANT)
        self.queueing.granted(lease.claim, wish, need, now)
        self._demand.granted(wish, worker.facts.pattern, ttft)
        if len(self._reservations):
            self._reservations.lift(lease.lease_id)
            self._reservations.look_again(worker, now)
            self._open_loosened()
        if need.hits:  # pinned by now, they cost others nothing that hit them too
            self._opens(worker)
        worker.requests += 1
        worker.requests_by_tier[wish.tier.name] += 1
        self.outcomes["granted", ""] += 1
        produced = lease.ask.again.produced_tokens if lease.ask.again else 0
        self._out.append(
            Granted(
                key=lease.key,
                claim=lease.claim,
                worker=worker.facts,
                request_id=lease.ask.request_id,
                blocks=need.blocks,
                slots=need.slots,
                max_tokens=need.max_tokens + produced,
                tier=wish.tier.name,
                tenant=wish.tenant.name,
                priority=wish.tier.priority,
                choices=wish.choices,
                start_by=now + worker.uptime_offset + START_WITHIN,
                queued=lease.queued,
                cached=len(need.hits),
                predicted_ttft=ttft,
                predicted_tpot=tpot,
                degraded_from=wish.degraded_from,
                grows=need.grows,
                salt=wish.tenant.salt,
            )
        )

    def _hopeless(self, wish: Wish, now: Seconds) -> Refusal | None:
        return hopeless(wish, self._standing(wish, now), self._placement, LEAST_WAIT, now)

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

    def _block_tokens(self, wish: Wish) -> Tokens:
        """Tokens of a KV block, by the first kind of worker that the tenant may use."""
        if wish.tier.max_queue_blocks is None:
            return 1
        kinds = self._index.groups(wish.tenant.packages)
        return kinds[0].kind.block_tokens if kinds else 1

    def _rules_changed(self) -> None:
        """Other tenants may have quotas now."""
        bounded = _bounded(self.rules)
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

    def _known(self) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.known is not None]

    # Ends of a lease that come from the client, or from time.

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

    def _opens(self, worker: Worker) -> None:
        """Something on a worker may let a queue's head in, or a claim grow."""
        self._room = True
        self._giving_way.freed(worker)
        self._index.opens(worker)

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

    # What workers say.

    def _reported(self, worker: Worker, report: Report, now: Seconds) -> None:
        if report.number != worker.last_number + 1 and report.number != 1:
            self._out.append(
                Redial(worker.name, f"report {worker.last_number + 1} is missing, {report.number} came")
            )
            return
        if report.facts is not None:
            self._introduced(worker, report.facts, now)
        if worker.known is None:
            self._out.append(Redial(worker.name, "the first report did not say what the worker is"))
            return
        opens = worker.note(report, now)
        facts = worker.facts
        held_blocks = max(report.used_blocks, report.observed_blocks or 0)
        if held_blocks > facts.capacity_blocks or report.used_slots > facts.capacity_slots:
            self.over_capacity += 1
        for held in report.held:
            self._held(worker, held, now)
        for ended in report.ended:
            self._ended(worker, ended, now)
        if report.full:
            self._reconcile(worker, report, now)
        if worker.note_others(report) or opens:
            self._opens(worker)
        for wanted in report.wants:
            self._giving_way.wants(worker, wanted, now)
        if self._unlinked:
            self._unlinked.discard(worker.name)
        if self._silent:
            self._silent.discard(worker.name)
            self.ready |= not self._silent

    def _introduced(self, worker: Worker, facts: WorkerFacts, now: Seconds) -> None:
        """A worker says what it is; a new boot, or a pool of another size, starts a new account."""
        known = worker.known
        if facts is known or facts == known:
            return
        worker.introduce(facts)
        worker.share.moved(self._peers[facts.kind], now)
        self._index.introduced(worker)
        size = (facts.boot, facts.capacity_blocks, facts.capacity_slots, facts.guard_blocks)
        if known is not None and size == (
            known.boot,
            known.capacity_blocks,
            known.capacity_slots,
            known.guard_blocks,
        ):
            self._opens(worker)
            return
        self._lose_claims(worker, now)
        worker.guests, worker.forecast, worker.lessons = Guests(), forecast_of(facts), Lessons()
        worker.growing = Growing()
        worker.open_account()
        self._opens(worker)

    def _held(self, worker: Worker, held: HeldClaim, now: Seconds) -> None:
        claim, ledger = held.claim, worker.ledger
        lease = self.leases.get(claim.lease_id)
        charge = ledger.charge_of(claim)
        if charge is None:
            self._found(worker, held, lease, now)
            return
        before = charge.blocks
        if held.blocks != charge.said or held.answers_raise:
            ledger.confirm(claim, held.blocks, held.answers_raise)
            tenant = self.queueing.quotas.resized(claim, charge.blocks)
            if charge.blocks < before:
                if tenant:
                    self.waiting.let_in(tenant)
                self._opens(worker)
            elif charge.blocks > before:
                self._index.touched(worker)
        first = held.prefilled and charge.prefill and ledger.prefilled(claim)
        if first:
            worker.read(claim, now)
            self._index.read(worker)
        mine = lease is not None and lease.attempt == claim.attempt
        if lease is not None and mine and (first or lease.state is not State.RUNNING):
            if first and lease.first_token is None:
                lease.first_token = now
            lease.turn(Turn.HELD)

    def _found(self, worker: Worker, held: HeldClaim, lease: Lease | None, now: Seconds) -> None:
        """A worker holds a claim that is not charged: from a former life, or of an older attempt."""
        claim = held.claim
        self._adopt(worker, held, now)
        if lease is None:
            self.leases.adopt(claim, worker.name, held.tenant, now)
        elif lease.ask is None and claim.attempt > lease.attempt:
            # Both were granted by an earlier life of this router: the newer one is the request's.
            self._want_back(lease, EndReason.REVOKED, "a newer attempt of the request runs", now)
            lease.attempt, lease.worker = claim.attempt, worker.name
        else:
            # The client has asked anew since; what still runs of the older attempt is nobody's.
            worker.want_back(claim)
            stale = Refusal(Why.NEVER_STARTED, "the request was asked for again since")
            self._out.append(StopClaim(worker.name, claim, EndReason.REVOKED, stale))

    def _adopt(self, worker: Worker, held: HeldClaim, now: Seconds) -> None:
        """Charge a claim that the worker says it holds, and that the ledger does not know or not so large."""
        to_read = 0 if held.prefilled else held.prompt_tokens
        worker.ledger.adopt(held.claim, held.blocks, held.slots, to_read)
        self._index.touched(worker)
        tier = self.rules.tiers.get(held.tier)
        guest = Guest(tier.priority if tier else held.priority)
        worker.guests.came(held.claim, guest, prompt=to_read, reading=None, now=now)
        self.queueing.quotas.holds(held.claim, held.tenant, held.blocks)
        if held.grows:
            worker.growing.came(held.claim, held.priority, now)
            self._giving_way.grows_on(worker)

    def _ended(self, worker: Worker, ended: EndedClaim, now: Seconds) -> None:
        worker.ended(ended)
        self._free(worker, ended.claim, now)
        refused = ended.reason is EndReason.REFUSED
        worker.refused += refused
        self.refused_by_worker += refused
        lease = self.leases.get(ended.claim.lease_id)
        if lease is None or lease.attempt != ended.claim.attempt:
            return
        if lease.ask is not None:
            ending = Ending(now, reason=ended.reason, output_tokens=ended.output_tokens)
            self.past.ended(lease.ask.request_id, ending)
        self.preempted += ended.reason is EndReason.PREEMPTED
        if ended.reason in _GAVE_WAY and lease.key is not None:
            if lease.turn(Turn.GAVE_WAY):
                self._due.expect(lease.lease_id, now + BETWEEN_AT_MOST)
            return
        if ended.reason is EndReason.PREEMPTED:  # its client is on its way to another session
            self._close(lease, Turn.ENDED, now)
            return
        if lease.wish is not None and ended.reason in _WHOLE:
            wish, length = lease.wish, ended.output_tokens // lease.wish.choices
            self.lengths.saw(wish.tenant.name, wish.tier.name, wish.model, length)
        served = outcome_of(lease, worker.facts, ended, now)
        # One that is not closed by this was asked for again, and is not over.
        if self._close(lease, Turn.ENDED, now, ended.output_tokens) and served is not None:
            self._out.append(served)

    def _reconcile(self, worker: Worker, report: Report, now: Seconds) -> None:
        """A full report lists every claim: one that the worker held and that is missing is over."""
        worker.growing.only({wanted.claim for wanted in report.wants})
        self._index.touched(worker)  # it may have another bit by now
        held, ledger = {held.claim for held in report.held}, worker.ledger
        for claim in ledger.missing(held):
            charge = ledger.charge_of(claim)
            if charge is None or not charge.held:
                continue  # not held yet is not yet missing: its start may be on its way
            self._free(worker, claim, now)
            lease = self.leases.get(claim.lease_id)
            if lease is not None and lease.claim == claim:
                self._close(lease, Turn.ENDED, now)
        worker.drift = abs(report.used_blocks - report.foreign_blocks - ledger.held_blocks)
        self.drift_max = max(self.drift_max, worker.drift)

    def _link_lost(self, worker: Worker, problem: str, now: Seconds) -> None:
        if worker.linked or not worker.problem:
            worker.lost_at = now
        worker.linked = False
        worker.share.counts(False, now)
        self._index.touched(worker)
        if not worker.given_up:
            self._unlinked.add(worker.name)
        worker.problem = problem or "its link broke"
        worker.last_number = 0

    def _give_up(self, worker: Worker, now: Seconds) -> None:
        worker.given_up = True
        self._index.touched(worker)
        self._unlinked.discard(worker.name)
        self._lose_claims(worker, now)
        self.ready |= all(self.workers[name].given_up for name in self._silent)

    def _lose_claims(self, worker: Worker, now: Seconds) -> None:
        """Every claim on this worker is void: it was given up, or started anew."""
        for claim in worker.ledger.claims():
            self._free(worker, claim, now)
            lease = self.leases.get(claim.lease_id)
            if lease is not None and lease.claim == claim:
                self._close(lease, Turn.ENDED, now)

    def resend_orders(self, worker: str) -> list[StopClaim | RaiseClaim]:
        """The orders that a new link has to repeat: the old one may have lost them."""
        return orders_again(self.workers[worker])


def _runs_out(lease: Lease) -> Seconds | None:
    """When a waiting lease has waited for as long as its client or its tier would have it; `None`: never."""
    most = lease.wish.tier.max_queue if lease.wish is not None else None
    ends = [] if lease.deadline is None else [lease.deadline]
    if most is not None:
        ends.append(lease.arrived + most)
    return min(ends, default=None)


def _outcome(picked: str, refusal: Refusal | None) -> tuple[Outcome, str]:
    """What a placement comes to, and why."""
    if refusal is not None:
        return Outcome.REFUSED, refusal.message
    return (Outcome.GRANTED, "") if picked else (Outcome.QUEUED, "no worker has room")


def _refused_too_often(lease: Lease) -> Refusal:
    return Refusal(
        Why.REFUSED_TOO_OFTEN,
        f"workers refused the request {lease.refusals} times; the last was {lease.worker}",
        1.0,
    )


def _bounded(rules: Rules) -> frozenset[str]:
    """The tenants that may hold so many blocks at a time, and no more."""
    return frozenset(t.name for t in rules.tenants if t.max_concurrent_blocks is not None)


def _quota_too_small(wish: Wish, least: Blocks, most: Blocks) -> Refusal:
    return Refusal(
        Why.QUOTA_TOO_SMALL,
        f"the request needs {least} KV blocks; tenant {wish.tenant.name} may hold {most} at a time. "
        "Mend: fewer tokens of prompt or output",
        numbers={"needed_blocks": str(least), "max_concurrent_blocks": str(most)},
    )
