"""The words that the whole core speaks: frozen values, each said once.

Inside the core there are only seconds, bytes, tokens and blocks; milliseconds stay at the edges.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

Seconds: TypeAlias = float
Tokens: TypeAlias = int
Blocks: TypeAlias = int
Slots: TypeAlias = int
BlockHash: TypeAlias = int


class Claim(NamedTuple):
    """One lease's hold on one pool: the key of everything that is charged, reported and freed."""

    lease_id: int
    attempt: int

    def __str__(self) -> str:
        return f"{self.lease_id:016x}/{self.attempt}"


class Pattern(StrEnum):
    """How engines lie on a package (the chapter, §4)."""

    A = "A"  # one engine over both dies
    B = "B"  # one engine per die
    C = "C"  # one engine, TP=2 inside the package
    D = "D"  # draft model and target, speculative decoding
    A_EAGLE = "A+EAGLE"  # A with inline speculation


class Reserve(StrEnum):
    """What a lease holds from its start."""

    FULL = "full"  # prompt and every output token it may produce: never preempted
    EXPECTED = "expected"  # prompt and the output length learned for such requests; grows


class WhenLate(StrEnum):
    """What happens to a request whose tier's target cannot be met any more."""

    REJECT = "reject"
    DEGRADE = "degrade"
    WAIT = "wait"


class EndReason(StrEnum):
    """Why a sequence ended; the same names as `diplex.v1.EndReason`."""

    STOP = "STOP"
    LENGTH = "LENGTH"
    CANCELLED = "CANCELLED"
    PREEMPTED = "PREEMPTED"
    REVOKED = "REVOKED"
    REFUSED = "REFUSED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Target:
    """A latency that grows with the prompt: a 32k prompt cannot keep a 2k prompt's promise."""

    base: Seconds
    per_1k_prompt_tokens: Seconds = 0.0

    def at(self, prompt_tokens: Tokens) -> Seconds:
        return self.base + self.per_1k_prompt_tokens * prompt_tokens / 1000


@dataclass(frozen=True, slots=True)
class Promise:
    """What a tier promises at the 95th percentile; `None`: nothing."""

    ttft_p95: Target | None = None
    tpot_p95: Seconds | None = None


@dataclass(frozen=True, slots=True)
class Tier:
    """A named promise, and the patterns that may serve it in order of preference."""

    name: str
    patterns: tuple[Pattern, ...]
    promise: Promise = Promise()
    max_output_tokens: Tokens = 4096
    priority: int = 0
    reserve: Reserve = Reserve.FULL
    expected_quantile: float = 0.9  # of output lengths: what `reserve: expected` holds from the start
    preemptible: bool = False
    max_queue: Seconds | None = None
    max_queue_requests: int = 1024
    max_queue_blocks: Blocks | None = None  # KV blocks that those who wait for one model need, together
    when_late: WhenLate = WhenLate.WAIT
    degrade_to: str = ""  # "": the next tier below that may serve it
    deadline: Seconds | None = None
    min_share: float | None = None  # of what is granted, while it waits; `None`: see `least_share`
    picker: str = "best"
    filters: tuple[str, ...] | None = None  # placement rules beside those that always hold
    scorers: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))  # weights that differ
    promises_by_model: Mapping[str, Promise] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def own_filters(self) -> tuple[str, ...]:
        """The filters that are asked for this tier alone. One that promises no first token lets its prompts
        wait a moment rather than slow another tier's streams, unless it says otherwise."""
        if self.filters is not None:
            return self.filters
        return () if self.promise.ttft_p95 is not None else ("leaves_room", "spares_streams")

    @property
    def grows(self) -> bool:
        """Whether its requests may hold less than they may come to need. Who may not give way holds in full,
        or it might wait for ever to grow."""
        return self.reserve is Reserve.EXPECTED and self.preemptible

    @property
    def least_share(self) -> float:
        """The share of all granted tokens that its waiting requests get, whoever else waits. Unless it says
        otherwise, a twentieth for one that promises no first token: what nobody waits for is not starved."""
        if self.min_share is not None:
            return self.min_share
        return 0.0 if self.promise.ttft_p95 is not None else 0.05

    def promise_for(self, model: str) -> Promise:
        return self.promises_by_model.get(model, self.promise)

    def kept(self, model: str, *, prompt: Tokens, ttft: Seconds, tpot: Seconds | None, e2e: Seconds) -> bool:
        """Whether a request that took so long met every target of this tier.

        Args:
            prompt: its prompt in tokens.
            tpot: mean time per output token after the first; `None`: there was only one.
        """
        promise = self.promise_for(model)
        return (
            (promise.ttft_p95 is None or ttft <= promise.ttft_p95.at(prompt))
            and (promise.tpot_p95 is None or tpot is None or tpot <= promise.tpot_p95)
            and (self.deadline is None or e2e <= self.deadline)
        )


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who pays. `None` for tiers or packages: all of them."""

    name: str
    api_key: str | None = field(default=None, repr=False)
    weight: float = 1.0
    max_tokens_per_minute: Tokens | None = None
    max_concurrent_blocks: Blocks | None = None
    isolate_prefixes: bool = False  # nobody else hits the prefix blocks that it caches
    tiers: frozenset[str] | None = None
    packages: frozenset[str] | None = None

    @property
    def salt(self) -> int:
        """Of its prefix blocks; 0: it shares them with whoever sends the same prompts."""
        if not self.isolate_prefixes:
            return 0
        return int.from_bytes(blake2b(self.name.encode(), digest_size=8).digest()) or 1


_64_BITS = 2**64 - 1


def salted(block: BlockHash, salt: int) -> BlockHash:
    """The name under which a tenant's prefix block is kept: nobody with another salt, or none, comes upon it.

    Router and worker both do this to what clients send. A bijection for each salt, so that equal prefixes
    stay equal and others apart.
    Source: the finalizer of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators,
    OOPSLA 2014).

    >>> salted(7, 0), salted(7, 1) == salted(7, 2)
    (7, False)
    """
    if not salt:
        return block
    mixed = (block ^ salt) & _64_BITS
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _64_BITS
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _64_BITS
    return mixed ^ mixed >> 31


def packed(blocks: Sequence[BlockHash]) -> Sequence[BlockHash]:
    """The same blocks in 8 bytes each: a tuple of numbers of 64 bits takes 40."""
    if isinstance(blocks, array):
        return blocks
    return array("Q", blocks) if blocks else ()


DEFAULT_TENANT = Tenant("default")


@dataclass(frozen=True, slots=True)
class Rules:
    """The part of the configuration that admission goes by. Replaced whole when it is reloaded."""

    models: frozenset[str]
    default_model: str
    tiers: Mapping[str, Tier]
    default_tier: str
    tenants: tuple[Tenant, ...] = ()
    enforce_limits: bool = True  # of tenants; False behind a gateway that has limits of its own

    def tier_named(self, name: str) -> Tier | None:
        """The tier of that name; "", "auto" and "default" mean the default one."""
        return self.tiers.get(self.default_tier if name in ("", "auto", "default") else name)

    def tenant_of(self, api_key: str) -> Tenant | None:
        """Whose key it is. Without configured tenants every key, or none, is the default tenant's."""
        if not self.tenants:
            return DEFAULT_TENANT
        return next((t for t in self.tenants if t.api_key and t.api_key == api_key), None)


def blocks_needed(
    prompt: Tokens,
    max_tokens: Tokens,
    block_tokens: Tokens,
    *,
    choices: int = 1,
    cached: Tokens = 0,
    draft: Tokens = 0,
) -> Blocks:
    """KV blocks that a request may come to hold: what `reserve: full` holds from the start.

    Whole blocks of the prompt are shared by all choices; each choice copies the partly filled last
    block and appends to its copy. Router and worker both call this one function.

    Args:
        prompt: tokens of the prompt, output of earlier attempts included.
        max_tokens: most output tokens of each choice.
        block_tokens: tokens a block of this pool.
        choices: sequences that answer the prompt (`n`).
        cached: leading prompt tokens that are resident in the pool, in whole blocks.
        draft: tokens that speculation may write ahead of the accepted output.
    Source: design §6.

    >>> blocks_needed(8192, 512, 32)
    272
    >>> blocks_needed(40, 24, 32, choices=3)  # one shared block, and two for each choice's 8 + 24 tokens
    4
    """
    own = prompt - cached
    tail = own % block_tokens + max_tokens + draft
    return own // block_tokens + choices * -(-tail // block_tokens)
