"""What a user gets back: plain frozen values, in seconds and tokens."""

from dataclasses import dataclass

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2


@dataclass(frozen=True, slots=True)
class Serving:
    """Who serves a request. `max_tokens` is what the tier's cap left of the wish; `queue_ms` is from ask
    to grant, on the router's clock."""

    request_id: str
    worker: str
    package: str
    pattern: str
    engine: str
    simulated: bool
    tier: str
    tenant: str
    max_tokens: int
    queue_ms: float

    @classmethod
    def of(cls, granted: router_pb2.Granted, grant: pb.Grant) -> "Serving":
        return cls(
            request_id=grant.request_id,
            worker=grant.worker,
            package=granted.package,
            pattern=granted.pattern,
            engine=granted.engine,
            simulated=granted.simulated,
            tier=grant.tier,
            tenant=grant.tenant,
            max_tokens=grant.max_tokens,
            queue_ms=granted.queue_ms,
        )


@dataclass(frozen=True, slots=True)
class Chunk:
    """New output of one choice: `count` tokens from place `index` on; `ids` where the engine tells them.

    A reader that keeps up gets every token by itself; one that lags finds what gathered in one chunk.
    `preemptions`: how often the request had given way to others before the last of these tokens came.
    """

    text: str
    ids: tuple[int, ...]
    choice: int
    index: int
    count: int
    preemptions: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens read and written, over all choices; `cached_tokens` of the prompt were resident already."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Timing:
    """The worker's own clock, in seconds from the start's arrival there; `None`: it never came to that."""

    prefill_began_s: float | None
    first_token_s: float | None
    total_s: float | None

    @classmethod
    def of(cls, timing: pb.Timing) -> "Timing":
        return cls(
            timing.prefill_began_ms / 1000 if timing.HasField("prefill_began_ms") else None,
            timing.first_token_ms / 1000 if timing.HasField("first_token_ms") else None,
            timing.total_ms / 1000 if timing.HasField("total_ms") else None,
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a request's `n` answers. `finish_reason`: stop, length, or why it was cut short."""

    text: str
    ids: tuple[int, ...]
    finish_reason: str


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer. `ttft_s` (ask to first token), `e2e_s` and `tokens_per_s` are on the caller's clock;
    `tokens_per_s` counts from the first token to the last and is `None` for fewer than two. `preemptions`: so
    often the request gave way to others, and went on elsewhere with nothing lost."""

    request_id: str
    choices: tuple[Choice, ...]
    finish_reason: str
    usage: Usage
    timing: Timing
    serving: Serving | None
    ttft_s: float | None
    e2e_s: float
    tokens_per_s: float | None
    preemptions: int = 0

    @property
    def text(self) -> str:
        return self.choices[0].text

    @property
    def ids(self) -> tuple[int, ...]:
        return self.choices[0].ids

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(choice.text for choice in self.choices)

    @property
    def finish_reasons(self) -> tuple[str, ...]:
        return tuple(choice.finish_reason for choice in self.choices)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that the router knows. `context` is prompt plus output in tokens; `workers` serve it now;
    `default` marks the one that a request without a name gets."""

    name: str
    context: int
    simulated: bool
    has_chat_template: bool
    tokenizer_hash: str
    workers: int
    default: bool

    @classmethod
    def of(cls, model: pb.Model, default_model: str) -> "ModelInfo":
        return cls(
            name=model.name,
            context=model.context,
            simulated=model.simulated,
            has_chat_template=model.has_chat_template,
            tokenizer_hash=model.tokenizer_hash,
            workers=model.workers,
            default=model.name == default_model,
        )


@dataclass(frozen=True, slots=True)
class TokenCount:
    """A prompt's tokens; not `exact`: an upper bound."""

    tokens: int
    exact: bool
