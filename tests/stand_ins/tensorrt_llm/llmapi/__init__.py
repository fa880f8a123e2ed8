"""The stand-in's classes, and an engine that answers: token n of an answer is the prompt's length plus n."""

import asyncio
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_FILE = Path(__file__).parents[3] / "workers/engines/trtllm_stand_in.py"
_SPEC = importlib.util.spec_from_file_location("trtllm_stand_in", _FILE)
assert _SPEC is not None and _SPEC.loader is not None
stand_in: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(stand_in)

SamplingParams = stand_in.SamplingParams
GuidedDecodingParams = stand_in.GuidedDecodingParams
KvCacheConfig = stand_in.KvCacheConfig
KvCacheRetentionConfig = stand_in.KvCacheRetentionConfig
TorchLlmArgs = stand_in.TorchLlmArgs
STEP = 0.005


class SchedulerConfig(stand_in.SchedulerConfig):
    policies = ("fcfs", "priority")


class LLM(stand_in.NewLLM):
    """Answers a token a step. Keeps every whole block of every prompt, by its own hashes."""

    def __init__(self, **words: Any) -> None:
        super().__init__(**words)
        self._kept: set[int] = set()
        self._live: set[Any] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.tell({"type": "created", "num_blocks_per_cache_level": [self.blocks, 0]})

    def _begin(self, inputs: Sequence[int], sampling_params: Any, **words: Any) -> Any:
        request = super()._begin(inputs, sampling_params, **words)
        if request in self.requests:
            self._live.add(request)
            task = asyncio.create_task(self._answer(request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return request

    async def _answer(self, request: Any) -> None:
        request.cached_tokens = self._read(request.ids, request.words["salt"])
        for place in range(request.sampling.max_tokens):
            await asyncio.sleep(STEP)
            if request.aborted:
                request.let_go()
                break
            last = place == request.sampling.max_tokens - 1
            for choice in range(request.sampling.n):
                request.say(len(request.ids) + place, choice=choice, end="length" if last else None)
            self._iterate()
        self._live.discard(request)
        self._iterate()

    def _read(self, ids: Sequence[int], salt: str | None) -> int:
        """Keep a prompt's blocks, and tell of those that are new; tokens of it that were there already."""
        size = self.args.kv_cache_config.tokens_per_block
        parent, cached = 0, 0
        for start in range(0, len(ids) - size + 1, size):
            tokens = tuple(ids[start : start + size])
            name = hash((parent, tokens, salt if parent == 0 else None))
            if name in self._kept:
                cached += size
            else:
                self._kept.add(name)
                said = [{"type": "unique_token", "token_id": one, "token_extra_id": 0} for one in tokens]
                block = {"type": "stored_block", "block_hash": name, "tokens": said}
                block |= {"cache_level": 0, "priority": 35}
                self.tell({"type": "stored", "parent_hash": parent or None, "blocks": [block]})
            parent = name
        return cached

    def _iterate(self) -> None:
        size = self.args.kv_cache_config.tokens_per_block
        held = [len(one.ids) + sum(len(out.token_ids) for out in one.outputs) for one in self._live]
        self.iterate(used=sum(-(-tokens // size) for tokens in held), active=len(held))
