"""The worker's account of itself: its pool, who is in it, and what its routers are told of that."""

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Several
from typing import TypeAlias

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import worker_pb2
from diplex_core.pool import Pool
from diplex_core.words import BlockHash, Blocks, Claim, Tokens
from diplex_workers.bound import LearnedBound, bounds_of
from diplex_workers.claims import ON_WIRE, claim_on_wire
from diplex_workers.clock import Clock
from diplex_workers.engines.engine import Engine, Facts
from diplex_workers.engines.judge import remarks_of
from diplex_workers.feed import Feed
from diplex_workers.info import worker_info
from diplex_workers.prefixes import Prefixes
from diplex_workers.sequence import Sequence, Tally, Verdict
from diplex_workers.settings import WorkerSettings

Observer: TypeAlias = Callable[[Sequence, Verdict], None]
"""Hears of every sequence that was accepted, once, when it is over."""


class Account:
    """What is true of one worker from its start on.

    Attributes:
        address: host:port that clients are told; set once the port is bound.
        facts: what the engine last said of itself; `None`: it was never ready.
        problem: why the engine takes nothing now, for people; empty: it does.
        live: the sequences that hold a claim, or are about to.
        on_change: called when readiness or draining may have changed.
    """

    def __init__(self, settings: WorkerSettings, boot: int, clock: Clock, engine: Engine) -> None:
        self.settings = settings
        self.boot = boot
        self.clock = clock
        self.engine = engine
        self.address = ""
        self.facts: Facts | None = None
        self.problem = "its engine is starting"
        self.draining = False
        self.ailing = ""  # why its engine is not trusted with more, though it answers
        self.pool = Pool(0, 0)
        self.prefixes = Prefixes(self.pool, self._tell_kept)
        self.live: dict[Claim, Sequence] = {}
        self.feeds: dict[str, Feed] = {}
        self.tallies: dict[tuple[str, str], Tally] = {}
        self.refused = 0
        self.bounds: dict[str, LearnedBound] = {}
        self.observers: list[Observer] = []
        self.on_change: Callable[[], None] = lambda: None

    # Changes.

    def engine_is_ready(self, facts: Facts) -> None:
        """Count in the engine's figures from now on. Peaks are the worker's, and stay."""
        self.facts, self.problem, self.ailing = facts, "", ""
        pool = Pool(facts.capacity_blocks, facts.capacity_slots, facts.guard_blocks)
        pool.peak_blocks, pool.peak_slots = self.pool.peak_blocks, self.pool.peak_slots
        self.pool, self.prefixes = pool, Prefixes(pool, self._tell_kept, facts)
        for model in facts.models:
            self.bounds.setdefault(model.name, LearnedBound())
        self.tell_all()

    def tally(self, model: str, tier: str) -> Tally:
        return self.tallies.setdefault((model, tier), Tally())

    def link(self, feed: Feed) -> None:
        """A router's new link takes the place of its older one."""
        older = self.feeds.get(feed.router)
        self.feeds[feed.router] = feed
        if older is not None:
            older.close()

    def unlink(self, feed: Feed) -> None:
        if self.feeds.get(feed.router) is feed:
            del self.feeds[feed.router]

    def close_links(self) -> None:
        """Every link ends with what is still to be told on it."""
        for feed in self.feeds.values():
            feed.close()

    def tell_all(self) -> None:
        """Something that every router should know at once has changed."""
        for feed in self.feeds.values():
            feed.full_due()
        self.on_change()

    def _tell_kept(self, stored: Several[BlockHash], removed: Several[BlockHash]) -> None:
        for feed in self.feeds.values():
            feed.kept(stored, removed)

    def tell_changed(self, sequence: Sequence) -> None:
        if (feed := self.feeds.get(sequence.owner)) is not None:
            feed.changed(sequence.claim)

    def tell_ended(self, router: str, ended: worker_pb2.Ended) -> None:
        if (feed := self.feeds.get(router)) is not None:
            feed.ended(ended)

    def free(self, sequence: Sequence, verdict: Verdict) -> None:
        """The one place where a claim ends: its blocks are free, and its router is told."""
        self.pool.release(sequence.claim)
        self.prefixes.left(sequence.hits, sequence.own if sequence.first_token is not None else ())
        self.live.pop(sequence.claim, None)
        ended = worker_pb2.Ended(
            claim=claim_on_wire(sequence.claim),
            reason=ON_WIRE[verdict.reason],
            usage=sequence.usage(),
            timing=sequence.timing(),
        )
        self.tell_ended(sequence.owner, ended)
        tally = sequence.tally
        tally.prompt_tokens += sequence.prompt_tokens
        tally.ended[verdict.reason] = tally.ended.get(verdict.reason, 0) + 1
        for observe in self.observers:
            observe(sequence, verdict)

    # What is read from it.

    def info(self) -> pb.WorkerInfo:
        told = bounds_of(self.engine)
        for model, bound in self.bounds.items():
            bound.follow(told.get(model))
        return worker_info(self.settings, self.boot, self.address, self.facts, self.bounds)

    def figures(self, reader: str) -> worker_pb2.WorkerLinkResponse:
        foreign_blocks, foreign_slots = self.pool.held_by_others(reader)
        mine, others = self._unread(reader)
        # Sequences that came to the engine past its workers: in nobody's claims, and in nobody's free blocks.
        remarks = remarks_of(self.engine)
        strange_blocks = min(remarks.foreign, self.pool.capacity - self.pool.used_blocks)
        strange_slots = min(remarks.foreign_slots, self.pool.slots - self.pool.used_slots)
        return worker_pb2.WorkerLinkResponse(
            uptime_ms=int(self.clock.now() * 1000),
            used_blocks=self.pool.used_blocks + strange_blocks,
            used_slots=self.pool.used_slots + strange_slots,
            foreign_blocks=foreign_blocks + strange_blocks,
            foreign_slots=foreign_slots + strange_slots,
            observed_blocks=self.engine.observed_blocks(),
            draining=self.draining or bool(self.ailing),
            peak_blocks=self.pool.peak_blocks,
            peak_slots=self.pool.peak_slots,
            engine_ready=not self.problem,
            engine_problem=self.problem,
            engine_alarm=self.ailing or remarks.alarm,
            prefill_tokens=mine + others,
            foreign_prefill_tokens=others,
            pinned_blocks=self.pool.resident.pinned,
            cached_blocks=self.pool.resident.cached,
            residency_problem=self.prefixes.problem,
        )

    def _unread(self, reader: str) -> tuple[Tokens, Tokens]:
        """Prompt tokens whose first token is not out: this router's, and all others'."""
        mine = others = 0
        for sequence in self.live.values():
            if sequence.first_token is None:
                if sequence.owner == reader:
                    mine += sequence.prompt_tokens
                else:
                    others += sequence.prompt_tokens
        return mine, others

    def snapshot(self) -> worker_pb2.WorkerGetInfoResponse:
        return worker_pb2.WorkerGetInfoResponse(
            info=self.info(),
            uptime_ms=int(self.clock.now() * 1000),
            used_blocks=self.pool.used_blocks,
            used_slots=self.pool.used_slots,
            peak_blocks=self.pool.peak_blocks,
            peak_slots=self.pool.peak_slots,
            observed_blocks=self.engine.observed_blocks(),
            sequences=len(self.live),
        )

    def claims_of(self, router: str) -> list[Claim]:
        return [claim for claim, sequence in self.live.items() if sequence.owner == router]

    def resident(self) -> Iterable[BlockHash]:
        """All prefix blocks that the engine keeps, by its word or as the worker keeps the account."""
        return self.prefixes.kept

    def wanted(self, claim: Claim) -> Blocks:
        """The whole size that a claim asks to grow to; 0: it does not ask, or no longer."""
        sequence = self.live.get(claim)
        return sequence.wanted if sequence is not None and sequence.verdict is None else 0

    def held(self, claim: Claim) -> worker_pb2.Held | None:
        holding, sequence = self.pool.holding(claim), self.live.get(claim)
        if holding is None or sequence is None:
            return None
        return worker_pb2.Held(
            claim=claim_on_wire(claim),
            blocks=holding.blocks,
            slots=holding.slots,
            output_tokens=sequence.produced,
            prefilled=sequence.first_token is not None,
            tier=sequence.tier,
            tenant=sequence.tenant,
            prompt_tokens=sequence.prompt_tokens,
            request_id=sequence.request_id,
            model=sequence.model,
            priority=sequence.priority,
            grows=sequence.grows,
        )
