"""A stand-in for TensorRT-LLM's Python package. It computes nothing and is no evidence of what that does.

Made from the signatures in TensorRT-LLM's public sources, which the engines' names.toml names: strict where
those are strict (pydantic models with `extra="forbid"`, keyword-only dataclasses, a C++ class with no
signature but a docstring), with queues of statistics and events that a reader empties for all others, and
outputs whose ids and text are the whole of them each time. A token's text is its id in brackets.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from diplex_workers.engines.names import listed


class Strict:
    """A pydantic model with `extra="forbid"`, as far as diplex can tell one."""

    FIELDS: ClassVar[dict[str, Any]] = {}
    model_fields: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        cls.model_fields = dict(cls.FIELDS)

    def __init__(self, **words: Any) -> None:
        if unknown := words.keys() - self.FIELDS.keys():
            raise ValueError(f"{type(self).__name__}: extra inputs are not permitted: {sorted(unknown)}")
        for name, default in (self.FIELDS | words).items():
            setattr(self, name, default)


class KvCacheConfig(Strict):
    FIELDS: ClassVar[dict[str, Any]] = {
        "enable_block_reuse": True,
        "max_tokens": None,
        "free_gpu_memory_fraction": 0.9,
        "host_cache_size": None,
        "event_buffer_max_size": 0,
        "enable_partial_reuse": True,
        "dtype": "auto",
        "tokens_per_block": 32,
    }

    def __init__(self, **words: Any) -> None:
        super().__init__(**words)
        if self.dtype not in ("auto", "fp8", "nvfp4", "bfloat16", "float16"):
            raise ValueError(f"KvCacheConfig.dtype: {self.dtype}")


class SchedulerConfig(Strict):
    FIELDS: ClassVar[dict[str, Any]] = {
        "capacity_scheduler_policy": "GUARANTEED_NO_EVICT",
        "context_chunking_policy": None,
        "waiting_queue_policy": "fcfs",
    }
    policies = ("fcfs",)

    def __init__(self, **words: Any) -> None:
        super().__init__(**words)
        if self.waiting_queue_policy not in self.policies:
            raise ValueError(f"waiting_queue_policy: input should be one of {self.policies}")


class _Decoding(Strict):
    FIELDS: ClassVar[dict[str, Any]] = {"max_draft_len": None, "speculative_model": None}

    def __init__(self, **words: Any) -> None:
        super().__init__(**words)
        if not self.max_draft_len or self.speculative_model is None:
            raise ValueError("max_draft_len and speculative_model must be given")


class DraftTargetDecodingConfig(_Decoding):
    FIELDS: ClassVar[dict[str, Any]] = _Decoding.FIELDS


class EagleDecodingConfig(_Decoding):
    FIELDS: ClassVar[dict[str, Any]] = _Decoding.FIELDS | {"eagle3_one_model": True}


class Eagle3DecodingConfig(EagleDecodingConfig):
    FIELDS: ClassVar[dict[str, Any]] = EagleDecodingConfig.FIELDS


class TorchLlmArgs(Strict):
    FIELDS: ClassVar[dict[str, Any]] = {
        "model": None,
        "tensor_parallel_size": 1,
        "max_batch_size": 2048,
        "max_num_tokens": 8192,
        "max_seq_len": None,
        "kv_cache_config": None,
        "scheduler_config": None,
        "speculative_config": None,
        "enable_chunked_prefill": False,
        "enable_iter_perf_stats": False,
        "stream_interval": 1,
        "guided_decoding_backend": "xgrammar",
        "allreduce_strategy": "AUTO",
        "disable_overlap_scheduler": False,
    }


@dataclass(kw_only=True)
class SamplingParams:
    max_tokens: int = 32
    n: int = 1
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: list[str] | str | None = None
    min_tokens: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    ignore_eos: bool = False
    detokenize: bool = True
    add_special_tokens: bool = True
    skip_special_tokens: bool = True
    guided_decoding: object = None

    def __post_init__(self) -> None:
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"require 0 < top_p <= 1, got top_p={self.top_p}")
        greedy = not self.temperature or (
            self.temperature is None and self.top_p is None and self.top_k is None
        )
        if self.n > 1 and greedy:
            raise ValueError("Greedy decoding in the LLM API does not allow multiple returns.")


@dataclass(kw_only=True)
class GuidedDecodingParams:
    json: object = None
    regex: str | None = None
    grammar: str | None = None
    json_object: bool = False


class TokenRangeRetentionConfig:
    """Made in C++ in the original: no signature, only a docstring."""

    def __init__(self, *words: object, **named: Any) -> None:
        """__init__(self, token_start: int, token_end: int | None, priority: int, duration_ms: object)"""
        names = ("token_start", "token_end", "priority", "duration_ms")
        assert not words and named.keys() <= set(names), named
        self.__dict__.update(named)


class KvCacheRetentionConfig:
    TokenRangeRetentionConfig = TokenRangeRetentionConfig

    def __init__(self, **named: Any) -> None:
        """__init__(self, token_range_retention_configs: list, decode_retention_priority: int = 35, \
decode_duration_ms: object | None = None)"""
        names = {"token_range_retention_configs", "decode_retention_priority", "decode_duration_ms"}
        assert named.keys() <= names, named
        self.__dict__.update(named)


class RequestError(RuntimeError):
    """One request went wrong."""


@dataclass
class CompletionOutput:
    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None


class GenerationResult:
    """A request under way. A test pushes steps; iterating yields it once a step came."""

    def __init__(self, ids: Sequence[int], sampling: SamplingParams, words: dict[str, Any]) -> None:
        self.ids, self.sampling, self.words = list(ids), sampling, words
        self.outputs = [CompletionOutput(n) for n in range(sampling.n)]
        self.cached_tokens = 0
        self.aborted = False
        self._steps: asyncio.Queue[Callable[[], None]] = asyncio.Queue()
        self._done = False

    def say(self, *ids: int, choice: int = 0, end: str | None = None, text: str | None = None) -> None:
        """The next step: new ids of a choice, and perhaps its end."""

        def step() -> None:
            output = self.outputs[choice]
            output.token_ids.extend(ids)
            output.text += "".join(f"[{one}]" for one in ids) if text is None else text
            output.finish_reason = end or output.finish_reason
            self._done = all(one.finish_reason for one in self.outputs)

        self._steps.put_nowait(step)

    def fail(self, error: Exception) -> None:
        def step() -> None:
            raise error

        self._steps.put_nowait(step)

    def abort(self) -> None:
        self.aborted = True

    def let_go(self) -> None:
        """The engine has ended an aborted request."""
        for choice in range(self.sampling.n):
            self.say(choice=choice, end="cancelled")

    def __aiter__(self) -> "GenerationResult":
        return self

    async def __anext__(self) -> "GenerationResult":
        if self._done:
            raise StopAsyncIteration
        (await self._steps.get())()
        return self


class TransformersTokenizer:
    def __init__(self) -> None:
        self.tokenizer = self
        self.chat_template = "{{ messages }}"

    def encode(self, text: str, *args: object, **words: object) -> list[int]:
        return ([1] if words.get("add_special_tokens") else []) + [ord(letter) for letter in text]

    def decode(self, token_ids: Sequence[int], *args: object, **words: object) -> str:
        return "".join(map(chr, token_ids))

    def apply_chat_template(self, conversation: Sequence[dict[str, str]], *args: object, **words: Any) -> str:
        assert words["tokenize"] is False and words["add_generation_prompt"] is True
        if any(message["role"] == "alien" for message in conversation):
            raise ValueError("no such role")
        return "".join(f"<{message['role']}>{message['content']}" for message in conversation) + "<assistant>"


class Queue:
    """Entries that a reader takes away. After `timeout` seconds without one it ends, as the original does."""

    def __init__(self) -> None:
        self.entries: asyncio.Queue[Any] = asyncio.Queue()
        self._timeout, self._waited_on = 2.0, False

    def put(self, entry: object) -> None:
        self.entries.put_nowait(entry)

    def read(self, timeout: float) -> "Queue":
        self._timeout = timeout
        return self

    def __aiter__(self) -> "Queue":
        return self

    async def __anext__(self) -> Any:
        assert not self._waited_on, "a second reader would take away what the first waits for"
        self._waited_on = True
        try:
            async with asyncio.timeout(self._timeout):
                entry = await self.entries.get()
        except TimeoutError:
            raise StopAsyncIteration from None
        finally:
            self._waited_on = False
        if isinstance(entry, Exception):
            raise entry
        return entry


class BaseLLM:
    """The engine. What `generate_async` takes differs between versions: see below."""

    made: ClassVar["list[BaseLLM]"] = []
    blocks = 640
    starts_with: Exception | None = None

    def __init__(self, **words: Any) -> None:
        if type(self).starts_with is not None:
            raise type(self).starts_with
        self.args = TorchLlmArgs(**words)
        self.tokenizer = TransformersTokenizer()
        self.stats, self.events = Queue(), Queue()
        self.requests: list[GenerationResult] = []
        self.answers_probes, self.down = True, False
        self.event_id = 0
        type(self).made.append(self)

    def _begin(
        self, inputs: Sequence[int], sampling_params: SamplingParams, **words: Any
    ) -> GenerationResult:
        if self.down:
            raise RuntimeError("LLM is shutting down")
        assert isinstance(inputs, list) and all(isinstance(one, int) for one in inputs)
        limit = self.args.max_seq_len
        if limit and len(inputs) + sampling_params.max_tokens > limit:
            raise ValueError(
                f"the sum of prompt length ({len(inputs)}) and max_tokens should not exceed {limit}"
            )
        result = GenerationResult(inputs, sampling_params, words)
        if inputs == [1] and sampling_params.max_tokens == 1:  # diplex's first word
            if self.answers_probes:
                result.say(7, end="length")
                self.iterate(used=0, active=1)
        else:
            self.requests.append(result)
        return result

    def iterate(self, *, used: int, active: int) -> None:
        """One iteration's statistics."""
        pool = {"maxNumBlocks": self.blocks, "freeNumBlocks": self.blocks - used, "usedNumBlocks": used}
        pool["tokensPerBlock"] = self.args.kv_cache_config.tokens_per_block
        self.stats.put({"iter": 1, "numActiveRequests": active, "numQueuedRequests": 0, "kvCacheStats": pool})

    def tell(self, data: dict[str, Any], *, lost: bool = False) -> None:
        """A KV-cache event; a lost one counts and does not come."""
        if not lost:
            self.events.put({"event_id": self.event_id, "data": data, "window_size": 4096})
        self.event_id += 1

    def get_stats_async(self, timeout: float | None = 2) -> Queue:
        assert self.args.enable_iter_perf_stats
        return self.stats.read(timeout or 2)

    def get_kv_cache_events_async(self, timeout: float | None = 2) -> Queue:
        assert self.args.kv_cache_config.event_buffer_max_size
        return self.events.read(timeout or 2)

    def shutdown(self) -> None:
        self.down = True


class NewLLM(BaseLLM):
    """As on main: a request has a priority."""

    def generate_async(
        self,
        inputs: Any,
        sampling_params: Any = None,
        lora_request: Any = None,
        streaming: bool = False,
        kv_cache_retention_config: Any = None,
        cache_salt: str | None = None,
        priority: float = 0.5,
    ) -> GenerationResult:
        assert streaming and 0 <= priority <= 1
        words = {"retention": kv_cache_retention_config, "salt": cache_salt, "priority": priority}
        return self._begin(inputs, sampling_params, **words)


class OldLLM(BaseLLM):
    """As in 1.0: neither priority nor salt."""

    def generate_async(
        self,
        inputs: Any,
        sampling_params: Any = None,
        lora_request: Any = None,
        streaming: bool = False,
        kv_cache_retention_config: Any = None,
    ) -> GenerationResult:
        assert streaming
        return self._begin(inputs, sampling_params, retention=kv_cache_retention_config)


def modules(*, newest: bool = True) -> dict[str, ModuleType]:
    """The stand-in as modules by name: as on main, or as in 1.0."""
    llm = type("LLM", (NewLLM if newest else OldLLM,), {"made": []})
    scheduler = type("SchedulerConfig", (SchedulerConfig,), {"policies": ("fcfs", "priority")})
    package, api = ModuleType("tensorrt_llm"), ModuleType("tensorrt_llm.llmapi")
    package.__version__ = "1.3.0.stand-in" if newest else "1.0.0.stand-in"
    arguments, result = ModuleType("tensorrt_llm.llmapi.llm_args"), ModuleType("tensorrt_llm.executor.result")
    tokenizer = ModuleType("tensorrt_llm.llmapi.tokenizer")
    for name, value in {
        "LLM": llm,
        "SamplingParams": SamplingParams,
        "GuidedDecodingParams": GuidedDecodingParams,
        "KvCacheConfig": KvCacheConfig,
        "KvCacheRetentionConfig": KvCacheRetentionConfig,
        "SchedulerConfig": scheduler if newest else SchedulerConfig,
        "TorchLlmArgs": TorchLlmArgs,
        "RequestError": RequestError,
    }.items():
        setattr(api, name, value)
    for kind in (DraftTargetDecodingConfig, EagleDecodingConfig, *([Eagle3DecodingConfig] if newest else [])):
        setattr(arguments, kind.__name__, kind)
    result.GenerationResult, result.CompletionOutput = GenerationResult, CompletionOutput
    tokenizer.TransformersTokenizer = TransformersTokenizer
    executor = ModuleType("tensorrt_llm.executor")
    return {one.__name__: one for one in (package, api, arguments, executor, result, tokenizer)}


# Modules of which only the source is looked at. Their strings are the list's own: they show that a name
# is found, not that the original has it. Metrics are named there without their prefix.
WRITTEN = ("tensorrt_llm.metrics.collector", "tensorrt_llm.serve.openai_server")


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, ModuleType]]:
    """`install()` makes the stand-in what is imported; `install(newest=False)` the older one."""

    def install_it(*, newest: bool = True) -> dict[str, ModuleType]:
        made = modules(newest=newest)
        for name in WRITTEN:
            words = tuple(one.name.removeprefix("trtllm_") for one in listed().names if one.module == name)
            made[name] = ModuleType(name)
            file = tmp_path / f"{name}.py"
            file.write_text(f"WORDS = {words!r}\n")
            made[name].__file__ = str(file)
        for name, module in made.items():
            monkeypatch.setitem(sys.modules, name, module)
        return made

    return install_it
