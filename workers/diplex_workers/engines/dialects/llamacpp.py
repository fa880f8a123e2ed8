"""llama.cpp's server, started by somebody else: slots with a share of the cache each, and a tokenizer.

It has no gauge of its KV cache, but `/slots` says what each sequence has in it; how many requests wait for a
slot is on the Prometheus page that `--metrics` switches on. `engines/llamacpp.py` starts one of its own and
speaks its native interface instead. Names from llama.cpp's tools/server/README.md.
"""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final

from diplex.v1 import generation_pb2 as pb
from diplex_core.words import Tokens
from diplex_workers.engines.dialects.dialect import STANDARD, Dialect, Gauges, Offered, page, whole
from diplex_workers.engines.dialects.prometheus import Samples
from diplex_workers.engines.llamacpp_questions import Questions, tokens_in
from diplex_workers.engines.openai_http import Upstream

_BLOCK: Final = 32
_WAITING: Final = "llamacpp:requests_deferred"


class LlamaCpp(Dialect):
    api = "llamacpp"
    health = "/health"
    sampling: ClassVar[Mapping[str, str]] = MappingProxyType(
        STANDARD
        | {"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repeat_penalty"}
        | {"ignore_eos": "ignore_eos"}
    )
    # Each chunk says how many tokens there are by then: it may hold several, or half a character and no text.
    extra: ClassVar[Mapping[str, Any]] = MappingProxyType({"timings_per_token": True})
    with_tools: ClassVar[Mapping[str, Any]] = MappingProxyType({"tool_choice": "none"})

    exact = True

    async def offered(self, upstream: Upstream, model: Mapping[str, Any]) -> Offered:
        props = json.loads(await page(upstream, "/props") or "{}")
        context = (props.get("default_generation_settings") or {}).get("n_ctx")
        slots = props.get("total_slots")
        return Offered(
            capacity=context * slots if context and slots else None,
            block_tokens=_BLOCK,
            slots=slots,
            context=context,
            version=str(props.get("build_info", "")),
        )

    async def gauges(self, upstream: Upstream) -> Gauges:
        slots = json.loads(await page(upstream, "/slots") or "[]")
        busy = [slot for slot in slots if slot.get("is_processing")]
        room = sum(slot.get("n_ctx", 0) for slot in slots)
        if not room:
            return Gauges()
        return Gauges(
            used=sum(tokens_in(slot) for slot in busy) / room,
            running=len(busy),
            waiting=whole(Samples(await page(upstream, "/metrics"), (_WAITING,)).total(_WAITING)),
        )

    def produced(self, chunk: Mapping[str, Any]) -> Tokens | None:
        tokens = (chunk.get("timings") or {}).get("predicted_n")
        return None if tokens is None else int(tokens)

    async def count(self, upstream: Upstream, model: str, prompt: pb.Prompt) -> Tokens | None:
        return len(await Questions(upstream).ids_of(prompt))
