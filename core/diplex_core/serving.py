"""Who waits is served: placed and granted, refused, moved to a lower tier, or told to wait on.

Heads of queues are tried in order. For one that finds no room a worker is kept, and those behind it may pass
if they do not put it off.
"""

from collections.abc import Iterable
from enum import Enum, auto
from itertools import chain, islice
from typing import Final

from diplex_core.books import Books
from diplex_core.events import (
    Granted,
    Queued,
    Refusal,
    Why,
)
from diplex_core.fleet import Worker
from diplex_core.growing import PATIENCE
from diplex_core.lateness import late_by, lowered
from diplex_core.lease import Lease, Turn
from diplex_core.past import Explanation, Outcome
from diplex_core.placement.index import Member
from diplex_core.placement.place import Choice
from diplex_core.placement.rules import Need, Wish, need_on, whole
from diplex_core.placement.search import allowed_kinds, kinds_for, opened_in_vain, search
from diplex_core.queueing import LEAST_WAIT
from diplex_core.waiting import Place, Queue, QueueKey
from diplex_core.words import Blocks, Rules, Seconds, Tokens, WhenLate

START_WITHIN: Seconds = 5.0
"""A grant is void if the worker does not see its start within this (design §5.8)."""
NEVER_STARTED_AFTER: Seconds = START_WITHIN + 1.0
BEHIND: Final = 16
"""So many of those behind a queue's head are looked at, to see whether they may pass it."""
_FEW: Final = 16
"""Of a large fleet so many workers of each kind are looked at for one to be kept for a request."""


class Fate(Enum):
    """What became of a request that was to be served."""

    DONE = auto()  # granted, refused, or in another queue
    WAITS = auto()  # nobody has room for it
    YIELDS = auto()  # it waits, as its room is kept for those who were told to come back
    ASIDE = auto()  # it waits, and its tenant's line is passed over


_ANOTHER_IS_HEAD: Final = frozenset({Fate.DONE, Fate.ASIDE})


class Serving(Books):
    """A router's books, and how it serves who waits."""

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
        if anew:
            queue.forget_tries()
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
        for no less fares no better: so the least of them is tried next, and if that fails nobody passes."""
        smaller = [place for place in queue.first(BEHIND + 1, now)[1:] if place.tokens < head.tokens]
        if not smaller:
            return
        if not anew and self._is_in_vain(queue, min(smaller, key=_size), now):
            return
        least = min(head.tokens, self._most_room(head) + 1)
        for place in smaller:
            if place.tokens >= least or place.lease_id not in self.waiting:
                continue
            if self._try(queue, place, anew, now) is Fate.DONE:
                continue
            least = place.tokens
            rest = [other for other in smaller if other.tokens < least and other.lease_id in self.waiting]
            if not rest or self._try(queue, min(rest, key=_size), anew, now) is not Fate.DONE:
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
        if not anew and self._is_in_vain(queue, place, now):
            return Fate.WAITS  # one that is late by now is found out on the next tick
        tried_at = None if anew else queue.tried.get(place.lease_id)
        fate = self._serve(self.leases.get(place.lease_id), now, tried_at)
        if fate is Fate.WAITS:
            queue.tries(place, opened)
        return fate

    def _is_in_vain(self, queue: Queue, place: Place, now: Seconds) -> bool:
        """Whether it, or of those behind the head one that needs no more, found no room a moment ago, and
        finds none where something opened since."""
        own = queue.tried.get(place.lease_id)
        since = own if queue.head(now) is place else queue.tried_in_vain(place)
        if since is None:
            return False
        in_vain = since == self._index.opened or not self._index.room_since(since)
        if not in_vain:
            lease = self.leases.get(place.lease_id)
            if lease is None or lease.wish is None:
                return False
            wish = self._seen(lease, lease.wish, now)
            in_vain = opened_in_vain(self._placement, wish, self._index, since)
        if in_vain and since == own:
            queue.tries(place, self._index.opened)
        return in_vain

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
        refusal: Refusal | None = None
        if wish.tenant.max_concurrent_blocks is not None:
            affordable = self._affordable(wish, choice, now)
            if isinstance(affordable, Refusal):
                refusal = affordable
            else:
                choice = affordable
        if refusal is None:
            if choice.picked is None and not choice.able:
                refusal = self._hopeless(wish, now)
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
        bounded = self.rules.enforce_limits and wish.tenant.max_concurrent_blocks is not None
        if bounded and not self.queueing.quotas.room(wish.tenant, need.blocks):
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

    def _turned_away(self, wish: Wish, choice: Choice, *, book: bool = True) -> Refusal | None:
        """The refusal of a wish that its tier rejects rather than serve late; `None`: it does not.

        Args:
            book: it is told to come back, and is waited for.
        """
        if wish.tier.when_late is not WhenLate.REJECT or wish.ttft_target is None or wish.produced:
            return None
        late = late_by(wish, choice, self.queueing.before(wish, wish.now))
        if late is None:
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
        self._due.expect(lease.lease_id, runs_out(lease))
        self._step_out(lease)
        self._line_up(lease, lower, now)
        return Fate.DONE  # whatever became of it: it is no longer the head of its old queue

    def _remember(
        self, lease: Lease, wish: Wish, choice: Choice, now: Seconds, refusal: Refusal | None = None
    ) -> None:
        picked = choice.picked.name if choice.picked is not None else ""
        outcome, reason = _outcome(picked, refusal)
        self.past.note(Explanation(wish.request_id, now, outcome, wish, picked, reason, choice.words))

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

    def _block_tokens(self, wish: Wish) -> Tokens:
        """Tokens of a KV block, by the first kind of worker that the tenant may use."""
        if wish.tier.max_queue_blocks is None:
            return 1
        kinds = self._index.groups(wish.tenant.packages)
        return kinds[0].kind.block_tokens if kinds else 1


def runs_out(lease: Lease) -> Seconds | None:
    """When a waiting lease has waited for as long as its client or its tier would have it; `None`: never."""
    most, deadline = lease.wish.tier.max_queue if lease.wish is not None else None, lease.deadline
    if most is None:
        return deadline
    ends = lease.arrived + most
    return ends if deadline is None or ends < deadline else deadline


def _outcome(picked: str, refusal: Refusal | None) -> tuple[Outcome, str]:
    """What a placement comes to, and why."""
    if refusal is not None:
        return Outcome.REFUSED, refusal.message
    return (Outcome.GRANTED, "") if picked else (Outcome.QUEUED, "no worker has room")


def _quota_too_small(wish: Wish, least: Blocks, most: Blocks) -> Refusal:
    return Refusal(
        Why.QUOTA_TOO_SMALL,
        f"the request needs {least} KV blocks; tenant {wish.tenant.name} may hold {most} at a time. "
        "Mend: fewer tokens of prompt or output",
        numbers={"needed_blocks": str(least), "max_concurrent_blocks": str(most)},
    )


def _size(place: Place) -> Tokens:
    return place.tokens
