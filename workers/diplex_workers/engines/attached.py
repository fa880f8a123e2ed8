"""What `attach` asks of a server that somebody started: over OpenAI's HTTP, or over gRPC. A file each."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Protocol, Self, TypeAlias

from diplex.v1 import generation_pb2 as pb
from diplex_core.words import Blocks, Seconds, Slots, Tokens
from diplex_workers.engines.dialects.dialect import Gauges, Offered
from diplex_workers.engines.engine import Output
from diplex_workers.engines.runs import Run

HttpApi: TypeAlias = Literal["openai", "vllm", "sglang", "trtllm", "llamacpp", "triton"]
GrpcApi: TypeAlias = Literal["vllm-grpc", "sglang-grpc", "trtllm-grpc"]


@dataclass(frozen=True, slots=True)
class AttachSettings:
    """One attached server. What is `None` is asked of it, and an error where it does not say.

    Args:
        url: where it listens: `http://…`, with or without `/v1`, or `grpc://host:port`.
        model: the name that clients use.
        upstream_model: the server's own name for it; `None`: `model` if it has that, else its only one.
        api: whose server it is; `openai`: any other, of which nothing more is known.
        capacity_blocks: KV blocks that diplex may fill; not more than the server has.
        slots: sequences at once; `None` where the server does not say either: 64.
        context: longest prompt plus output in tokens.
        guard_blocks: never promised, because this account is not the server's own; `None`: a 32nd.
        priorities: it goes by priorities, so tell it the tier's; `None`: where it says that it does.
        stall: it hangs, if it computes nothing for so long though it has work; above the longest prefill.
        check_kv: take it out of service while its word on its KV cache cannot be true.
        events, replay: where it publishes its KV events, and where missing ones are asked for (ZeroMQ
            addresses, vLLM's and SGLang's); "": it does not.
        events_topic: what it publishes them under.
        tokenizer: folder or `tokenizer.json` of the model, for a gRPC server; `None`: its server has it.
    """

    url: str
    model: str
    upstream_model: str | None = None
    api: HttpApi | GrpcApi = "openai"
    capacity_blocks: Blocks | None = None
    block_tokens: Tokens | None = None
    slots: Slots | None = None
    context: Tokens | None = None
    guard_blocks: Blocks | None = None
    api_key: str | None = field(default=None, repr=False)
    priorities: bool | None = None
    stall: Seconds = 60.0
    check_kv: bool = True
    events: str = ""
    replay: str = ""
    events_topic: str = ""
    tokenizer: str | None = None


class Teller(Protocol):
    """Who is told what a server computes."""

    def deliver(self, outputs: Sequence[Output]) -> None: ...


class Server(Protocol):
    """One attached server. An async context: leaving it closes every connection.

    Attributes:
        name: what messages call it: no secret is in it.
        exact: its gauge of used KV follows what it holds, so that one that does not is wrong.
        can_resume: it goes on behind given output.
        priority_flag: how it is told to go by priorities; "": it cannot.
        sooner: the sign of what it then serves first, where it does not say whether it was told; 0: it says.
    """

    name: str
    exact: bool
    can_resume: bool
    priority_flag: str
    sooner: int

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def alive(self) -> None:
        """Return if it answers; soon in any case.

        Raises:
            Problem: UNAVAILABLE, it does not.
        """

    async def introduced(self) -> Offered:
        """What it is. Raises as `alive` does, FAILED_PRECONDITION where it has not the model."""

    async def proved(self) -> None:
        """Return once it has computed one token: that it listens says little. Raises as `alive` does."""

    async def gauges(self) -> Gauges: ...

    async def count(self, prompt: pb.Prompt) -> tuple[Tokens, tuple[int, ...] | None] | None:
        """A prompt's exact tokens, and their ids where they are known; `None`: it has no tokenizer.

        Raises:
            Problem: INVALID_ARGUMENT, the prompt cannot be read.
        """

    async def talk(self, run: Run, host: Teller, priority: int | None) -> Tokens | None:
        """Ask for a job's tokens and hand them to the host until its end; the prompt's tokens by its count.

        Raises:
            Problem: what became of it instead.
        """
