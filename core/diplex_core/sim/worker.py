"""A simulated worker on virtual time: the engine, the authority on its pool, and what it tells the router.

It stands where `diplex_workers` stands around a real engine, without the wire: it takes a grant or refuses
it, and reports what changes, no more often. A full report opens each link.

A claim that grows asks for more when its sequence comes near its limit, and pauses there until the router
raises it. While the link is down it is the worker that raises it, from blocks that nobody holds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from diplex_core.events import (
    EndedClaim,
    Granted,
    HeldClaim,
    RaiseClaim,
    Report,
    Reported,
    WantedClaim,
    WorkerFacts,
)
from diplex_core.growth import limit, next_size
from diplex_core.model.forecast import times_of
from diplex_core.pool import NoRoom, Pool
from diplex_core.sim.arrivals import Arrival
from diplex_core.sim.batch import Work
from diplex_core.sim.prefix_cache import PrefixCache
from diplex_core.sim.runs import First, Near, Over, Runs
from diplex_core.sim.timeline import Timeline
from diplex_core.words import BlockHash, Blocks, Claim, EndReason, Seconds, Tokens

_REMEMBERS: Seconds = 60.0
"""So long a stop for a claim that it does not hold is remembered: its start may still be on its way."""


@dataclass(slots=True, eq=False)
class Guest:
    """One request on the worker.

    Attributes:
        ask_id: its client's number.
        blocks: its claim's whole size now; `wants`: the one that it asks for, 0 where it asks for none.
        hits, own: the leading blocks of its prompt that were cached, and those that it reads itself.
        stopped: why the router, or its client, ends it early.
    """

    granted: Granted
    ask_id: int
    work: Work
    blocks: Blocks
    hits: Sequence[BlockHash]
    own: Sequence[BlockHash]
    started: Seconds
    first: Seconds | None = None
    wants: Blocks = 0
    stopped: EndReason | None = None


class VirtualWorker:
    """One worker, from one start of its process to the next.

    Args:
        facts: what it says of itself; its engine runs on the step times that they name.
        seed: which requests meet a slow prefill, and which drafts are wrong.
    Attributes:
        alive: its process runs; `linked`: its link to the router stands.
        scheduled: when its engine will next be looked at, as its driver planned.
    Raises:
        ValueError: there are no figures for such a worker.
    """

    def __init__(self, facts: WorkerFacts, *, seed: int = 0) -> None:
        self.facts = facts
        self.timeline = Timeline()
        self.alive = self.linked = True
        self.draining = False
        self.slowness = 1.0
        self.scheduled: Seconds | None = None
        self._times = times_of(facts)
        self._seed = seed
        self._number = 0
        self._booted: Seconds = 0.0
        self._set_up()

    def _set_up(self) -> None:
        facts = self.facts
        self.engine = Runs(
            self._times,
            capacity=facts.capacity_blocks,
            slots=facts.capacity_slots,
            block_tokens=facts.block_tokens,
            prefill_budget=facts.prefill_budget or None,
            seed=self._seed,
            pace=self._pace,
        )
        self.pool = Pool(facts.capacity_blocks, facts.capacity_slots, facts.guard_blocks)
        self.cache = PrefixCache(self.pool)
        self.guests: dict[Claim, Guest] = {}
        self._stopped: dict[Claim, Seconds] = {}

    @property
    def _pace(self) -> float:
        return self.slowness / self.facts.time_scale

    # What comes from clients and the router.

    def start(
        self, granted: Granted, ask_id: int, arrival: Arrival, produced: Tokens, now: Seconds
    ) -> NoRoom | str | None:
        """Take a granted request on, or say why not.

        Args:
            produced: tokens of it that earlier attempts made, and that are read as prompt.
        """
        claim = granted.claim
        if granted.worker.boot != self.facts.boot:
            return "it was granted by an earlier start of the worker"
        if self.draining:
            return f"worker {self.facts.name} is draining"
        if claim in self._stopped:
            return "the router took the claim back"
        size, hashes = self.facts.block_tokens, arrival.block_hashes
        hits, own = hashes[: granted.cached], hashes[granted.cached : arrival.prompt_tokens // size]
        # Fewer cached blocks than the router counted on: refused, with what it then needs.
        no_room = self.pool.take(claim, granted.blocks, granted.slots, "router", hits)
        if no_room is not None:
            return no_room
        self.cache.took(hits)
        work = Work(
            claim,
            claim.lease_id,
            arrival.prompt_tokens,
            granted.max_tokens,
            choices=granted.choices,
            from_index=produced,
            cached=len(hits) * size,
            limit=self._limit(granted.blocks, len(hits)) if granted.grows else 0,
            length=arrival.output_tokens,
        )
        self.guests[claim] = Guest(granted, ask_id, work, granted.blocks, hits, own, now)
        self._note(now)
        self.engine.submit(work, now)
        return None

    def stop(self, claim: Claim, reason: EndReason, now: Seconds) -> EndedClaim | None:
        """End a claim with the iteration under way; what is not held is answered at once."""
        guest = self.guests.get(claim)
        if guest is not None:
            guest.stopped = reason
            self.engine.cancel(claim, now)
            return None
        for old in [old for old, at in self._stopped.items() if now - at > _REMEMBERS]:
            del self._stopped[old]
        self._stopped[claim] = now
        return EndedClaim(claim, reason)

    def raised(self, order: RaiseClaim, now: Seconds) -> HeldClaim | None:
        """The router lets a claim grow: what it holds now, in answer; `None`: nothing, it has ended."""
        guest = self.guests.get(order.claim)
        if guest is None:
            return None
        if guest.stopped is None:  # one that is on its way out needs nothing more
            self._grow(guest, order.blocks, now)
        return self.held(order.claim, answers=order.number)

    def cut_off(self, now: Seconds) -> None:
        """Its link is down."""
        self.linked = False
        self._grow_alone(now)

    def slow(self, factor: float, now: Seconds) -> None:
        """From the next iteration on each takes `factor` times as long as now."""
        self.slowness *= factor
        self.engine.set_pace(self._pace, now)

    # What becomes of them.

    def began(self, first: First) -> HeldClaim:
        """Its first token is out."""
        guest = self.guests[first.claim]
        guest.first = first.at
        self.cache.read(guest.own)
        return self.held(first.claim)

    def near(self, near: Near) -> WantedClaim | None:
        """A claim asks for more; `None`: it has all that it may come to need, or is given more at once."""
        guest = self.guests[near.claim]
        work, facts = guest.work, self.facts
        left = work.max_tokens - work.from_index
        wants = next_size(
            guest.blocks,
            work.to_read,
            left,
            facts.block_tokens,
            cached=work.cached,
            draft=facts.draft_tokens,
        )
        if guest.stopped is not None or wants == guest.blocks:
            return None
        guest.wants = wants
        if not self.linked:
            self._grow_alone(near.at)
        return self.wanted(near.claim)

    def wanted(self, claim: Claim) -> WantedClaim | None:
        guest = self.guests.get(claim)
        return WantedClaim(claim, guest.wants) if guest is not None and guest.wants else None

    def _grow_alone(self, now: Seconds) -> None:
        """Nobody can be asked: who waits to grow does, as far as nobody holds the blocks."""
        for guest in self.guests.values():
            if guest.wants and guest.stopped is None:
                self._grow(guest, guest.wants, now)

    def _grow(self, guest: Guest, blocks: Blocks, now: Seconds) -> None:
        """Give a claim this whole size, if there is room; it goes on. Else it still wants it."""
        claim = guest.granted.claim
        if blocks <= guest.blocks:
            guest.wants = 0 if guest.wants <= guest.blocks else guest.wants
            return
        if self.pool.resize(claim, blocks) is not None:
            guest.wants = max(guest.wants, blocks)
            return
        self.cache.make_room()
        guest.blocks, guest.wants = blocks, 0
        self._note(now)
        self.engine.set_limit(claim, self._limit(blocks, len(guest.hits)), now)

    def _limit(self, blocks: Blocks, hits: Blocks) -> Tokens:
        size = self.facts.block_tokens
        return limit(blocks, size, cached=hits * size, draft=self.facts.draft_tokens)

    def ended(self, over: Over) -> tuple[Guest, EndedClaim]:
        """Its last word is said, and what it held is free."""
        guest = self.guests.pop(over.claim)
        self.pool.release(over.claim)
        if guest.hits or guest.own:
            self.cache.left(guest.hits, guest.own if guest.first is not None else ())
        self._note(over.at)
        if not self.linked:
            self._grow_alone(over.at)
        work, first = guest.work, guest.first
        return guest, EndedClaim(
            over.claim,
            guest.stopped or over.reason,
            work.prompt_tokens,
            work.choices * work.from_index + over.tokens,
            first - guest.started if first is not None else None,
            over.at - guest.started,
        )

    def die(self, now: Seconds) -> list[Guest]:
        """Its process ends, and with it what ran there."""
        guests = list(self.guests.values())
        self.alive = self.linked = False
        self.guests = {}
        self._set_up()
        self._note(now)
        return guests

    def rise(self, now: Seconds) -> None:
        """Another process in its place: a new boot, with an empty pool."""
        self.facts = replace(self.facts, boot=self.facts.boot + 1)
        self.alive, self.draining = True, False
        self._booted = now
        self._set_up()

    # What it tells the router.

    def held(self, claim: Claim, *, answers: int = 0) -> HeldClaim:
        """What it holds for a claim.

        Args:
            answers: the number of the raise that this answers; 0: none.
        """
        guest = self.guests[claim]
        granted = guest.granted
        return HeldClaim(
            claim,
            guest.blocks,
            granted.slots,
            prefilled=guest.first is not None,
            prompt_tokens=guest.work.to_read,
            tier=granted.tier,
            tenant=granted.tenant,
            priority=granted.priority,
            grows=granted.grows,
            answers_raise=answers,
        )

    def full_report(self, now: Seconds, *, opening: bool = False) -> Reported:
        """All that it holds. `opening`: the first on a new link."""
        if opening:
            self._number = 0
        wants = filter(None, map(self.wanted, self.guests))
        return self.report(now, map(self.held, self.guests), (), wants, full=True)

    def report(
        self,
        now: Seconds,
        held: Iterable[HeldClaim],
        ended: Iterable[EndedClaim],
        wants: Iterable[WantedClaim] = (),
        *,
        full: bool = False,
    ) -> Reported:
        self._number += 1
        pool = self.pool
        stored, removed = self.cache.news()
        return Reported(
            self.facts.name,
            Report(
                self._number,
                full,
                now - self._booted,
                pool.used_blocks,
                pool.used_slots,
                held=tuple(held),
                ended=tuple(ended),
                wants=tuple(wants),
                facts=self.facts if full else None,
                observed_blocks=self.engine.used_blocks(now) if full else None,
                draining=self.draining,
                peak_blocks=pool.peak_blocks,
                peak_slots=pool.peak_slots,
                pinned_blocks=pool.resident.pinned,
                stored=tuple(self.cache.kept) if full else stored,
                removed=() if full else removed,
            ),
        )

    def _note(self, now: Seconds) -> None:
        self.timeline.note(now, self.pool.used_blocks + self.pool.resident.pinned)
