"""vLLM: Prometheus gauges, its cache's size as labels, a tokenizer, and token ids in the stream.

Names from vLLM's own sources: v1/metrics/loggers.py (gauges and counters), v1/core/block_pool.py (one block
is a placeholder and holds nothing), entrypoints/serve/tokenize/protocol.py, and in entrypoints/openai
`return_token_ids` (0.10.2 and later; older ones leave it unheeded) and `priority` (lower is sooner; any but 0
is an error unless the server goes by priorities, and nothing over HTTP tells whether it does).
"""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from diplex.v1 import generation_pb2 as pb
from diplex.wire.status import Problem
from diplex_core.words import Tokens
from diplex_workers.engines.dialects.dialect import STANDARD, Dialect, Gauges, Offered, page, whole
from diplex_workers.engines.dialects.prometheus import Samples
from diplex_workers.engines.openai_http import Upstream

_CACHE = "vllm:cache_config_info"
_USED = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")  # a share, 0 to 1; the second until 0.9
_RUNNING, _WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
_PREEMPTED = "vllm:num_preemptions_total"


class Vllm(Dialect):
    api = "vllm"
    health = "/health"
    sampling: ClassVar[Mapping[str, str]] = MappingProxyType(
        STANDARD
        | {name: name for name in ("top_k", "min_p", "repetition_penalty", "min_tokens", "ignore_eos")}
    )
    extra: ClassVar[Mapping[str, Any]] = MappingProxyType({"return_token_ids": True})
    # The template still shows the tools; what the model says of them stays text, as diplex carries it.
    with_tools: ClassVar[Mapping[str, Any]] = MappingProxyType({"tool_choice": "none"})
    priority = "priority"
    sooner = -1
    salt = "cache_salt"
    priority_flag = "--scheduling-policy priority"
    exact = True

    async def offered(self, upstream: Upstream, model: Mapping[str, Any]) -> Offered:
        samples = Samples(await page(upstream, "/metrics"), (_CACHE,))
        caches = [labels for labels, _ in samples[_CACHE]]  # one for each data-parallel engine
        sizes = [(_int(cache.get("num_gpu_blocks")), _int(cache.get("block_size"))) for cache in caches]
        known = [(blocks, size) for blocks, size in sizes if blocks and size]
        return Offered(
            capacity=sum((blocks - 1) * size for blocks, size in known) or None,
            block_tokens=known[0][1] if known else None,
            context=_int(model.get("max_model_len")),
            version=await _version(upstream),
        )

    async def gauges(self, upstream: Upstream) -> Gauges:
        samples = Samples(await page(upstream, "/metrics"), (*_USED, _RUNNING, _WAITING, _PREEMPTED))
        used = [value for name in _USED for _, value in samples[name]]
        return Gauges(
            used=sum(used) / len(used) if used else None,
            running=whole(samples.total(_RUNNING)),
            waiting=whole(samples.total(_WAITING)),
            preempted=whole(samples.total(_PREEMPTED)),
        )

    async def count(self, upstream: Upstream, model: str, prompt: pb.Prompt) -> Tokens | None:
        body: dict[str, Any] = {"model": model}
        if prompt.WhichOneof("content") == "chat":
            body |= {"messages": json.loads(prompt.chat.messages), "add_generation_prompt": True}
            if prompt.chat.tools:
                body["tools"] = json.loads(prompt.chat.tools)
        else:
            body["prompt"] = prompt.text
        return _int((await upstream.post("/tokenize", body)).get("count"))


async def _version(upstream: Upstream) -> str:
    try:
        return str((await upstream.get("/version"))["version"])
    except (Problem, KeyError, TypeError):
        return ""


def _int(value: object) -> int | None:
    """A label's or field's whole number; vLLM writes "None" for what it has not set."""
    try:
        return int(str(value))
    except ValueError:
        return None
