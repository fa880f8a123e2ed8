"""What can happen to admission, and what it can answer. The shells translate to and from the wire."""

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from diplex_core.value import value
from diplex_core.words import BlockHash, Blocks, Claim, EndReason, Pattern, Rules, Seconds, Slots, Tokens


class AskKey(NamedTuple):
    """Where an ask came from: the client's session, and the client's number on it."""

    session: int
    ask_id: int


@value
class Again:
    """Why a request is asked for once more: the claim that came to nothing, and what it left behind."""

    claim: Claim
    reason: EndReason
    worker: str = ""
    produced_tokens: Tokens = 0
    needed_blocks: Blocks = 0


@value
class Ask:
    """A request for room. `max_tokens` 0: not stated; `age`: seconds since it was first asked anywhere."""

    request_id: str
    model: str
    tier: str = ""
    api_key: str = ""
    prompt_tokens: Tokens = 0
    exact: bool = False
    block_hashes: Sequence[BlockHash] = ()  # packed, where there are many (`words.packed`)
    hash_block_tokens: Tokens = 0  # tokens of each hashed block; 0: as many as a block of the pool has
    max_tokens: Tokens = 0
    choices: int = 1
    timeout: Seconds | None = None
    age: Seconds = 0.0
    again: Again | None = None


@value
class WorkerFacts:
    """What a worker says of itself in a full report."""

    name: str
    package: str
    pattern: Pattern
    models: frozenset[str]
    boot: int
    address: str
    block_tokens: Tokens
    capacity_blocks: Blocks
    capacity_slots: Slots
    guard_blocks: Blocks = 0
    context: Tokens = 0
    can_resume: bool = True
    can_grow: bool = False  # its sequences wait for a larger claim, or give way: `reserve: expected` may hold
    reports_residency: bool = False  # it says which prefix blocks its engine keeps
    tiers: frozenset[str] = frozenset()
    engine: str = ""
    simulated: bool = False
    calibration: str = ""
    time_scale: float = 1.0  # simulated seconds that pass in a real one
    prefill_budget: Tokens = 0  # prompt tokens that one iteration reads at most; 0: not known
    draft_tokens: Tokens = 0  # drafted ahead in each step; 0: no speculation
    gpu: str = ""
    profile: str = ""  # these three name the model's figures; "": not known
    weights: str = ""
    kv_cache: str = ""

    @property
    def usable_blocks(self) -> Blocks:
        return self.capacity_blocks - self.guard_blocks

    @property
    def usable_tokens(self) -> Tokens:
        return self.usable_blocks * self.block_tokens

    @property
    def kind(self) -> "WorkerFacts":
        """What it says of itself but for who it is and how large its pool is: workers of one kind take the
        same requests, as far as they have room, and are as fast."""
        return replace(self, name="", package="", boot=0, address="", capacity_blocks=0, guard_blocks=0)


@value
class HeldClaim:
    """A claim that the worker holds, with its whole size."""

    claim: Claim
    blocks: Blocks
    slots: Slots
    prefilled: bool = False
    output_tokens: Tokens = 0
    prompt_tokens: Tokens = 0
    tier: str = ""
    tenant: str = ""
    request_id: str = ""
    model: str = ""
    priority: int = 0
    grows: bool = False
    answers_raise: int = 0  # the number of the raise that this answers; 0: none


@value
class WantedClaim:
    """A claim that asks to grow to this whole size. At its present limit its sequence waits."""

    claim: Claim
    blocks: Blocks


@value
class EndedClaim:
    """A claim that the worker holds no longer."""

    claim: Claim
    reason: EndReason
    prompt_tokens: Tokens = 0
    output_tokens: Tokens = 0
    first_token: Seconds | None = None  # since its start came to the worker; `None`: there was none
    total: Seconds | None = None  # likewise, to its last word

    def tpot(self, choices: int, produced: Tokens) -> Seconds | None:
        """Mean time per output token after this attempt's first; `None`: too few came, or nobody said when.

        Args:
            produced: of `output_tokens`, those that earlier attempts made.
        """
        later = self.output_tokens / choices - produced - 1
        if self.first_token is None or self.total is None or later <= 0:
            return None
        return (self.total - self.first_token) / later


@value
class Report:
    """One message up a link. Read in the order held, ended, wants."""

    number: int
    full: bool
    uptime: Seconds
    used_blocks: Blocks
    used_slots: Slots
    foreign_blocks: Blocks = 0
    foreign_slots: Slots = 0
    held: tuple[HeldClaim, ...] = ()
    ended: tuple[EndedClaim, ...] = ()
    wants: tuple[WantedClaim, ...] = ()
    facts: WorkerFacts | None = None
    observed_blocks: Blocks | None = None
    draining: bool = False
    engine_problem: str = ""  # empty: the engine answers
    engine_alarm: str = ""  # what is wrong with it all the same, for people; empty: nothing is known of it
    peak_blocks: Blocks = 0
    peak_slots: Slots = 0
    prefill_tokens: Tokens = 0  # prompt tokens of all that is held and whose first token is not out
    foreign_prefill_tokens: Tokens = 0
    pinned_blocks: Blocks = 0  # resident prefix blocks that any live claim uses, each counted once
    stored: tuple[
        BlockHash, ...
    ] = ()  # prefix blocks resident since the last report; in a full one, all of them
    removed: tuple[BlockHash, ...] = ()  # and those that were evicted
    residency_problem: str = ""  # why `stored` and `removed` are not to be believed now; empty: they are


# What can happen.


@value
class Asked:
    key: AskKey
    ask: Ask


@value
class Withdrawn:
    key: AskKey


@value
class SessionEnded:
    session: int


@value
class Reported:
    worker: str
    report: Report


@value
class LinkLost:
    worker: str
    problem: str = ""


@value
class RulesChanged:
    rules: Rules


@value
class Ticked:
    """Time has passed; whatever is due by now happens."""


Event: TypeAlias = Asked | Withdrawn | SessionEnded | Reported | LinkLost | RulesChanged | Ticked


# What can be answered.


class Why(StrEnum):
    """Why a request is refused. The router maps each to a gRPC code; clients read it as the reason."""

    UNKNOWN_MODEL = "UNKNOWN_MODEL"
    UNKNOWN_TIER = "UNKNOWN_TIER"
    UNKNOWN_KEY = "UNKNOWN_KEY"
    TIER_NOT_ALLOWED = "TIER_NOT_ALLOWED"
    REQUEST_INVALID = "REQUEST_INVALID"
    REQUEST_TOO_LARGE = "REQUEST_TOO_LARGE"
    NO_WORKER = "NO_WORKER"
    NOT_PLACEABLE = "NOT_PLACEABLE"
    QUEUE_FULL = "QUEUE_FULL"
    QUEUED_TOO_LONG = "QUEUED_TOO_LONG"
    TOO_LATE = "TOO_LATE"
    DEADLINE_PASSED = "DEADLINE_PASSED"
    REFUSED_TOO_OFTEN = "REFUSED_TOO_OFTEN"
    NEVER_STARTED = "NEVER_STARTED"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"  # the tenant has used up its tokens per minute
    QUOTA_TOO_SMALL = "QUOTA_TOO_SMALL"  # the request alone is beyond the tenant's blocks
    GAVE_WAY = "GAVE_WAY"  # to others: asked for again, it goes on


@value
class Refusal:
    """A refusal's words and numbers. `retry_after` None: trying again will not help."""

    why: Why
    message: str
    retry_after: Seconds | None = None
    numbers: Mapping[str, str] = field(default_factory=dict)


@value
class Queued:
    key: AskKey
    position: int


@value
class Granted:
    """Room on a worker. `start_by` is on the worker's own clock, `queued` from ask to grant."""

    key: AskKey
    claim: Claim
    worker: WorkerFacts
    request_id: str
    blocks: Blocks
    slots: Slots
    max_tokens: Tokens
    tier: str
    tenant: str
    priority: int
    choices: int
    start_by: Seconds
    queued: Seconds
    cached: Blocks = 0  # leading blocks of the prompt that it counts on finding resident
    predicted_ttft: Seconds | None = None  # from the first ask; `None`: nothing is known of the worker
    predicted_tpot: Seconds | None = None
    degraded_from: str = ""  # the tier that was asked for, where it is another
    grows: bool = False  # `blocks` is less than it may come to need: the worker asks for more in time
    salt: int = 0  # its tenant's, under which its prefix blocks are kept; 0: none


@value
class Refused:
    """`model` and `tier`: those that were asked for; "" where the ask named none that there is."""

    key: AskKey
    refusal: Refusal
    model: str = ""
    tier: str = ""


@value
class Revoked:
    key: AskKey
    claim: Claim
    refusal: Refusal


@value
class StopClaim:
    worker: str
    claim: Claim
    reason: EndReason
    refusal: Refusal


@value
class RaiseClaim:
    """The worker may let a claim grow to this whole size; one `held` answers, and names the number."""

    worker: str
    claim: Claim
    blocks: Blocks
    number: int


@value
class Redial:
    """Reports are missing: the link is to be opened anew."""

    worker: str
    reason: str


@value
class Served:
    """A request that ran is over: nothing is left to do, this is what became of its promise.

    Times are on the router's clock, in seconds. `tpot` None: fewer than two tokens came, or the worker did
    not say; `ttft` None: none came. `met`: whether it met every target of the tier that was asked for.
    """

    request_id: str
    model: str
    tier: str
    tenant: str
    worker: WorkerFacts
    reason: EndReason
    prompt_tokens: Tokens
    output_tokens: Tokens
    queued: Seconds
    ttft: Seconds | None
    tpot: Seconds | None
    e2e: Seconds
    met: bool
    predicted_ttft: Seconds | None = None
    degraded_from: str = ""
    claim: Claim | None = None  # its last one: the edge finds by it what it keeps of the request


Decision: TypeAlias = Queued | Granted | Refused | Revoked | StopClaim | RaiseClaim | Redial | Served
