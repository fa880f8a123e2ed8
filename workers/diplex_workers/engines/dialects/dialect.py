"""What every OpenAI-compatible server has in common: the part of the interface that OpenAI wrote down."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Final

from grpc import StatusCode

from diplex.v1 import generation_pb2 as pb
from diplex.wire.status import Problem
from diplex_core.words import Slots, Tokens
from diplex_workers.engines.openai_http import Upstream

# diplex.v1.Sampling's fields as OpenAI's API names them.
STANDARD: Final = MappingProxyType(
    {
        name: name
        for name in (
            "temperature",
            "top_p",
            "seed",
            "stop",
            "presence_penalty",
            "frequency_penalty",
            "response_format",
            "logit_bias",
        )
    }
)


@dataclass(frozen=True, slots=True)
class Offered:
    """What a server says of itself; `None`: it does not say.

    Attributes:
        capacity: its KV cache, in tokens.
        priority: what a tier's priority is multiplied by to be this server's own: 1 where it serves higher
            numbers first, -1 where lower ones; 0: it serves whoever came first.
    """

    capacity: Tokens | None = None
    block_tokens: Tokens | None = None
    slots: Slots | None = None
    context: Tokens | None = None
    version: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Gauges:
    """What it says of this moment; `None`: it does not say.

    Attributes:
        used: share of its KV cache that sequences hold, 0 to 1; what it merely keeps for reuse is free.
        running, waiting: sequences that it computes, and those that it keeps in a queue of its own.
        preempted: sequences that it stopped in the middle since it started, to give others their room.
    """

    used: float | None = None
    running: Slots | None = None
    waiting: Slots | None = None
    preempted: int | None = None


def whole(value: float | None) -> int | None:
    """A gauge that counts things."""
    return None if value is None else int(value)


async def page(upstream: Upstream, path: str) -> str:
    """A page that not every server has, or has switched on: "" where it answers, but not with that.

    Raises:
        Problem: UNAVAILABLE, it does not answer at all.
    """
    try:
        return await upstream.get_text(path)
    except Problem as problem:
        if problem.code is StatusCode.UNAVAILABLE:
            raise
        return ""


class Dialect:
    """A server of which nothing is known but OpenAI's API; base of those of which more is."""

    api: ClassVar[str] = "openai"
    health: ClassVar[str] = "/v1/models"
    # Sampling fields that it takes, under its own names; others are refused by name.
    sampling: ClassVar[Mapping[str, str]] = STANDARD
    # Added to every request, and to those that bring tools.
    extra: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    with_tools: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    # The field of a request in which it takes a priority ("": none), and how its server is told to go by it.
    priority: ClassVar[str] = ""
    priority_flag: ClassVar[str] = ""
    # The sign of what it then serves first, where it does not say whether it was told (`Offered.priority`).
    sooner: ClassVar[int] = 0
    # The field in which it takes what a tenant's prefix blocks are kept under; "": none.
    salt: ClassVar[str] = ""
    # `Gauges.used` follows what it holds from step to step, so that one that does not is wrong.
    exact: ClassVar[bool] = False

    async def offered(self, upstream: Upstream, model: Mapping[str, Any]) -> Offered:
        """What it is, from its entry in `/v1/models` and whatever else it has.

        Raises:
            Problem: it went away, or answers with an error where it must answer.
        """
        return Offered(context=model.get("max_model_len"))

    async def gauges(self, upstream: Upstream) -> Gauges:
        """Where it is now. Raises as `offered` does."""
        return Gauges()

    def produced(self, chunk: Mapping[str, Any]) -> Tokens | None:
        """Tokens of an answer so far, where each chunk of a single choice says so."""
        return None

    async def count(self, upstream: Upstream, model: str, prompt: pb.Prompt) -> Tokens | None:
        """A prompt's exact tokens, template included; `None`: it has no tokenizer to ask.

        Raises:
            Problem: INVALID_ARGUMENT for a prompt that it cannot read; others where it could not be asked.
        """
        return None
