"""What filters, scorers and pickers are, what they look at, and the registers of diplex's own by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple, Protocol, TypeAlias

from diplex_core.backfill import Reservation
from diplex_core.events import WorkerFacts
from diplex_core.ledger import PoolLedger
from diplex_core.value import value
from diplex_core.waiting import QueueKey
from diplex_core.words import (
    BlockHash,
    Blocks,
    Promise,
    Seconds,
    Slots,
    Tenant,
    Tier,
    Tokens,
    blocks_needed,
)

Word: TypeAlias = str | None
"""A filter's word: nothing, or its objection as a user may read it."""

Score: TypeAlias = float
"""A scorer's word: 0.0 to 1.0, 1.0 best."""


class Work(NamedTuple):
    """What a request will use, as far as it can be told.

    Attributes:
        output: tokens of each answer.
        tokens: of its prompt and all answers.
    """

    output: Tokens
    tokens: Tokens


@dataclass(slots=True, eq=False)
class Wish:
    """What a request wants of a pool. It never changes, but that its work is told once.

    Attributes:
        work: what it will use, once somebody has worked that out.
        promise: what its tier promises for its model.
        ttft_target: of that, the time to the first token of its prompt; `None`: nothing is promised.
        queue: where it waits.
    """

    model: str
    tier: Tier
    tenant: Tenant
    prompt: Tokens
    max_tokens: Tokens
    stated: bool = True  # False: the client named no max_tokens, and what the pool leaves will do
    choices: int = 1
    produced: Tokens = 0  # by earlier attempts; part of `prompt`
    block_hashes: Sequence[BlockHash] = ()
    hash_block_tokens: Tokens = 0  # of each; 0: as many as a block of the pool has
    least_blocks: Blocks = 0  # what a worker said it needs, when it refused
    avoid: str = ""  # the worker that refused last
    degraded_from: str = ""  # the tier that was asked for, where `tier` is another
    expected: Tokens | None = None  # output that such requests mostly come to; `None`: it holds in full
    likely: Tokens | None = None  # output that few such answers exceed; `None`: nobody knows
    headed: Seconds = 0.0  # for how long it has been the next of its queue
    owed: bool = False  # its tier has had less than its least share
    lease_id: int = 0  # whose it is; 0: nobody's yet
    arrived: Seconds = 0.0  # when it was first asked for
    now: Seconds = 0.0  # when it is looked at
    request_id: str = ""

    work: Work | None = field(init=False, default=None)
    promise: Promise = field(init=False)
    ttft_target: Seconds | None = field(init=False)
    queue: QueueKey = field(init=False)

    def __post_init__(self) -> None:
        self.queue = _queue_of(self.model, self.tier.name, self.tenant.packages)
        self.promise = self.tier.promise_for(self.model)
        target = self.promise.ttft_p95
        self.ttft_target = None if target is None else target.at(self.prompt - self.produced)

    @property
    def lot(self) -> int:
        """64 bits drawn by the request's id: a picker's randomness, the same whenever it is looked at."""
        return int.from_bytes(blake2b(self.request_id.encode(), digest_size=8).digest())

    @property
    def waited(self) -> Seconds:
        return self.now - self.arrived

    def hashes_of(self, block_tokens: Tokens) -> Sequence[BlockHash]:
        """Its blocks as a pool with blocks of this size knows them: none where they have another size."""
        return self.block_hashes if self.hash_block_tokens in (0, block_tokens) else ()

    @property
    def may_grow(self) -> bool:
        """Whether it may hold less than it may come to need: it can give way, and go on elsewhere."""
        return self.tier.grows and self.choices == 1

    def at(
        self,
        arrived: Seconds,
        now: Seconds,
        expected: Tokens | None = None,
        likely: Tokens | None = None,
        lease_id: int = 0,
        headed: Seconds = 0.0,
        owed: bool = False,
    ) -> "Wish":
        """The same wish of a request that came then, looked at now: this very one, if it is nobody's yet.

        Args:
            expected: output that such requests mostly come to; `None`: nobody knows, or it is not to grow.
            likely: output that few such answers exceed; `None`: nobody knows.
            headed: for how long it has been the next of its queue.
            owed: its tier has had less than its least share.
        """
        seen = self
        if self.lease_id:
            seen = self._again()
        seen.expected = expected
        seen.likely = likely
        seen.headed = headed
        seen.owed = owed
        seen.lease_id = lease_id
        seen.arrived = arrived
        seen.now = now
        return seen

    def _again(self) -> "Wish":
        """What does not change when it is looked at once more. By hand: `replace` takes ten times as long."""
        seen = object.__new__(Wish)
        seen.model = self.model
        seen.tier = self.tier
        seen.tenant = self.tenant
        seen.prompt = self.prompt
        seen.max_tokens = self.max_tokens
        seen.stated = self.stated
        seen.choices = self.choices
        seen.produced = self.produced
        seen.block_hashes = self.block_hashes
        seen.hash_block_tokens = self.hash_block_tokens
        seen.least_blocks = self.least_blocks
        seen.avoid = self.avoid
        seen.degraded_from = self.degraded_from
        seen.request_id = self.request_id
        seen.work = self.work
        seen.promise = self.promise
        seen.ttft_target = self.ttft_target
        seen.queue = self.queue
        return seen


@lru_cache(maxsize=1024)
def _queue_of(model: str, tier: str, packages: frozenset[str] | None) -> QueueKey:
    """One for all who wait there."""
    return QueueKey(model, tier, packages)


class PoolView(Protocol):
    """A worker as placement sees it; admission's own record of it is one."""

    @property
    def name(self) -> str: ...
    @property
    def facts(self) -> WorkerFacts: ...
    @property
    def ledger(self) -> PoolLedger: ...
    @property
    def trouble(self) -> str: ...
    @property
    def reserved(self) -> Reservation | None:
        """It is kept for a request that waits for room."""

    def slots_for_others(self, wish: Wish) -> Slots:
        """Sequence slots that it has to leave free for the next request of a higher tier."""

    def crowds(self, wish: Wish) -> str:
        """What it would leave too little of for the next request of a higher tier; empty: nothing."""

    def over(self, wish: Wish) -> Seconds | None:
        """When it will be over, if it is granted here now; `None`: nobody knows."""

    def cached(self, wish: Wish) -> Blocks:
        """Leading blocks of its prompt that are resident."""

    def ttft(self, wish: Wish) -> Seconds | None:
        """From its first ask to its first token, if it is granted here now; `None`: nobody knows."""

    def tpot(self, wish: Wish) -> Seconds | None:
        """Time per output token after the first; `None`: nobody knows."""

    def harmed(self, wish: Wish, priority: int) -> int:
        """Resident streams of this priority or a higher one whose promised time per output token reading the
        wish's prompt would break, as far as anybody knows."""

    def given(self, wish: Wish) -> tuple[float, float]:
        """Prompt tokens that it was given to read of late, and the mean of the workers of its kind."""


@value
class Need:
    """What a wish costs on one pool."""

    blocks: Blocks
    slots: Slots
    max_tokens: Tokens
    hits: Sequence[BlockHash] = ()
    grows: bool = False  # `blocks` is less than it may come to need


def need_on(wish: Wish, pool: PoolView) -> Need:
    """What the wish holds of this pool from its start, resident prefix blocks left out."""
    facts = pool.facts
    output, own = output_with(wish, facts), whole(wish, facts)
    most = own
    if wish.expected is not None and facts.can_grow and facts.can_resume:
        own = blocks_needed(
            wish.prompt, min(output, wish.expected), facts.block_tokens, draft=facts.draft_tokens
        )
    hashes = wish.hashes_of(facts.block_tokens)
    if not hashes:
        blocks = max(own, wish.least_blocks)
        return Need(blocks, wish.choices, output, grows=blocks < most)
    hits = min(pool.ledger.leading(hashes), wish.prompt // facts.block_tokens)
    own -= hits
    # A worker that needs more than this had fewer of them cached: count on as many fewer.
    hits = max(0, hits - max(0, wish.least_blocks - own))
    blocks = max(own, wish.least_blocks)
    grows = blocks + hits < most
    return Need(blocks, wish.choices, output, hashes if hits == len(hashes) else hashes[:hits], grows)


def held_from_the_start(wish: Wish, facts: WorkerFacts) -> Blocks:
    """What the wish holds of such a pool from its start, as if nothing were resident there."""
    output = output_with(wish, facts)
    if wish.expected is not None and facts.can_grow and facts.can_resume:
        output = min(output, wish.expected)
    own = blocks_needed(
        wish.prompt, output, facts.block_tokens, choices=wish.choices, draft=facts.draft_tokens
    )
    return max(own, wish.least_blocks)


def whole(wish: Wish, facts: WorkerFacts) -> Blocks:
    """All that the wish may come to need, in blocks of such a pool, as if nothing were resident there."""
    return blocks_needed(
        wish.prompt,
        output_with(wish, facts),
        facts.block_tokens,
        choices=wish.choices,
        draft=facts.draft_tokens,
    )


def output_with(wish: Wish, facts: WorkerFacts) -> Tokens:
    """Output tokens of each choice: the wish's own, or where it states none what context and pool leave."""
    if wish.stated:
        return wish.max_tokens
    left = (facts.context or wish.prompt + wish.max_tokens) - wish.prompt
    if wish.choices == 1:
        left = min(left, facts.usable_tokens - wish.prompt)
    return max(1, min(wish.max_tokens, left))


Filter: TypeAlias = Callable[[Wish, PoolView], Word]
Scorer: TypeAlias = Callable[[Wish, PoolView], Score]


class Candidate(NamedTuple):
    """A worker that no filter objects to, and the weighted sum of its scores."""

    pool: PoolView
    total: float


Picker: TypeAlias = Callable[[Wish, Sequence[Candidate]], Candidate]
"""Answers one of the candidates: at least one, in the fleet's order."""


class NoScore(float):
    """0, from a scorer of another package that had no word on a worker. `why`: in words."""

    __slots__ = ("why",)

    def __new__(cls, why: str) -> "NoScore":
        score = super().__new__(cls, 0.0)
        score.why = why
        return score

    why: str


FILTERS: dict[str, Filter] = {}
SCORERS: dict[str, Scorer] = {}
PICKERS: dict[str, Picker] = {}


def filter_(name: str) -> Callable[[Filter], Filter]:
    """Register a filter under the name that configuration and `explain` use."""

    def register(rule: Filter) -> Filter:
        FILTERS[name] = rule
        return rule

    return register


def scorer(name: str) -> Callable[[Scorer], Scorer]:
    """Register a scorer under the name that configuration and `explain` use."""

    def register(rule: Scorer) -> Scorer:
        SCORERS[name] = rule
        return rule

    return register


def picker(name: str) -> Callable[[Picker], Picker]:
    """Register a picker under the name that configuration and `explain` use."""

    def register(rule: Picker) -> Picker:
        PICKERS[name] = rule
        return rule

    return register
