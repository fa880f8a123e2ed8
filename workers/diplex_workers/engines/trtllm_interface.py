"""What diplex takes from TensorRT-LLM's Python package, and nothing beside: names.toml has each name.

The package is imported when an engine starts, never before. What a version has is asked of its own objects
(`accepts`), not guessed from its number: 1.0 to 1.2 and the 1.3 candidates differ in arguments, not in shape.
"""

import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, Protocol, TypedDict, cast

_PACKAGE: Final = "tensorrt_llm"
_API: Final = "tensorrt_llm.llmapi"
_ARGUMENTS: Final = "tensorrt_llm.llmapi.llm_args"


class CompletionOutput(Protocol):
    """One choice, so far: text and ids are the whole of it, each time."""

    index: int
    text: str
    token_ids: Sequence[int] | None
    finish_reason: str | None


class RequestOutput(Protocol):
    """A request under way: iterating over it waits for the next step, and yields itself."""

    @property
    def outputs(self) -> Sequence[CompletionOutput]: ...

    def abort(self) -> None: ...

    def __aiter__(self) -> AsyncIterator["RequestOutput"]: ...


class Tokenizer(Protocol):
    """Transformers' tokenizer, as TensorRT-LLM wraps it."""

    def encode(self, text: str, *, add_special_tokens: bool) -> Sequence[int]: ...

    def decode(self, token_ids: Sequence[int]) -> str: ...

    def apply_chat_template(
        self,
        conversation: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None,
        add_generation_prompt: bool,
        tokenize: bool,
    ) -> str: ...


class KvCacheStats(TypedDict, total=False):
    maxNumBlocks: int
    usedNumBlocks: int
    tokensPerBlock: int


class IterationStats(TypedDict, total=False):
    """One iteration; newer versions say more."""

    numActiveRequests: int
    numQueuedRequests: int
    kvCacheStats: KvCacheStats


class UniqueToken(TypedDict):
    token_id: int


class StoredBlock(TypedDict):
    block_hash: int | str
    tokens: Sequence[UniqueToken]
    cache_level: int


class Difference(TypedDict):
    new_value: int


class EventData(TypedDict, total=False):
    """`type` says which of the others are there: created, stored, removed, updated."""

    type: str
    num_blocks_per_cache_level: Sequence[int]
    parent_hash: int | str | None
    blocks: Sequence[StoredBlock]
    block_hashes: Sequence[int | str]
    block_hash: int | str
    cache_level: Difference | None


class KvEvent(TypedDict, total=False):
    event_id: int
    data: EventData
    window_size: int
    attention_dp_rank: int


class LLM(Protocol):
    """One engine, on as many devices as it was told to take."""

    @property
    def tokenizer(self) -> Tokenizer | None: ...

    def generate_async(
        self, inputs: Sequence[int], sampling_params: object, *, streaming: bool, **newer: Any
    ) -> RequestOutput: ...

    def get_stats_async(self, timeout: float) -> AsyncIterator[IterationStats]: ...

    def get_kv_cache_events_async(self, timeout: float) -> AsyncIterator[KvEvent]: ...

    def shutdown(self) -> None: ...


Made = Callable[..., Any]
"""A class of the package's; its arguments are written as dicts, whose keys are held to the list."""


@dataclass(frozen=True, slots=True)
class Package:
    """The installed package. What is `None`, this version does not have."""

    version: str
    llm: Callable[..., LLM]
    arguments: Made
    sampling: Made
    guided: Made
    kv_cache: Made
    scheduler: Made
    retention: Any
    draft_target: Made
    eagle: Made

    @property
    def has_priority(self) -> bool:
        """Whether a request may say how soon it should begin."""
        return accepts(self.llm, "generate_async.priority")

    @property
    def has_salt(self) -> bool:
        return accepts(self.llm, "generate_async.cache_salt")


class NotInstalled(ImportError):
    """TensorRT-LLM cannot be imported; the message ends in the mend."""


def load() -> Package:
    """The package that is installed.

    Raises:
        NotInstalled: none is, or it lacks something that every known version has.
    """
    try:
        package, api, arguments = (import_module(name) for name in (_PACKAGE, _API, _ARGUMENTS))
        return Package(
            version=str(getattr(package, "__version__", "")),
            llm=cast(Callable[..., LLM], api.LLM),
            arguments=api.TorchLlmArgs,
            sampling=api.SamplingParams,
            guided=api.GuidedDecodingParams,
            kv_cache=api.KvCacheConfig,
            scheduler=api.SchedulerConfig,
            retention=api.KvCacheRetentionConfig,
            draft_target=arguments.DraftTargetDecodingConfig,
            # Before it had a class of its own, EAGLE-3 was what EagleDecodingConfig meant on this backend.
            eagle=getattr(arguments, "Eagle3DecodingConfig", None) or arguments.EagleDecodingConfig,
        )
    except ImportError as error:
        reason = (
            "TensorRT-LLM is not installed" if error.name == _PACKAGE else f"it cannot be loaded: {error}"
        )
        raise NotInstalled(
            f"the engine trtllm: {reason}. Mend: run this worker where NVIDIA's tensorrt_llm is installed "
            "(its container has it), or engine: {kind: attach, api: trtllm} beside a trtllm-serve of its own"
        ) from error
    except AttributeError as error:
        raise NotInstalled(
            f"the engine trtllm: this TensorRT-LLM is none that diplex knows: {error}. Mend: TensorRT-LLM 1.x"
        ) from error


def accepts(maker: Any, path: str) -> bool:
    """Whether a class, or one of its methods, takes an argument of this name.

    Args:
        path: an argument of the constructor, or `method.argument`.
    """
    *methods, argument = path.split(".")
    for method in methods:
        maker = getattr(maker, method, None)
    return argument in arguments_of(maker)


def arguments_of(maker: Any) -> Iterable[str]:
    """What something takes: a pydantic model's fields, a function's arguments, or, of a class made in C++,
    what its constructor's docstring says."""
    fields = getattr(maker, "model_fields", None)
    if isinstance(fields, Mapping):
        return fields.keys()
    parameters: Mapping[str, inspect.Parameter] = {}
    with suppress(TypeError, ValueError):
        parameters = inspect.signature(maker).parameters
    if any(one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in parameters.values()):
        return parameters.keys()
    text = getattr(getattr(maker, "__init__", None), "__doc__", None) or ""
    return [word.partition(":")[0].strip(" (") for word in text.split(",") if ":" in word]
