"""trtllm-serve. Its JSON `/metrics` is a queue that each reader empties for all others: it is left alone.

The Prometheus gauges at `/prometheus/metrics` are there with `return_perf_metrics: true`; older versions have
some of them only. It has no priority over HTTP (its LLM API has), and pauses nothing under its default
scheduler policy. Names from TensorRT-LLM's own sources: metrics/collector.py, serve/openai_server.py.
"""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final

from diplex_workers.engines.dialects.dialect import STANDARD, Dialect, Gauges, Offered, page, whole
from diplex_workers.engines.dialects.prometheus import Samples
from diplex_workers.engines.openai_http import Upstream

_MAX, _BLOCK = "trtllm_kv_cache_max_blocks", "trtllm_kv_cache_tokens_per_block"
_USED, _RUNNING = "trtllm_kv_cache_utilization", "trtllm_num_requests_running"
_WAITING, _SLOTS = "trtllm_num_requests_waiting", "trtllm_max_num_active_requests"
# TensorRT-LLM's own default (KvCacheConfig.tokens_per_block).
_DEFAULT_BLOCK: Final = 32


class TrtLlm(Dialect):
    api = "trtllm"
    health = "/health"
    sampling: ClassVar[Mapping[str, str]] = MappingProxyType(
        STANDARD
        | {name: name for name in ("top_k", "min_p", "repetition_penalty", "min_tokens", "ignore_eos")}
    )

    async def offered(self, upstream: Upstream, model: Mapping[str, Any]) -> Offered:
        samples = await _samples(upstream)
        blocks = samples.highest(_MAX)
        size = int(samples.highest(_BLOCK) or _DEFAULT_BLOCK)
        return Offered(
            capacity=int(blocks) * size if blocks else None,
            block_tokens=size,
            slots=whole(samples.highest(_SLOTS)) or None,
            version=await _version(upstream),
        )

    async def gauges(self, upstream: Upstream) -> Gauges:
        samples = await _samples(upstream)
        return Gauges(
            used=samples.highest(_USED),
            running=whole(samples.highest(_RUNNING)),
            waiting=whole(samples.highest(_WAITING)),
        )


async def _samples(upstream: Upstream) -> Samples:
    return Samples(
        await page(upstream, "/prometheus/metrics"), (_MAX, _BLOCK, _USED, _RUNNING, _WAITING, _SLOTS)
    )


async def _version(upstream: Upstream) -> str:
    answer = json.loads(await page(upstream, "/version") or "{}")
    return str(answer.get("version", ""))
