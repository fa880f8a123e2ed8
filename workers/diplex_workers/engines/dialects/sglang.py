"""SGLang: a KV cache counted in tokens, `/server_info`, and Prometheus gauges with `--enable-metrics`.

Names from SGLang's own sources: entrypoints/http_server.py (server_info), metrics/collector.py (gauges).
"""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from diplex_workers.engines.dialects.dialect import STANDARD, Dialect, Gauges, Offered, page
from diplex_workers.engines.dialects.prometheus import Samples
from diplex_workers.engines.openai_http import Upstream

_USED, _RUNNING = "sglang:token_usage", "sglang:num_running_reqs"
# Its pages are often one token; the pool is counted in larger blocks then, rounded up by each request.
_BLOCK = 16


class SGLang(Dialect):
    api = "sglang"
    health = "/health"
    sampling: ClassVar[Mapping[str, str]] = MappingProxyType(
        STANDARD
        | {name: name for name in ("top_k", "min_p", "repetition_penalty", "min_tokens", "ignore_eos")}
    )

    async def offered(self, upstream: Upstream, model: Mapping[str, Any]) -> Offered:
        info = await _server_info(upstream)
        states = [state for state in info.get("internal_states") or () if isinstance(state, dict)]
        capacities = [(state.get("memory_usage") or {}).get("token_capacity") for state in states]
        slots = [state.get("effective_max_running_requests_per_dp") for state in states]
        return Offered(
            capacity=info.get("max_total_num_tokens") or sum(c for c in capacities if c) or None,
            block_tokens=max(_BLOCK, info.get("page_size") or 1),
            slots=sum(s for s in slots if s) or info.get("max_running_requests"),
            context=model.get("max_model_len") or info.get("context_length"),
            version=str(info.get("version", "")),
        )

    async def gauges(self, upstream: Upstream) -> Gauges:
        samples = Samples(await page(upstream, "/metrics"), (_USED, _RUNNING))
        used, running = samples.highest(_USED), samples.total(_RUNNING)
        return Gauges(used, None if running is None else int(running))


async def _server_info(upstream: Upstream) -> Mapping[str, Any]:
    """`/server_info`, which older versions call `/get_server_info`; nothing where there is neither."""
    for path in ("/server_info", "/get_server_info"):
        if text := await page(upstream, path):
            info = json.loads(text)
            return info if isinstance(info, dict) else {}
    return {}
