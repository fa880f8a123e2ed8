"""What a TensorRT-LLM instance is made with: a pattern and its figures, in the package's own words."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from diplex_core.model.steps import LATENCY_PREFILL_BUDGET
from diplex_core.words import Blocks, Pattern, Slots, Tokens
from diplex_workers.engines.trtllm_interface import LLM, Package, accepts
from diplex_workers.engines.trtllm_requests import speculation_of

# Events that wait for their reader: two for each block that a large prompt stores, many times over.
_EVENTS: Final = 65_536
# diplex's formats, and its own: there is no MX format among its KV caches.
_KV_CACHES: Final = {"fp8": "fp8", "mxfp8": "fp8", "nvfp4": "nvfp4", "bf16": "bfloat16", "": "auto"}


@dataclass(frozen=True, slots=True)
class TrtLlmSettings:
    """One TensorRT-LLM instance.

    Args:
        model: the name that clients use.
        checkpoint: a Hugging Face folder or name; quantized ones by ModelOpt load as they are.
        draft_checkpoint: what drafts in D, the EAGLE-3 head in A+EAGLE.
        tensor_parallel: ranks, one device each; `None`: two in pattern C, else one.
        context: longest prompt plus output; `None`: the model's own.
        slots: sequences at once; so many tokens come of one step, drafts not counted.
        prefill_budget: prompt tokens read in one step; `None`: a small one in pattern C, else its own.
        kv_share: of the memory that is free once it has loaded, the share that its KV cache takes.
        capacity_blocks: blocks that diplex may fill; `None`: all that it says it has.
        guard_blocks: never promised; `None`: a 64th.
    """

    model: str
    checkpoint: str
    pattern: Pattern = Pattern.A
    gpu: str = "b200"
    draft_checkpoint: str | None = None
    draft_tokens: Tokens = 5
    tensor_parallel: int | None = None
    context: Tokens | None = None
    slots: Slots = 64
    prefill_budget: Tokens | None = None
    block_tokens: Tokens = 32
    kv_share: float = 0.9
    capacity_blocks: Blocks | None = None
    guard_blocks: Blocks | None = None
    profile: str = ""
    weights: str = ""
    kv_cache: str = ""

    @property
    def speculates(self) -> bool:
        return self.pattern in (Pattern.D, Pattern.A_EAGLE)

    @property
    def keeps_prefixes(self) -> bool:
        """Whether blocks stay for others. A draft model's cache would have to agree with its target's on
        that: so there is neither reuse nor overlap in D, as in NVIDIA's own draft-target example."""
        return self.pattern is not Pattern.D

    @property
    def drafted(self) -> Tokens:
        """Tokens drafted ahead in each step."""
        return self.draft_tokens if self.speculates else 0

    @property
    def step_budget(self) -> Tokens | None:
        """Prompt tokens read in one step; `None`: as many as TensorRT-LLM reads where nothing is said."""
        if self.prefill_budget is None and self.pattern is Pattern.C:
            return LATENCY_PREFILL_BUDGET
        return self.prefill_budget


def made(package: Package, settings: TrtLlmSettings) -> LLM:
    """The engine, its model loaded: this takes minutes."""
    kv_cache: dict[str, Any] = {
        "enable_block_reuse": settings.keeps_prefixes,
        "free_gpu_memory_fraction": settings.kv_share,
        "event_buffer_max_size": _EVENTS if settings.keeps_prefixes else 0,
        "tokens_per_block": settings.block_tokens,
        "dtype": _KV_CACHES.get(settings.kv_cache, "auto"),
    }
    ranks = settings.tensor_parallel or (2 if settings.pattern is Pattern.C else 1)
    words: dict[str, Any] = {
        "model": settings.checkpoint,
        "tensor_parallel_size": ranks,
        "max_batch_size": settings.slots,
        "kv_cache_config": package.kv_cache(**kv_cache),
        "scheduler_config": _scheduler(package),
        "enable_chunked_prefill": True,
        "enable_iter_perf_stats": True,
        "stream_interval": 1,
    }
    if (budget := settings.step_budget) is not None:
        # Its one bound holds prompt tokens and the tokens of those that run, drafts included.
        words["max_num_tokens"] = budget + settings.slots * (1 + settings.drafted)
    if settings.context is not None:
        words["max_seq_len"] = settings.context
    if settings.speculates and settings.draft_checkpoint:
        words["speculative_config"] = speculation_of(
            package,
            eagle=settings.pattern is Pattern.A_EAGLE,
            checkpoint=settings.draft_checkpoint,
            tokens=settings.draft_tokens,
        )
    if not settings.keeps_prefixes:
        words["disable_overlap_scheduler"] = True
    if settings.pattern is Pattern.C and settings.gpu == "b200":
        # Its other ways ask NVML about links between devices, and NVML knows no partitions.
        words["allreduce_strategy"] = "NCCL"
    if accepts(package.arguments, "guided_decoding_backend"):
        words["guided_decoding_backend"] = "xgrammar"
    return package.llm(**words)


def _scheduler(package: Package) -> Any:
    """By priority where this version's queue knows that, else first come, first served."""
    words = {"capacity_scheduler_policy": "GUARANTEED_NO_EVICT"}
    if package.has_priority:
        with suppress(ValueError):
            return package.scheduler(**words, **{"waiting_queue_policy": "priority"})
    return package.scheduler(**words)
