"""The queue, whole: who is taken in, where a request stands, what each has had, and when to come back.

Here meet the parts that know nothing of each other: the lines (`waiting`), what tenants have had
(`fairness`), what tiers are owed (`shares`), quotas, and appointments. Admission asks this one.
"""

from collections.abc import Callable, Iterable, Mapping
from math import ceil, inf
from typing import Final, TypeAlias

from diplex_core.appointments import Appointment, Appointments, Fingerprint
from diplex_core.events import Refusal, Why
from diplex_core.lease import Lease
from diplex_core.lengths import Lengths
from diplex_core.placement.rules import Need, PoolView, Wish, Work
from diplex_core.prospects import Drain
from diplex_core.quotas import Quotas
from diplex_core.shares import Shares
from diplex_core.waiting import Place, QueueKey, WaitingRoom
from diplex_core.words import Blocks, Claim, Rules, Seconds, Tier, Tokens, WhenLate, blocks_needed

LEAST_WAIT: Final[Seconds] = 1.0
"""Nobody is told to come back sooner, unless it is known that a moment will do."""
_AHEAD: Final[Seconds] = 1.0
"""So long before its time somebody's place in a queue is kept."""
_HALF: Final = 0.5
_FEW_EXCEED: Final = 0.9
_UNKNOWN_RATE: Final = 1.0
"""Requests a second that are told to come back where nobody knows how fast they will be served."""


Predicted: TypeAlias = Callable[[Wish], float | None]
"""Tokens a second that are served of such requests, going by predictions; `None`: nobody knows."""


class Queueing:
    """One router's queues, and what belongs to them."""

    def __init__(self, lengths: Lengths) -> None:
        self.waiting = WaitingRoom()
        self.shares = Shares()
        self.quotas = Quotas()
        self.appointments = Appointments()
        self._lengths = lengths
        self._drains: dict[QueueKey, Drain] = {}
        self._back: dict[int, Appointment] = {}  # by lease, of those that came back at their time

    def work_of(self, wish: Wish) -> Work:
        """By the answers that such requests mostly get; by the most that it asks for, while nobody knows.
        What is said of a wish when it comes is said to its end, so that its charges and bookings agree."""
        known = wish.work
        if known is None:
            output = self._output(wish, _HALF)
            output = wish.max_tokens if output is None else output
            known = wish.work = Work(output, wish.prompt + wish.choices * output)
        return known

    def likely(self, wish: Wish) -> Tokens | None:
        """Output that few such answers exceed; `None`: nobody knows."""
        return self._output(wish, _FEW_EXCEED)

    def _output(self, wish: Wish, share: float) -> Tokens | None:
        length = self._lengths.quantile(
            wish.tenant.name, wish.tier.name, wish.model, share, beyond=wish.produced
        )
        return None if length is None else min(wish.max_tokens, max(1, length - wish.produced))

    # Who is taken in.

    def turns_away(
        self, wish: Wish, rules: Rules, block: Tokens, now: Seconds, predicted: Predicted
    ) -> Refusal | Appointment | None:
        """Why a new request is not taken in; else its appointment, where it had one.

        Args:
            block: tokens of a KV block, where the tier bounds the blocks that wait.
            predicted: as in `retry_after`.
        """
        work = self.work_of(wish)
        if rules.enforce_limits and wish.tenant.max_tokens_per_minute is not None:
            refusal = self._over_quota(wish, work, _mark(wish), wish.tenant.max_tokens_per_minute, now)
            if refusal is not None:
                return refusal
        key, tier, back, kept = wish.queue, wish.tier, None, None
        queue = self.waiting.queue(key)
        if len(self.appointments):
            back = self.appointments.come(key, _mark(wish), now)
            kept = self.appointments.kept(key, now, min(_AHEAD, patience(wish))) if back is None else None
        if queue is None and kept is None:
            return back
        requests = (len(queue) if queue else 0) + (ceil(kept.requests) if kept else 0)
        if requests >= tier.max_queue_requests:
            return self._full(wish, _too_many(wish), predicted, back, now)
        if tier.max_queue_blocks is not None:
            blocks = (queue.blocks if queue else 0) + (ceil(kept.tokens / block) if kept else 0)
            own = blocks_of(wish, work, block)
            if blocks and blocks + own > tier.max_queue_blocks:
                return self._full(wish, _too_large(wish, blocks, own), predicted, back, now)
        return back

    def would_turn_away(self, wish: Wish, rules: Rules, block: Tokens, now: Seconds) -> Refusal | None:
        """The same of a request that is only asked about, by nobody who was told to come back."""
        work, tier, queue = self.work_of(wish), wish.tier, self.waiting.queue(wish.queue)
        if rules.enforce_limits and self.quotas.lacks(wish.tenant, work.tokens, 0.0, now) is not None:
            most = wish.tenant.max_tokens_per_minute
            return Refusal(
                Why.QUOTA_EXCEEDED, f"tenant {wish.tenant.name} has used up its {most} tokens a minute"
            )
        if queue is None:
            return None
        if len(queue) >= tier.max_queue_requests:
            return Refusal(Why.QUEUE_FULL, _too_many(wish))
        own = blocks_of(wish, work, block)
        if tier.max_queue_blocks is not None and queue.blocks and queue.blocks + own > tier.max_queue_blocks:
            return Refusal(Why.QUEUE_FULL, _too_large(wish, queue.blocks, own))
        return None

    def _over_quota(
        self, wish: Wish, work: Work, mark: Fingerprint, most: Tokens, now: Seconds
    ) -> Refusal | None:
        tenant = wish.tenant
        whose = ("quota", tenant.name)
        back = self.appointments.come(whose, mark, now)
        kept = self.appointments.all_kept(whose, now) if back is None else 0
        if self.quotas.lacks(tenant, work.tokens, kept, now) is None:
            return None
        lacks = self.quotas.lacks(tenant, work.tokens, 0.0, now) or 0.0
        wait = self.appointments.make(
            whose, mark, work.tokens, rate=most / 60.0, earliest=now + lacks, starts=now + lacks, now=now
        )
        message = (
            f"tenant {tenant.name} has used up its {most} tokens a minute; this request of about "
            f"{work.tokens} tokens finds room in {wait:.1f} s"
        )
        return Refusal(Why.QUOTA_EXCEEDED, message, wait, {"max_tokens_per_minute": str(most)})

    def _full(
        self, wish: Wish, said: str, predicted: Predicted, back: Appointment | None, now: Seconds
    ) -> Refusal:
        since = back.since if back is not None else None
        return Refusal(Why.QUEUE_FULL, said, self.retry_after(wish, now, predicted, since=since))

    # Where it stands.

    def enter(self, lease: Lease, wish: Wish, block: Tokens, now: Seconds) -> int:
        """A request waits from now on; answers about how many come before it."""
        self._drain_of(wish.queue).contended(now)
        work, arrived, back = self.work_of(wish), lease.arrived, self._back.get(lease.lease_id)
        first = arrived if back is None else min(arrived, back.since)
        target, tier = wish.ttft_target, wish.tier
        due, pressed = first, inf
        if wish.produced or back is not None:
            pressed = first
        elif target is not None:
            due, pressed = first + target, first + target / 2
        elif tier.deadline is not None:
            due = min(first + tier.deadline, inf if lease.deadline is None else lease.deadline)
        blocks = blocks_of(wish, work, block) if tier.max_queue_blocks is not None else 0
        place = Place(due, lease.lease_id, arrived, pressed, work.tokens, blocks)
        return self.waiting.enter(wish.queue, tier.priority, wish.tenant.name, place)

    def owed(self, tiers: Mapping[str, Tier], now: Seconds) -> Iterable[str]:
        """Tiers that wait and have had less than their least share: they are served first."""
        names = {queue.key.tier for queue in self.waiting.queues()}
        return self.shares.owed([tiers[name] for name in names if name in tiers], now)

    # What becomes of it.

    def taken_in(
        self, lease_id: int, wish: Wish, rules: Rules, back: Appointment | None, now: Seconds
    ) -> None:
        """A new request has a lease."""
        if back is not None:
            self._back[lease_id] = back
        if rules.enforce_limits and wish.tenant.max_tokens_per_minute is not None:
            self.quotas.take(lease_id, wish.tenant, self.work_of(wish).tokens, now)

    def granted(self, claim: Claim, wish: Wish, need: Need, now: Seconds) -> None:
        work, tenant, waiting = self.work_of(wish), wish.tenant, self.waiting
        output = wish.choices * work.output
        waiting.leave(claim.lease_id)
        waiting.counters.granted(claim.lease_id, tenant, wish.prompt, output)
        waiting.recount(tenant.name)
        if self._back and self._back.pop(claim.lease_id, None) is not None:
            self._drain_of(wish.queue).kept_its_word()
        self.shares.granted(wish.tier.name, work.tokens, now)
        self.quotas.holds(claim, tenant.name, need.blocks)

    def over(self, lease: Lease, output: Tokens | None, now: Seconds, *, ran: bool = True) -> None:
        """A request is over.

        Args:
            output: tokens of all its answers; `None`: nobody knows, so it is taken to be as expected.
            ran: anything of it did.
        """
        lease_id, wish = lease.lease_id, lease.wish
        self._back.pop(lease_id, None)
        if wish is None:
            return
        prompt = wish.prompt - wish.produced
        self.quotas.true_up(lease_id, 0 if not ran else None if output is None else prompt + output, now)
        tenant = self.waiting.counters.ended(lease_id, output, ran=ran)
        if tenant:
            self.waiting.recount(tenant)
        if ran and output is not None:
            self._drain_of(wish.queue).ended(self.work_of(wish).tokens, now)

    # When to come back.

    def retry_after(
        self,
        wish: Wish,
        now: Seconds,
        predicted: Predicted,
        *,
        least: Seconds = LEAST_WAIT,
        since: Seconds | None = None,
        book: bool = True,
    ) -> Seconds:
        """When to come back, in seconds: when what waits before it, and all that is booked already, will have
        been served.

        Args:
            predicted: tells tokens a second, where too few have ended to tell.
            least: seconds that it takes in any case.
            since: when it first came; `None`: now, unless its lease came back.
            book: make it an appointment.
        """
        key, work = wish.queue, self.work_of(wish)
        drain = self._drain_of(key)
        drain.contended(now)
        seen = wish if wish.now == now else wish.at(now, now)
        rate = drain.rate(now) or predicted(seen) or drain.rate(now, contended=False)
        rate = (rate or work.tokens * _UNKNOWN_RATE) * drain.pace
        queue = self.waiting.queue(key)
        # Two more are served before it comes: one for its place, and one for luck.
        before = 2 * work.tokens / rate
        if queue is not None:
            before = max(before, queue.tokens / rate - patience(wish))
        earliest = now + max(least, before)
        if not book:
            return self.appointments.next(key, rate=rate, earliest=earliest, now=now) - now
        if since is None and (back := self._back.get(wish.lease_id)) is not None:
            since = back.since
        if since is not None:
            drain.broke_its_word()
        return self.appointments.make(
            key, _mark(wish), work.tokens, rate=rate, earliest=earliest, now=now, since=since
        )

    def _drain_of(self, key: QueueKey) -> Drain:
        drain = self._drains.get(key)
        if drain is None:
            drain = self._drains[key] = Drain()
        return drain

    def rate(self, key: QueueKey, now: Seconds) -> float | None:
        """Tokens a second of this queue's requests that are served; `None`: nobody knows yet."""
        drain = self._drains.get(key)
        return drain.rate(now) if drain is not None else None

    def before(self, wish: Wish, now: Seconds) -> Seconds:
        """How long those will take who were told to come back about now, and go before this one."""
        ahead = patience(wish)
        if ahead == inf or wish.lease_id in self._back:
            return 0.0
        kept = self.appointments.kept(wish.queue, now, min(_AHEAD, ahead))
        rate = self.rate(wish.queue, now) if kept.tokens else None
        return kept.tokens / rate if rate else 0.0

    def takes_what_is_kept(self, wish: Wish, pool: PoolView, need: Need, now: Seconds) -> bool:
        """Whether a new request would take the room of one that was told to come back about now. Where its
        queue is patient that matters not: there is a place in it."""
        if not len(self.appointments):
            return False
        ahead = patience(wish)
        if ahead == inf or wish.lease_id in self._back:
            return False
        kept = self.appointments.kept(wish.queue, now, min(_AHEAD, ahead))
        if not kept.tokens:
            return False
        block = pool.facts.block_tokens
        freed = (self.rate(wish.queue, now) or 0.0) * ahead
        return (pool.ledger.open_blocks - need.blocks) * block + freed < kept.tokens


def patience(wish: Wish) -> Seconds:
    """How long a request can wait for room and not be refused for it; infinite: for ever."""
    tier, target = wish.tier, wish.ttft_target
    most = inf if tier.max_queue is None else tier.max_queue
    return min(most, target) if target is not None and tier.when_late is WhenLate.REJECT else most


def blocks_of(wish: Wish, work: Work, block: Tokens) -> Blocks:
    """What a wish may come to need, in blocks of so many tokens."""
    return blocks_needed(wish.prompt, work.output, block, choices=wish.choices)


def _mark(wish: Wish) -> Fingerprint:
    tier = wish.degraded_from or wish.tier.name
    return Fingerprint(wish.tenant.name, tier, wish.model, wish.prompt, wish.max_tokens, wish.choices)


def _too_many(wish: Wish) -> str:
    return f"{wish.tier.max_queue_requests} requests of tier {wish.tier.name} wait for {wish.model}"


def _too_large(wish: Wish, blocks: Blocks, own: Blocks) -> str:
    return (
        f"requests of tier {wish.tier.name} that need {blocks} KV blocks wait for {wish.model}; with its "
        f"{own} they would be more than {wish.tier.max_queue_blocks}"
    )
