"""TensorRT-LLM's words: `trtllm-serve` and the file of LLM arguments beside it.

For 1.2 and 1.3, PyTorch backend: a Hugging Face checkpoint is served as it is, without an engine build. What
has a command-line option in only one of these versions stands in the file, which overrides options; so does
all of `kv_cache_config`, which replaces what options say of it.

Sources: tensorrt_llm/commands/serve.py (commit 00209af), tensorrt_llm/llmapi/llm_args.py.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from diplex_core.plan.recipe_ways import Way
from diplex_core.words import Pattern

if TYPE_CHECKING:
    from diplex_core.plan.recipe import Served

TITLE: Final = "TensorRT-LLM"
VERSIONS: Final = "1.2 and 1.3"
# Dense Qwen and Llama: NVFP4 and FP8 with the KV cache in either; never MX formats.
WEIGHTS: Final = ("nvfp4", "fp8", "bf16")
KV_CACHES: Final = ("fp8", "nvfp4", "bf16")
CONFIG: Final = "{config}"
"""Stands in a command for the path of the file that `config` is written to."""
BLOCK: Final = 32
CANNOT: Final[Mapping[Way, str]] = {}
# Events that wait for their reader: far more than a second of a busy pool's.
_EVENTS: Final = 65536


def command(served: "Served") -> tuple[str, ...]:
    sizes = served.sizes
    words = [
        *("trtllm-serve", served.checkpoint, "--backend", "pytorch"),
        *("--host", served.host, "--port", str(served.port)),
        *("--tp_size", str(served.ranks)),
        *("--max_batch_size", str(sizes.sequences)),
        *("--max_num_tokens", str(sizes.step_tokens)),
        *("--max_seq_len", str(sizes.longest)),
    ]
    if served.way is Way.MLOPART:
        # NVML, which it would ask, counts one GPU.
        words += ["--gpus_per_node", str(served.ranks)]
    return (*words, "--extra_llm_api_options", CONFIG)


def config(served: "Served") -> dict[str, Any]:
    it, sizes = served.deployment, served.sizes
    pool: dict[str, Any] = {
        "dtype": "auto" if it.kv_cache == "bf16" else it.kv_cache,
        "free_gpu_memory_fraction": _floored(it.layout.free_gpu_memory_fraction),
        "enable_block_reuse": True,
        "tokens_per_block": BLOCK,
        "event_buffer_max_size": _EVENTS,
    }
    if served.share < 1:
        # The fraction is of what is free at the start, and the second engine finds less.
        pool["max_tokens"] = sizes.pool_tokens
    said: dict[str, Any] = {
        "enable_chunked_prefill": True,
        "kv_cache_config": pool,
        "scheduler_config": {"capacity_scheduler_policy": "GUARANTEED_NO_EVICT"},
        "cuda_graph_config": {"max_batch_size": sizes.sequences, "enable_padding": True},
        "enable_iter_perf_stats": True,
        "return_perf_metrics": True,
    }
    match it.pattern:
        case Pattern.D:
            # As NVIDIA's own draft-target example has it: no overlap, and no reuse of blocks, which its two
            # caches would have to agree on. So this engine tells nothing of prefix blocks.
            pool["enable_block_reuse"], pool["event_buffer_max_size"] = False, 0
            said["disable_overlap_scheduler"] = True
            said["speculative_config"] = _speculates("Draft_Target", served)
        case Pattern.A_EAGLE:
            said["speculative_config"] = _speculates("Eagle3", served)
        case Pattern.C if served.way is Way.MLOPART:
            # Its own all-reduce kernels look for NVLink through NVML, which knows no partitions.
            said["allreduce_strategy"] = "NCCL"
    return said


def _speculates(kind: str, served: "Served") -> dict[str, Any]:
    return {"decoding_type": kind, "max_draft_len": served.ahead, "speculative_model": served.draft}


def _floored(share: float) -> float:
    """Two digits, never more than planned."""
    return int(100 * share) / 100
