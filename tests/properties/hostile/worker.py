"""A worker: the truth about its pool, and what it does with starts, cancels and stops.

It does what `diplex_workers` does, in steps that the world calls in any order: take a start on, count its
prompt, read it, say tokens, let go. The pool's arithmetic is the real one.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from diplex_core.events import EndedClaim, HeldClaim, StopClaim, WorkerFacts
from diplex_core.pool import NoRoom, Pool
from diplex_core.words import BlockHash, Blocks, Claim, EndReason, Seconds, Tokens, blocks_needed, salted

from .feed import Feed
from .gate import Gate
from .growth import Growth
from .memory import Memory
from .wire import Wire
from .words import Cancel, DoneSaid, Hello, Start, TokensSaid


@dataclass(slots=True, eq=False)
class Sequence:
    """One request that a worker has taken on."""

    claim: Claim
    owner: str
    start: Start
    wire: Wire
    slots: int
    max_tokens: Tokens
    hits: tuple[BlockHash, ...]
    produced: list[Tokens]  # by choice, of all attempts
    deadline: Seconds | None
    grows: bool = False
    wants: Blocks = 0  # the whole size that it has asked for, and nobody has answered; 0: none
    submitted: bool = False
    prefilled: bool = False
    verdict: DoneSaid | None = None  # somebody wants it ended, and its engine has yet to let go
    ended: set[int] = field(default_factory=set)  # choices that have come to their end

    @property
    def choices(self) -> int:
        return len(self.produced)

    @property
    def to_read(self) -> Tokens:
        return self.start.prompt + self.start.from_index


class StreamEnd:
    """A worker's end of the stream that carries one attempt."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.sequence: Sequence | None = None

    def hear(self, wire: Wire, message: object) -> None:
        match message:
            case Start():
                self.sequence = self.worker.start(message, wire)
            case Cancel():
                if self.sequence is not None:
                    self.worker.end_early(self.sequence, DoneSaid(EndReason.CANCELLED))

    def lost(self, wire: Wire) -> None:
        if self.sequence is not None:
            self.worker.end_early(self.sequence, DoneSaid(EndReason.CANCELLED))


class Worker:
    """One worker, through all its lives. Methods are called by the world, with the true time.

    Args:
        facts: of its first life.
        seen: counts what happens.
    """

    def __init__(self, facts: WorkerFacts, seen: Counter[str], now: Seconds) -> None:
        self.facts = facts
        self.seen = seen
        self.up = False
        self.rate, self.ahead = 1.0, 0.0
        self.start_up(facts, now)

    @property
    def name(self) -> str:
        return self.facts.name

    def uptime(self, now: Seconds) -> Seconds:
        """Its own clock: it began at its start, runs at its own rate, and may have leapt."""
        return (now - self._born) * self.rate + self.ahead

    # Lives.

    def start_up(self, facts: WorkerFacts, now: Seconds) -> None:
        """A new process: it knows nothing of what ran before."""
        self.facts, self.up, self._born, self._now = facts, True, now, now
        self.ahead = 0.0
        self.problem, self.draining, self.blocks_unknown = "", False, False
        self.gate = Gate(facts.name, facts.boot)
        self.live: dict[Claim, Sequence] = {}
        self.feeds: dict[str, Feed] = {}
        self.growth = Growth(self)
        self._engine_starts()

    def crash(self) -> None:
        self.up = False
        self.live, self.feeds = {}, {}

    def engine_lost(self) -> None:
        """The engine answers no more, and what ran on it has failed. The worker lives on."""
        self.problem = "the engine does not answer"
        for sequence in list(self.live.values()):
            self.finish(sequence, DoneSaid(EndReason.FAILED, "UNAVAILABLE"))
        self._tell_all()

    def engine_ready(self, facts: WorkerFacts) -> None:
        """It answers again, maybe with a pool of another size; what it held before is gone."""
        for sequence in list(self.live.values()):
            self.finish(sequence, DoneSaid(EndReason.FAILED, "UNAVAILABLE"))
        self.facts, self.problem, self.blocks_unknown = facts, "", False
        self._engine_starts()
        self._tell_all()

    def _engine_starts(self) -> None:
        facts = self.facts
        self.pool = Pool(facts.capacity_blocks, facts.capacity_slots, facts.guard_blocks)
        self.memory = Memory(facts.usable_blocks, self.pool.resident, self._block_changed)

    def drain(self, active: bool) -> None:
        self.draining = active
        self._tell_all()

    def blocks_are_unknown(self, unknown: bool) -> None:
        """What the engine says of its blocks is not to be believed, or is again."""
        self.blocks_unknown = unknown
        self._tell_all()

    # Links.

    def hello(self, feed: Feed, hello: Hello) -> None:
        """A hello takes the place of an older link of that router's name."""
        self.gate.hello(hello.router, hello.epoch)
        older = self.feeds.get(hello.router)
        self.feeds[hello.router] = feed
        if older is not None and older is not feed and older.wire is not None:
            older.wire.callee_lets_go()

    def unlink(self, feed: Feed) -> None:
        if self.feeds.get(feed.router) is feed:
            del self.feeds[feed.router]

    def stop(self, router: str, stop: StopClaim) -> None:
        """Answered by `ended`: now, or when the engine has let go."""
        sequence = self.live.get(stop.claim)
        if sequence is not None and sequence.owner == router:
            self.seen["a claim that ran was stopped by its router"] += 1
            code = "" if stop.reason is EndReason.PREEMPTED else "ABORTED"
            self.end_early(sequence, DoneSaid(stop.reason, code, "stopped by its router"))
            return
        self.gate.stopped(stop.claim, self.uptime(self._now))
        self._tell(router, lambda feed: feed.ended(EndedClaim(stop.claim, stop.reason)))

    # A start, as `Reception` takes it.

    def start(self, start: Start, wire: Wire) -> Sequence | None:
        """Take it on whole, or say why not."""
        grant = start.grant
        turned = self.gate.show(grant, self.uptime(self._now))
        if turned:
            self.seen[f"a grant was turned away: {turned}"] += 1
            self._turn_away(start, wire, DoneSaid(EndReason.REFUSED, "ABORTED", turned))
            return None
        if self.problem or self.draining:
            self._turn_away(start, wire, DoneSaid(EndReason.REFUSED, "UNAVAILABLE", "engine or drain"))
            return None
        granted = grant.granted
        hits = self._names(start)[: granted.cached]
        no_room = self._take(start, hits)
        if no_room is not None:
            self.seen["a start was refused for want of cached blocks" if no_room.missing else "no room"] += 1
            done = DoneSaid(
                EndReason.REFUSED, "RESOURCE_EXHAUSTED", str(no_room), needed_blocks=no_room.needed_blocks
            )
            self._turn_away(start, wire, done)
            return None
        if hits:
            self.seen["a start hit cached blocks"] += 1
            self.memory.use(hits, granted.salt)
        assert not granted.grows or (self.facts.can_grow and self.facts.can_resume), (
            f"{grant} cannot grow here"
        )
        due = None if start.timeout is None else self.uptime(self._now) + start.timeout
        sequence = Sequence(
            grant.claim,
            grant.router,
            start,
            wire,
            granted.slots,
            granted.max_tokens,
            hits,
            [start.from_index] * granted.choices,
            due,
            granted.grows,
        )
        self.live[grant.claim] = sequence
        self._tell_changed(sequence)
        return sequence

    def count(self, sequence: Sequence) -> None:
        """Its prompt's length is known: lower the claim to the true need, or refuse a grant too small."""
        facts, pool = self.facts, self.pool
        if sequence.to_read >= facts.context:
            self.finish(sequence, DoneSaid(EndReason.REFUSED, "INVALID_ARGUMENT", "too long"))
            return
        sequence.max_tokens = min(sequence.max_tokens, facts.context - sequence.start.prompt)
        left = sequence.max_tokens - sequence.start.from_index
        if left < 1:
            self.finish(sequence, self._said(sequence, EndReason.LENGTH))
            return
        needed = self._needed(sequence, left)
        least = self._needed(sequence, 1) if sequence.grows else needed
        holding = pool.holding(sequence.claim)
        assert holding is not None, f"{sequence.claim} runs and holds nothing"
        if least > holding.blocks:
            self.seen["a grant was too small"] += 1
            done = DoneSaid(EndReason.REFUSED, "RESOURCE_EXHAUSTED", "GRANT_TOO_SMALL")
            self.finish(sequence, replace(done, needed_blocks=least, prompt_tokens=sequence.start.prompt))
            return
        if needed < holding.blocks:
            self.seen["a claim was lowered to its true need"] += 1
            pool.resize(sequence.claim, needed)
            self._tell_changed(sequence)
        sequence.submitted = True
        self.growth.look(sequence)

    # What its engine does.

    def read(self, sequence: Sequence) -> None:
        """The prompt is read: its blocks are written and can be hit by others."""
        self._write(sequence)
        start = sequence.start
        whole = self._names(start)[: start.prompt // self.facts.block_tokens]
        self.memory.keep(sequence.claim, whole, start.grant.granted.salt)
        sequence.prefilled = True
        self._tell_changed(sequence)

    def say_tokens(self, sequence: Sequence, count: Tokens) -> None:
        """Each choice that goes on has up to this many tokens more, as far as its claim has room."""
        for choice in range(sequence.choices):
            index = sequence.produced[choice]
            more = min(count, sequence.max_tokens - index, self.growth.room(sequence))
            if choice in sequence.ended or more < 1:
                continue
            sequence.produced[choice] += more
            self._write(sequence)
            said = TokensSaid(sequence.start.grant.granted.request_id, choice, index, more)
            sequence.wire.answer(said)
        full = {i for i, n in enumerate(sequence.produced) if n >= sequence.max_tokens}
        sequence.ended |= full
        if len(sequence.ended) == sequence.choices:
            self.finish(sequence, self._said(sequence, EndReason.LENGTH))
            return
        self.growth.look(sequence)
        self.growth.at_its_limit(sequence)

    def stop_by_itself(self, sequence: Sequence, choice: int) -> None:
        """The model says that a choice is complete."""
        sequence.ended.add(choice)
        if len(sequence.ended) == sequence.choices:
            self.finish(sequence, self._said(sequence, EndReason.STOP))

    def break_off(self, sequence: Sequence, reason: EndReason, code: str) -> None:
        """The engine gives a sequence up: preempted, or failed."""
        self.finish(sequence, self._said(sequence, reason, code))

    def let_go(self, sequence: Sequence) -> None:
        """The engine has let go of a sequence that somebody wanted ended."""
        verdict = sequence.verdict
        assert verdict is not None
        self.finish(sequence, replace(verdict, produced=tuple(sequence.produced)))

    def end_early(self, sequence: Sequence, verdict: DoneSaid) -> None:
        if self.live.get(sequence.claim) is not sequence:
            return
        if not sequence.submitted:
            self.finish(sequence, verdict)
        elif sequence.verdict is None:
            sequence.verdict = verdict

    def finish(self, sequence: Sequence, done: DoneSaid) -> None:
        """The one place where a claim ends: its blocks are free, its router and its client are told."""
        del self.live[sequence.claim]
        self.pool.release(sequence.claim)
        self.memory.free(sequence.claim)
        ended = EndedClaim(
            sequence.claim, done.reason, sequence.start.prompt, max(sequence.produced) if done.produced else 0
        )
        self._tell(sequence.owner, lambda feed: feed.ended(ended))
        self.seen[f"ended {done.reason}"] += 1
        sequence.wire.answer(done)

    def time_passes(self, now: Seconds) -> None:
        self._now = now
        for sequence in list(self.live.values()):
            if sequence.deadline is not None and self.uptime(now) >= sequence.deadline:
                self.end_early(sequence, DoneSaid(EndReason.CANCELLED, "DEADLINE_EXCEEDED"))

    # What its feeds read.

    @property
    def unread_prompts(self) -> Counter[str]:
        """Prompt tokens whose first token is not out, by router."""
        unread: Counter[str] = Counter()
        for sequence in self.live.values():
            unread[sequence.owner] += 0 if sequence.prefilled else sequence.to_read
        return unread

    def claims_of(self, router: str) -> list[Claim]:
        return [claim for claim, sequence in self.live.items() if sequence.owner == router]

    def held(self, claim: Claim) -> HeldClaim | None:
        holding, sequence = self.pool.holding(claim), self.live.get(claim)
        if holding is None or sequence is None:
            return None
        granted = sequence.start.grant.granted
        return HeldClaim(
            claim,
            holding.blocks,
            holding.slots,
            prefilled=sequence.prefilled,
            output_tokens=max(sequence.produced),
            prompt_tokens=sequence.start.prompt if sequence.submitted else 0,
            tier=granted.tier,
            tenant=granted.tenant,
            request_id=granted.request_id,
            model=sequence.start.model,
            priority=granted.priority,
            grows=sequence.grows,
        )

    # Parts.

    def _names(self, start: Start) -> tuple[BlockHash, ...]:
        """What its prompt's blocks are known by here: those of another size are no blocks of this pool."""
        if start.hash_block_tokens != self.facts.block_tokens:
            return ()
        return tuple(salted(block, start.grant.granted.salt) for block in start.hashes)

    def _take(self, start: Start, hits: tuple[BlockHash, ...]) -> NoRoom | None:
        """Hold what the grant says. Where nobody knows what is resident, nothing can be hit."""
        granted, pool, counted_on = start.grant.granted, self.pool, start.grant.granted.cached
        if len(hits) < counted_on or (counted_on and self.blocks_unknown):
            blocks = granted.blocks + counted_on
            return NoRoom(blocks, pool.free_blocks, granted.slots, pool.free_slots, counted_on)
        return pool.take(granted.claim, granted.blocks, granted.slots, start.grant.router, hits)

    def _needed(self, sequence: Sequence, output: Tokens) -> Blocks:
        """Blocks of its own for so many tokens more of each choice."""
        return blocks_needed(
            sequence.to_read,
            output,
            self.facts.block_tokens,
            choices=sequence.choices,
            cached=len(sequence.hits) * self.facts.block_tokens,
            draft=self.facts.draft_tokens,
        )

    def _turn_away(self, start: Start, wire: Wire, done: DoneSaid) -> None:
        self.seen["starts turned away"] += 1
        wire.answer(done)
        # A second showing of a grant must not free what the first one holds, nor end it as refused.
        if start.grant.claim not in self.live and done.why not in ("GRANT_SHOWN", "GRANT_EXPIRED"):
            ended = EndedClaim(start.grant.claim, done.reason)
            self._tell(start.grant.router, lambda feed: feed.ended(ended))

    def _said(self, sequence: Sequence, reason: EndReason, code: str = "") -> DoneSaid:
        return DoneSaid(
            reason,
            code,
            prompt_tokens=sequence.start.prompt,
            produced=tuple(sequence.produced),
        )

    def _write(self, sequence: Sequence) -> None:
        block = self.facts.block_tokens
        own = sequence.to_read - len(sequence.hits) * block
        ahead = self.facts.draft_tokens - sequence.start.from_index
        tails = (own % block + n + ahead for n in sequence.produced)
        blocks: Blocks = own // block + sum(-(-tail // block) for tail in tails)
        holding = self.pool.holding(sequence.claim)
        assert holding is not None and blocks <= holding.blocks, (
            f"{sequence.claim} writes {blocks} blocks and holds {holding}"
        )
        self.memory.write(sequence.claim, blocks)

    def _block_changed(self, block: BlockHash, resident: bool) -> None:
        if resident:
            self.pool.resident.stored([block])
        else:
            self.seen["a cached block was evicted"] += 1
            self.pool.resident.removed([block])
        for feed in self.feeds.values():
            feed.block(block, resident)

    def _tell(self, router: str, say: Callable[[Feed], None]) -> None:
        if (feed := self.feeds.get(router)) is not None:
            say(feed)

    def _tell_changed(self, sequence: Sequence) -> None:
        self._tell(sequence.owner, lambda feed: feed.changed(sequence.claim))

    def _tell_all(self) -> None:
        for feed in self.feeds.values():
            feed.full_due()


def pick_live(
    workers: list[Worker], dice: random.Random, wanted: Callable[[Sequence], bool]
) -> tuple[Worker, Sequence] | None:
    """Some sequence of some worker that is in the wanted state."""
    able = [(worker, s) for worker in workers if worker.up for s in worker.live.values() if wanted(s)]
    return dice.choice(able) if able else None
