"""vLLM's words: `vllm serve`. Options as the wheel of vLLM 0.20.0 has them.

Sources: its vllm/engine/arg_utils.py, vllm/config/{cache,kv_events,scheduler,speculative}.py.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from diplex_core.plan.recipe_ways import Way
from diplex_core.words import Pattern

if TYPE_CHECKING:
    from diplex_core.plan.recipe import Served

TITLE: Final = "vLLM"
VERSIONS: Final = "0.20"
WEIGHTS: Final = ("nvfp4", "fp8", "bf16")
KV_CACHES: Final = ("fp8", "nvfp4", "bf16")
# vllm/platforms/interface.py: `return int(physical_device_id)`. With UUIDs it ends so at its start, as tried.
CANNOT: Final[Mapping[Way, str]] = {
    Way.MIG: "vLLM 0.20 reads CUDA_VISIBLE_DEVICES as indices, and a MIG device has none"
}
_EVENTS: Final = 5557
_REPLAY: Final = 5657


def command(served: "Served") -> tuple[str, ...]:
    it, sizes = served.deployment, served.sizes
    use = int(100 * served.share * it.layout.gpu_memory_utilization) / 100
    words = [
        *("vllm", "serve", served.checkpoint),
        *("--host", served.host, "--port", str(served.port)),
        *("--served-model-name", served.name),
        *("--tensor-parallel-size", str(served.ranks)),
        *("--max-num-seqs", str(sizes.sequences)),
        *("--max-num-batched-tokens", str(sizes.step_tokens)),
        *("--max-model-len", str(sizes.longest)),
        *("--gpu-memory-utilization", str(use)),
        *("--kv-cache-dtype", "auto" if it.kv_cache == "bf16" else it.kv_cache),
        *("--scheduling-policy", "priority"),
        *("--kv-events-config", _json(_events(served.number))),
    ]
    if (kind := {Pattern.D: "draft_model", Pattern.A_EAGLE: "eagle3"}.get(it.pattern)) is not None:
        speculates = {"method": kind, "model": served.draft, "num_speculative_tokens": served.ahead}
        words += ["--speculative-config", _json(speculates)]
    return tuple(words)


def config(served: "Served") -> dict[str, Any]:
    """It reads no file."""
    return {}


def _events(number: int) -> dict[str, Any]:
    return {
        "enable_kv_cache_events": True,
        "publisher": "zmq",
        "endpoint": f"tcp://*:{_EVENTS + number}",
        "replay_endpoint": f"tcp://*:{_REPLAY + number}",
    }


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value)
