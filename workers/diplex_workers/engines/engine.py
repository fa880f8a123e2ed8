"""What a worker asks of an engine, and what an engine tells its worker.

An engine computes tokens and knows nothing of grants, leases or routers; the worker knows those and
nothing of how tokens come about. A new engine is one file beside this one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from diplex.v1 import generation_pb2 as pb
from diplex.wire.status import Problem
from diplex_core.words import Blocks, Claim, EndReason, Slots, Tokens
from diplex_workers.residency import BlockEvent


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model that the engine serves, under the name that clients use."""

    name: str
    has_chat_template: bool = True
    tokenizer_hash: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the engine is, known once it is ready. The pool is counted in these figures.

    `guard_blocks` are never promised; `context` is the longest prompt plus output in tokens;
    `time_scale` is how many simulated seconds pass in a real one (1.0 on real engines);
    `prefill_budget_tokens` is 0 where no fixed figure bounds what an iteration reads; `draft_tokens` are
    drafted ahead in each step, and every sequence holds room for them. `profile`, `weights` and `kv_cache`
    name the model's performance figures, "" where they are not known.

    `can_grow`: its jobs may begin with a limit, and `can_pause`: at it they wait for a higher one. One that
    cannot pause is cancelled there by its worker, so it must be able to go on behind given output.

    `keeps_prefixes`: what it has read of a prompt stays for others, for as long as the pool has room, and it
    goes by its worker's word of what is there (`Job.cached`). `tells_prefixes`: it keeps its own account of
    prefix blocks, under the names that clients use, and tells of each change.
    """

    kind: str
    models: tuple[ModelFacts, ...]
    block_tokens: Tokens
    capacity_blocks: Blocks
    capacity_slots: Slots
    context: Tokens
    version: str = ""
    guard_blocks: Blocks = 0
    simulated: bool = False
    calibration: str = ""
    can_resume: bool = True
    can_grow: bool = False
    can_pause: bool = False
    keeps_prefixes: bool = False
    tells_prefixes: bool = False
    time_scale: float = 1.0
    prefill_budget_tokens: Tokens = 0
    draft_tokens: Tokens = 0
    profile: str = ""
    weights: str = ""
    kv_cache: str = ""


@dataclass(frozen=True, slots=True)
class Counted:
    """A prompt's length. Not `exact`: an upper bound, because the engine would not say."""

    tokens: Tokens
    exact: bool = True
    ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A request that the worker has room for. `resume` holds output of an earlier attempt, or nothing.

    `limit`: prompt and output tokens, together, that there is room for now; 0: for all that it may come to.
    `cached`: leading prompt tokens that lie in resident blocks, beside those of the claim: they need not be
    read. `salt`: what its prefix blocks are kept under, for its tenant alone; 0: they are shared.
    """

    claim: Claim
    model: str
    prompt: pb.Prompt
    counted: Counted
    sampling: pb.Sampling
    max_tokens: Tokens
    choices: int = 1
    resume: pb.Resume | None = None
    priority: int = 0
    limit: Tokens = 0
    cached: Tokens = 0
    salt: int = 0


@dataclass(slots=True)  # a value like the others; frozen, one a token costs a microsecond more
class Output:
    """News of one choice of one job: `count` new tokens (their ids where the engine tells them).

    `end` set: the choice's last word. An engine whose job was cancelled says CANCELLED for each choice
    that was still running, once the engine's memory for it is free; only then does the worker free
    the claim. `problem` goes with FAILED and REFUSED.
    """

    claim: Claim
    choice: int = 0
    count: Tokens = 0
    ids: tuple[int, ...] = ()
    text: str = ""
    end: EndReason | None = None
    problem: Problem | None = None
    cached_tokens: Tokens = 0


class Host(Protocol):
    """The worker as the engine sees it. Called on the event loop, never from another thread."""

    def ready(self, facts: Facts) -> None:
        """The engine takes jobs from now on; said again when it came back after `unready`."""

    def unready(self, problem: str) -> None:
        """The engine does not answer, for a reason that a user may read. Its jobs are told FAILED."""

    def ailing(self, problem: str) -> None:
        """The engine answers, and is not to be trusted with more, for a reason that a user may read: what
        runs may end, nothing new is taken. Until `ready` or `unready`."""

    def deliver(self, outputs: Sequence[Output]) -> None:
        """News of one engine iteration, all sequences in one call: it becomes one frame a stream."""

    def prefilling(self, claim: Claim) -> None:
        """The engine begins to read this job's prompt: where queueing in the engine ends."""

    def kept(self, event: BlockEvent) -> None:
        """The engine keeps other prefix blocks than before; said by one that `tells_prefixes`."""


class Engine(Protocol):
    """One engine and its KV cache."""

    async def serve(self, host: Host) -> None:
        """Run until cancelled; owns every task and process that the engine needs, and ends them."""

    async def count(self, model: str, prompt: pb.Prompt) -> Counted:
        """The prompt's tokens, chat template included.

        Raises:
            Problem: INVALID_ARGUMENT for a prompt that the engine cannot read.
        """

    def submit(self, job: Job) -> None:
        """Start a job; its outputs come through the host. Never blocks, never raises for a bad job:
        that is an Output with FAILED."""

    def cancel(self, claim: Claim) -> None:
        """Stop a job as soon as may be. Unknown or ended claims are ignored."""

    def limit(self, claim: Claim, tokens: Tokens) -> None:
        """A job's limit is higher from now on: where it waited at the old one, it goes on. Unknown or ended
        claims are ignored, and so is all of this by an engine that cannot pause."""

    def observed_blocks(self) -> Blocks | None:
        """Blocks in use by the engine's own account; `None` where it does not tell."""

    def slots_now(self) -> Slots | None:
        """Sequences that the engine runs now, by its own account; `None` where it does not tell."""
