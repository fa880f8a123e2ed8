"""Triton's OpenAI front end, before a model of its vLLM or its TensorRT-LLM backend.

Its `/metrics` is the whole of Triton's, one page for both backends: that of TensorRT-LLM has blocks and
requests, that of vLLM what vLLM itself has, but not the size of its cache, so kv_blocks must be configured.
It passes no priority on. Names from Triton's own sources: python/openai/openai_frontend (frontend/fastapi,
engine/utils/triton.py), vllm_backend's src/utils/metrics.py, TensorRT-LLM's triton_backend (custom metrics).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from diplex_workers.engines.dialects.dialect import STANDARD, Dialect, Gauges, Offered, page, whole
from diplex_workers.engines.dialects.prometheus import Samples
from diplex_workers.engines.openai_http import Upstream

_BLOCKS, _BLOCKS_BY = "nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type"
_REQUESTS, _REQUESTS_BY = "nv_trt_llm_request_metrics", "request_type"
_USED = "vllm:gpu_cache_usage_perc"
_RUNNING, _WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
_PREEMPTED = "vllm:num_preemptions_total"


class Triton(Dialect):
    api = "triton"
    health = "/health/ready"
    # Both backends take these; what else vLLM's would take, TensorRT-LLM's drops without a word.
    sampling: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            name: name
            for name in STANDARD
            if name not in ("response_format", "logit_bias")  # neither reaches a backend
        }
    )

    async def offered(self, upstream: Upstream, model: Mapping[str, Any]) -> Offered:
        samples = await _samples(upstream)
        blocks, size = (
            _of(samples, _BLOCKS, _BLOCKS_BY, "max"),
            _of(samples, _BLOCKS, _BLOCKS_BY, "tokens_per"),
        )
        return Offered(
            capacity=int(blocks * size) if blocks and size else None,
            block_tokens=whole(size) or None,
            slots=whole(_of(samples, _REQUESTS, _REQUESTS_BY, "max")) or None,
        )

    async def gauges(self, upstream: Upstream) -> Gauges:
        samples = await _samples(upstream)
        blocks, used = _of(samples, _BLOCKS, _BLOCKS_BY, "max"), _of(samples, _BLOCKS, _BLOCKS_BY, "used")
        if blocks and used is not None:
            return Gauges(
                used=used / blocks,
                running=whole(_of(samples, _REQUESTS, _REQUESTS_BY, "scheduled")),
                waiting=whole(_of(samples, _REQUESTS, _REQUESTS_BY, "waiting")),
            )
        return Gauges(
            used=samples.highest(_USED),
            running=whole(samples.total(_RUNNING)),
            waiting=whole(samples.total(_WAITING)),
            preempted=whole(samples.total(_PREEMPTED)),
        )


def _of(samples: Samples, name: str, label: str, value: str) -> float | None:
    return next((sample for labels, sample in samples[name] if labels.get(label) == value), None)


async def _samples(upstream: Upstream) -> Samples:
    names = (_BLOCKS, _REQUESTS, _USED, _RUNNING, _WAITING, _PREEMPTED)
    return Samples(await page(upstream, "/metrics"), names)
