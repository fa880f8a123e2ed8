"""llama.cpp's server, started by somebody else: slots with a share of the cache each, and a tokenizer.

`engines/llamacpp.py` starts one of its own and speaks its native interface instead. Names from llama.cpp's
tools/server/README.md.
"""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final

from diplex.v1 import generation_pb2 as pb
from diplex_core.words import Tokens
from diplex_workers.engines.dialects.dialect import STANDARD, Dialect, Gauges, Offered, page
from diplex_workers.engines.llamacpp_questions import Questions, tokens_in
from diplex_workers.engines.openai_http import Upstream

_BLOCK: Final = 32


class LlamaCpp(Dialect):
    api = "llamacpp"
    health = "/health"
    sampling: ClassVar[Mapping[str, str]] = MappingProxyType(
        STANDARD
        | {"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repeat_penalty"}
        | {"ignore_eos": "ignore_eos"}
    )
    with_tools: ClassVar[Mapping[str, Any]] = MappingProxyType({"tool_choice": "none"})

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
        return Gauges(sum(tokens_in(slot) for slot in busy) / room, len(busy)) if room else Gauges()

    async def count(self, upstream: Upstream, model: str, prompt: pb.Prompt) -> Tokens | None:
        return len(await Questions(upstream).ids_of(prompt))
