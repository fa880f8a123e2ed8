"""One request on this worker: its claim, its client, what it has said and may say."""

from collections.abc import Sequence as Several
from dataclasses import dataclass, field
from typing import NamedTuple

from diplex.v1 import generation_pb2 as pb
from diplex.wire.status import Problem
from diplex_core.words import BlockHash, Blocks, Claim, EndReason, Seconds, Tokens
from diplex_workers.claims import ON_WIRE, claim_on_wire
from diplex_workers.clock import Alarm
from diplex_workers.engines.engine import Counted, Output
from diplex_workers.stream import TokenStream


class Verdict(NamedTuple):
    """How a sequence is to end once its engine has let go of it."""

    reason: EndReason
    problem: Problem | None = None


@dataclass(slots=True)
class Tally:
    """What the sequences of one model and tier came to, since the worker started."""

    output_tokens: Tokens = 0
    prompt_tokens: Tokens = 0
    ended: dict[EndReason, int] = field(default_factory=dict)


@dataclass(slots=True)
class Held:
    """Tokens that wait for their window to open."""

    index: Tokens
    count: Tokens
    ids: Several[int]
    text: str


@dataclass(slots=True, eq=False)
class Sequence:
    """From its start to its `done`.

    Attributes:
        owner: the router that granted it; "" for one that came without a grant.
        max_tokens: most tokens of each choice's whole output, earlier attempts' included.
        arrived: when its start came; the durations in `timing` count from here.
        counted: `None` until the engine has told the prompt's length.
        index: for each choice the index of its next token.
        reasons: for each choice why it ended; `None` while it runs.
        let_go: for each choice whether the engine has said its last word; only then is its memory free.
        problem: what the engine said of a failure.
        upto: tokens below this index may be sent; 0: no bound.
        hits, own: the leading blocks of its prompt that it shares with what was resident, and those behind
            them, by the names that its client has for them.
        cached: prompt tokens that lie in its hits.
        grows: its claim holds less than it may come to need (see `growing`).
        limit: prompt and output tokens, together, that its claim has room for; 0: it holds all it may need.
        asks_at: from so many tokens on it asks for more.
        wanted: the whole size that it has asked to grow to; 0: it does not ask.
        verdict: set when somebody wants it ended; the engine's last word is still awaited.
        over: its claim is free; only tokens that its window holds back, and `done`, are left to say.
    """

    claim: Claim
    owner: str
    stream: TokenStream
    seq: int
    request_id: str
    model: str
    tier: str
    tenant: str
    priority: int
    choices: int
    max_tokens: Tokens
    prompt: pb.Prompt
    sampling: pb.Sampling
    resume: pb.Resume | None
    arrived: Seconds
    tally: Tally
    upto: Tokens = 0
    hits: tuple[BlockHash, ...] = ()
    own: tuple[BlockHash, ...] = ()
    salt: int = 0
    cached: Tokens = 0
    grows: bool = False
    limit: Tokens = 0
    asks_at: Tokens = 0
    wanted: Blocks = 0
    traceparent: str = ""
    tracestate: str = ""
    counted: Counted | None = None
    cached_tokens: Tokens = 0
    submitted: bool = False
    prefill_began: Seconds | None = None
    first_token: Seconds | None = None
    ended: Seconds | None = None
    verdict: Verdict | None = None
    problem: Problem | None = None
    over: bool = False
    last_word: pb.Done | None = None
    deadline_alarm: Alarm | None = None
    window_alarm: Alarm | None = None
    index: list[Tokens] = field(default_factory=list)
    reasons: list[EndReason | None] = field(default_factory=list)
    let_go: list[bool] = field(default_factory=list)
    held_back: dict[int, list[Held]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.index = [self.from_index] * self.choices
        self.reasons = [None] * self.choices
        self.let_go = [False] * self.choices

    @property
    def from_index(self) -> Tokens:
        return self.resume.from_index if self.resume is not None else 0

    @property
    def prompt_tokens(self) -> Tokens:
        return self.counted.tokens if self.counted is not None else 0

    @property
    def to_read(self) -> Tokens:
        """What this attempt reads: the prompt, and the output of earlier ones."""
        return self.prompt_tokens + self.from_index

    @property
    def length(self) -> Tokens:
        """Prompt and output tokens so far, of the longest choice."""
        return self.prompt_tokens + max(self.index)

    @property
    def produced(self) -> Tokens:
        """Tokens of all choices, earlier attempts' included."""
        return sum(self.index)

    @property
    def tpot(self) -> Seconds | None:
        """Mean time per output token after this attempt's first, of the longest choice; `None`: no such."""
        if self.first_token is None or self.ended is None or self.ended <= self.first_token:
            return None
        later = max(index - self.from_index for index in self.index) - 1
        return (self.ended - self.first_token) / later if later > 0 else None

    @property
    def silenced(self) -> bool:
        """Nothing more of its output is wanted. Preempted output is: the next attempt goes on behind it."""
        return self.verdict is not None and self.verdict.reason is not EndReason.PREEMPTED

    def say(self, output: Output) -> bool:
        """Send an output's tokens, or hold them back for the window.

        Returns:
            False: the engine goes on beyond `max_tokens`; what is too much is dropped.
        """
        choice, count, ids = output.choice, output.count, output.ids
        index = self.index[choice]
        if too_many := index + count - self.max_tokens > 0:
            count = self.max_tokens - index
            ids = ids[:count]
            if not count:
                return False
        self.index[choice] = index + count
        self.tally.output_tokens += count
        if self.upto and (choice in self.held_back or index + count > self.upto):
            self.held_back.setdefault(choice, []).append(Held(index, count, ids, output.text))
        else:
            self.stream.tokens(self.seq, choice, index, count, ids, output.text)
        return not too_many

    def open_window(self, upto: Tokens) -> bool:
        """Send what a moved window lets through; True: that was something."""
        self.upto = upto
        moved = False
        for choice, waiting in list(self.held_back.items()):
            sent = 0
            for held in waiting:
                if upto and held.index + held.count > upto:
                    break
                self.stream.tokens(self.seq, choice, held.index, held.count, held.ids, held.text)
                sent += 1
            del waiting[:sent]
            if not waiting:
                del self.held_back[choice]
            moved = moved or sent > 0
        return moved

    def usage(self) -> pb.Usage:
        return pb.Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.produced,
            cached_tokens=self.cached_tokens,
        )

    def timing(self) -> pb.Timing:
        def since_arrival(moment: Seconds | None) -> float | None:
            return None if moment is None else (moment - self.arrived) * 1000

        return pb.Timing(
            prefill_began_ms=since_arrival(self.prefill_began),
            first_token_ms=since_arrival(self.first_token),
            total_ms=since_arrival(self.ended),
        )

    def done(self, verdict: Verdict) -> pb.Done:
        """The last word on it; refusals add their figures."""
        return pb.Done(
            seq=self.seq,
            reason=ON_WIRE[verdict.reason],
            usage=self.usage(),
            timing=self.timing(),
            error=verdict.problem.to_bytes() if verdict.problem is not None else b"",
            prompt_tokens=self.prompt_tokens,
            choice_reasons=[ON_WIRE[reason or verdict.reason] for reason in self.reasons],
            claim=claim_on_wire(self.claim),
        )
