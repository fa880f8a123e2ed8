"""SGLang: a KV cache counted in tokens, `/server_info`, and Prometheus gauges with `--enable-metrics`.

Names from SGLang's own sources: entrypoints/http_server.py (server_info, which shows the server's arguments),
metrics/collector.py (gauges; the counter of retractions is newer), managers/schedule_policy.py (`priority`:
higher is sooner, or lower with schedule_low_priority_values_first). Its gauges are written every few dozen
steps, and keep their last value while it idles.
"""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from diplex_workers.engines.dialects.dialect import STANDARD, Dialect, Gauges, Offered, page, whole
from diplex_workers.engines.dialects.prometheus import Samples
from diplex_workers.engines.openai_http import Upstream

_USED, _RUNNING, _WAITING = "sglang:token_usage", "sglang:num_running_reqs", "sglang:num_queue_reqs"
_PREEMPTED = "sglang:num_retracted_requests_total"
# Its pages are often one token; the pool is counted in larger blocks then, rounded up by each request.
_BLOCK = 16


class SGLang(Dialect):
    api = "sglang"
    health = "/health"
    sampling: ClassVar[Mapping[str, str]] = MappingProxyType(
        STANDARD
        | {name: name for name in ("top_k", "min_p", "repetition_penalty", "min_tokens", "ignore_eos")}
    )

    priority = "priority"
    priority_flag = "--enable-priority-scheduling"
    exact = True

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
            priority=_priority(info),
        )

    async def gauges(self, upstream: Upstream) -> Gauges:
        names = (_USED, _RUNNING, _WAITING, _PREEMPTED)
        samples = Samples(await page(upstream, "/metrics"), names)
        return Gauges(
            used=samples.highest(_USED),
            running=_of_all(samples, _RUNNING),
            waiting=_of_all(samples, _WAITING),
            preempted=whole(samples.total(_PREEMPTED)),
        )


def _of_all(samples: Samples, name: str) -> int | None:
    """A count over all priorities: with priority scheduling each priority has a sample beside the sum."""
    sums = [value for labels, value in samples[name] if not labels.get("priority")]
    return int(sum(sums)) if sums else whole(samples.total(name))


def _priority(info: Mapping[str, Any]) -> int:
    if not info.get("enable_priority_scheduling"):
        return 0
    return -1 if info.get("schedule_low_priority_values_first") else 1


async def _server_info(upstream: Upstream) -> Mapping[str, Any]:
    """`/server_info`, which older versions call `/get_server_info`; nothing where there is neither."""
    for path in ("/server_info", "/get_server_info"):
        if text := await page(upstream, path):
            info = json.loads(text)
            return info if isinstance(info, dict) else {}
    return {}
