"""What a configuration says, as frozen values: what the parts of a deployment are started from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Final, Literal, TypeAlias

from diplex_core.words import Blocks, Pattern, Rules, Seconds, Slots, Tokens

Api: TypeAlias = Literal[
    "openai", "vllm", "sglang", "trtllm", "llamacpp", "triton", "vllm-grpc", "sglang-grpc", "trtllm-grpc"
]

EVERYWHERE: Final = MappingProxyType({"0.0.0.0": "127.0.0.1", "::": "::1"})
"""Hosts that mean every address of a machine, and the loopback address that each includes."""

METRICS_ABOVE: Final = 100
"""A worker's metrics port is this far above its gRPC port."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A model under the name that clients use, and what is known of it; "": not said."""

    name: str
    profile: str = ""
    weights: str = ""
    kv_cache: str = ""
    tokenizer: str = ""


@dataclass(frozen=True, slots=True)
class SimConfig:
    """A simulated engine. `time_scale` simulated seconds pass in a real one."""

    kind: ClassVar[str] = "sim"
    calibration: str
    time_scale: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class LlamaCppConfig:
    """llama.cpp's server, started by its worker. `None`: the engine's own choice."""

    kind: ClassVar[str] = "llamacpp"
    weights: str
    threads: int | None = None
    context: Tokens | None = None
    niceness: int | None = None


@dataclass(frozen=True, slots=True)
class LaunchConfig:
    """How a worker starts the server that it attaches to. One of `checkpoint` and `command` is there.

    Attributes:
        args: words behind the command.
        placement, serve: `None`: by pattern and GPU, and by tiers.
        ready_within, silent, drain: seconds in which it must serve, after which one that serves and then
            does not answer is ended, and that it has to end by itself.
    """

    checkpoint: str | None = None
    command: tuple[str, ...] | None = None
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    draft: str | None = None
    placement: str | None = None
    devices: tuple[str, ...] = ()
    serve: str | None = None
    ready_within: Seconds = 1800.0
    silent: Seconds = 30.0
    drain: Seconds = 20.0


@dataclass(frozen=True, slots=True)
class AttachConfig:
    """A server that answers OpenAI's API at `url`. `None`: asked of the server, or the
    engine's own choice.

    Attributes:
        priorities: the tier's priority becomes the server's own.
        stall_s: without a token for so long, though it has work, it hangs.
        events_url, replay_url, events_topic: where it publishes its KV events, and missing ones can be had.
        check_kv: out of service while its word on its KV cache cannot be true.
    """

    kind: ClassVar[str] = "attach"
    api: Api
    url: str
    upstream_model: str | None = None
    api_key_env: str | None = None
    context: Tokens | None = None
    guard_blocks: Blocks | None = None
    launch: LaunchConfig | None = None
    priorities: bool | None = None
    stall_s: Seconds | None = None
    check_kv: bool | None = None
    events_url: str | None = None
    replay_url: str | None = None
    events_topic: str | None = None


@dataclass(frozen=True, slots=True)
class TrtLlmConfig:
    """TensorRT-LLM in its worker's process. `None`: the engine's own choice."""

    kind: ClassVar[str] = "trtllm"
    checkpoint: str
    draft_checkpoint: str | None = None
    tensor_parallel: int | None = None
    context: Tokens | None = None
    kv_share: float | None = None
    guard_blocks: Blocks | None = None
    placement: str | None = None
    devices: tuple[str, ...] | None = None


EngineConfig: TypeAlias = SimConfig | LlamaCppConfig | AttachConfig | TrtLlmConfig


@dataclass(frozen=True, slots=True)
class Draft:
    """What speculates ahead of the target: `tokens` in each step."""

    model: str
    tokens: Tokens


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """One worker around one engine: a package, or one die of a package in pattern B.

    `url`: host:port of a worker that runs already. `None` for sizes: the engine's own.
    """

    name: str
    package: str
    gpu: str
    pattern: Pattern
    dies: tuple[int, ...]
    model: ModelConfig
    engine: EngineConfig
    host: str
    port: int
    tiers: tuple[str, ...] = ()
    url: str | None = None
    advertise: str | None = None
    draft: Draft | None = None
    prefill_budget: Tokens | None = None
    slots: Slots | None = None
    kv_blocks: Blocks | None = None
    block_tokens: Tokens | None = None
    open: bool = False

    @property
    def spawned(self) -> bool:
        """Whether `diplex up` starts it."""
        return self.url is None

    @property
    def metrics_port(self) -> int:
        return self.port + METRICS_ABOVE

    @property
    def address(self) -> str:
        """host:port where routers and clients reach it."""
        return self.url or self.advertise or reachable(self.host, self.port)


@dataclass(frozen=True, slots=True)
class RouterConfig:
    name: str
    host: str
    port: int
    metrics_port: int

    @property
    def address(self) -> str:
        return reachable(self.host, self.port)


@dataclass(frozen=True, slots=True)
class RestConfig:
    """The shim, and the host:port of the router that it speaks to. `processes` None: by the cores."""

    host: str
    port: int
    router: str
    processes: int | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration, checked. Workers are in the file's order."""

    models: Mapping[str, ModelConfig]
    workers: tuple[WorkerConfig, ...]
    rules: Rules
    router: RouterConfig
    rest: RestConfig
    grants_key_env: str | None = None
    grants_key_file: str | None = None

    def worker(self, name: str) -> WorkerConfig | None:
        return next((worker for worker in self.workers if worker.name == name), None)


def reachable(host: str, port: int) -> str:
    """Where a server that listens on this host is reached from the same machine.

    >>> reachable("0.0.0.0", 7600), reachable("::1", 7600)
    ('127.0.0.1:7600', '[::1]:7600')
    """
    host = EVERYWHERE.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
