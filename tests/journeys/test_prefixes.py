"""What was read for one request is there for the next that begins alike, unless a tenant keeps to itself."""

from collections.abc import Callable
from typing import Any

import pytest

import diplex

CONFIG = """\
models:
  qwen2.5-72b-instruct: {profile: qwen2.5-72b, weights: mxfp4-mixed, kv_cache: mxfp8}
packages:
  pkg0: {gpu: b200, pattern: A, model: qwen2.5-72b-instruct, kv_blocks: 60,
         engine: {kind: sim, calibration: chapter}}
  pkg1: {gpu: b200, pattern: A, model: qwen2.5-72b-instruct, kv_blocks: 60,
         engine: {kind: sim, calibration: chapter}}
tiers:
  standard: {patterns: [A], max_output_tokens: 1024, priority: 50}
default_tier: standard
tenants:
  one: {api_key_env: KEY_ONE}
  other: {api_key_env: KEY_OTHER}
  alone: {api_key_env: KEY_ALONE, isolate_prefixes: true}
"""
KEYS = {"KEY_ONE": "one's", "KEY_OTHER": "other's", "KEY_ALONE": "nobody else's"}
WHOLE_BLOCKS = 416  # of 425 tokens, 32 a block


@pytest.fixture(scope="module")
def running(shared_fleet: Callable[..., Any]) -> Any:
    return shared_fleet(CONFIG, "--no-rest", env=KEYS)


async def ask(client: diplex.AsyncClient, key: str, words: str = "a long beginning ") -> diplex.Reply:
    return await client.generate(words * 100, api_key=key, max_tokens=16)


async def test_a_beginning_that_is_resident_is_found_and_not_read_again(running: Any):
    async with diplex.AsyncClient(running.router) as client:
        first, again, others = [await ask(client, key) for key in ("one's", "one's", "other's")]
    assert [reply.usage.cached_tokens for reply in (first, again, others)] == [0, WHOLE_BLOCKS, WHOLE_BLOCKS]
    assert first.serving.worker == again.serving.worker == others.serving.worker
    settled = await running.settled()
    assert max(worker.blocks.cached for worker in settled.workers) == WHOLE_BLOCKS // 32
    assert settled.leases.over_capacity == 0


async def test_what_a_tenant_keeps_to_itself_nobody_else_finds_and_it_finds_nobody_elses(running: Any):
    words = "a secret beginning"
    async with diplex.AsyncClient(running.router) as client:
        keys = ("nobody else's", "one's", "nobody else's", "other's", "nobody else's")
        told = [(await ask(client, key, words)).usage.cached_tokens for key in keys]
    assert [tokens > 0 for tokens in told] == [False, False, True, True, True]
    settled = await running.settled()
    assert sum(worker.refused for worker in settled.workers) == 0
