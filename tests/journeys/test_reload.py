"""Tiers and tenants change under 120 running streams: each ends whole, and the next request obeys."""

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

import diplex
from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2, router_pb2_grpc
from diplex.wire.serving import channel
from diplex_core.sim import speech

MODEL = "qwen2.5-72b-instruct"
KEYS = {"acme": "key of acme", "globex": "key of globex", "hooli": "key of hooli"}
NEW_KEY = "key of initech"
LONG = (
    200  # tokens, in a quarter of the simulated speed: a stream runs for longer than all that is asked of it
)

# As many slots as streams, so that every one of them runs when the file is rewritten.
BEFORE = """\
models:
  qwen2.5-72b-instruct: {profile: qwen2.5-72b, weights: mxfp4-mixed, kv_cache: mxfp8}
packages:
  pkg0: {gpu: b200, pattern: C, model: qwen2.5-72b-instruct, slots: 80,
         engine: {kind: sim, calibration: chapter, time_scale: 0.25}}
  pkg1: {gpu: b200, pattern: A, model: qwen2.5-72b-instruct, slots: 80,
         engine: {kind: sim, calibration: chapter, time_scale: 0.25}}
tiers:
  standard: {patterns: [A, C], max_output_tokens: 4096, priority: 50}
  bulk: {patterns: [A, C], max_output_tokens: 8192}
  legacy: {patterns: [C, A]}
default_tier: standard
tenants:
  acme: {api_key_env: ACME_KEY, tiers: [standard, bulk, legacy]}
  globex: {api_key_env: GLOBEX_KEY}
  hooli: {api_key_env: HOOLI_KEY}
"""
# A cap is lowered, a target changes, a tier goes and one comes; a tenant is narrowed, one goes and one comes.
AFTER = (
    BEFORE[: BEFORE.index("tiers:\n")]
    + """\
tiers:
  standard: {patterns: [A, C], max_output_tokens: 5, priority: 50}
  bulk: {patterns: [A, C], max_output_tokens: 8192, ttft_p95_ms: 60000}
  express: {patterns: [C], max_output_tokens: 3, priority: 100}
default_tier: standard
tenants:
  acme: {api_key_env: ACME_KEY, tiers: [bulk]}
  hooli: {api_key_env: HOOLI_KEY}
  initech: {api_key_file: initech.key}
"""
)
BROKEN = AFTER.replace("express: {patterns: [C]", "express: {patterns: [E]")

SAME = "the configuration was read again: the rules are the same"

Ask = tuple[str, str, str]  # prompt, tier, key


def spoken(prompt: str, tokens: int) -> str:
    digest = speech.prompt_digest("text", prompt.encode())
    return "".join(speech.token(digest, 0, place)[1] for place in range(tokens))


def asks(road: str, count: int) -> list[Ask]:
    """Every prompt is another; tiers and tenants take turns, those that are to go among them."""
    tiers, tenants = ("standard", "bulk", "legacy"), tuple(KEYS)
    return [(f"{road} {at}", tiers[at % 3], KEYS[tenants[at // 3 % 3]]) for at in range(count)]


class Roads:
    """The three ways to a stream, each answering its whole text."""

    def __init__(
        self, fleet: Any, client: diplex.AsyncClient, http: aiohttp.ClientSession, stub: Any
    ) -> None:
        self._fleet, self._client, self._http, self._stub = fleet, client, http, stub

    async def sdk(self, prompt: str, tier: str, key: str, most: int = LONG) -> str:
        stream = self._client.stream(prompt, tier=tier, api_key=key, max_tokens=most)
        return "".join([chunk.text async for chunk in stream])

    async def proxied(self, prompt: str, tier: str, key: str, most: int = LONG) -> str:
        wanted = router_pb2.RouterGenerateRequest(
            tier=tier, api_key=key, max_tokens=most, prompt=pb.Prompt(text=prompt)
        )
        return "".join([news.text async for answer in self._stub.Generate(wanted) for news in answer.tokens])

    async def rest(self, prompt: str, tier: str, key: str, most: int = LONG) -> str:
        async with self.posted(prompt, tier, key, most) as response:
            assert response.status == 200, await response.text()
            text, closed = "", False
            async for line in response.content:
                data = line.decode().removeprefix("data: ").strip()
                closed = closed or data == "[DONE]"
                text += json.loads(data)["choices"][0]["text"] if data and not closed else ""
            assert closed
            return text

    async def refused(self, prompt: str, tier: str, key: str) -> tuple[int, str]:
        """The shim's status, and its words."""
        async with self.posted(prompt, tier, key, 8) as response:
            return response.status, (await response.json())["error"]["message"]

    def posted(self, prompt: str, tier: str, key: str, most: int) -> Any:
        body = {"model": MODEL, "prompt": prompt, "max_tokens": most, "stream": True}
        headers = {"Authorization": f"Bearer {key}", "X-Diplex-Tier": tier}
        return self._http.post(f"{self._fleet.rest}/v1/completions", json=body, headers=headers)


async def test_rules_change_while_streams_run_and_hold_from_the_next_request(fleet: Any):
    running = fleet(BEFORE, env={f"{name.upper()}_KEY": key for name, key in KEYS.items()})
    file: Path = running.folder / "fleet.yaml"
    epoch = (await running.state()).epoch
    async with (
        diplex.AsyncClient(running.router) as client,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
        channel(running.router) as to_router,
    ):
        roads = Roads(running, client, http, router_pb2_grpc.RouterStub(to_router))
        asked = [(roads.sdk, ask) for ask in asks("sdk", 100)]
        asked += [(roads.proxied, ask) for ask in asks("proxied", 10)]
        asked += [(roads.rest, ask) for ask in asks("rest", 10)]
        streams = [asyncio.create_task(road(*ask)) for road, ask in asked]
        await state_when(running, lambda state: state.leases.running == len(streams), "all streams run")

        (running.folder / "initech.key").write_text(f"{NEW_KEY}\n")
        replaced(file, AFTER)
        await state_when(running, lambda state: state.rules_version == 1, "the new rules hold")
        assert (
            "rules 1: tiers standard, bulk changed, express added, legacy removed; "
            "tenants acme changed, initech added, globex removed"
        ) in running.log.read_text()
        assert not any(stream.done() for stream in streams)
        await they_hold(roads)

        replaced(file, BROKEN)
        line = next(at for at, text in enumerate(BROKEN.splitlines(), 1) if "[E]" in text)
        told = (
            "the configuration cannot be taken, the rules stay as they are: "
            f"{file}:{line}: tiers.express.patterns: 'E' is not a pattern ⏎ "
            "  known: A, B, C, D, A+EAGLE ⏎   mend:  patterns: [C, A]"
        )
        await logged(running, told)
        await they_hold(roads)

        replaced(file, AFTER)
        await logged(running, SAME)
        os.kill(running.pid_of("router"), signal.SIGHUP)
        await logged(running, SAME, times=2)
        await they_hold(roads)

        texts = await asyncio.wait_for(asyncio.gather(*streams), 120)
    wrong = [ask for (_, ask), text in zip(asked, texts, strict=True) if text != spoken(ask[0], LONG)]
    assert wrong == []
    state = await running.settled()
    assert (state.rules_version, state.epoch) == (1, epoch), (
        "a broken file brought no rules, nor a new router"
    )
    assert state.leases.over_capacity == 0
    assert running.log.read_text().count(told) == 1


async def they_hold(roads: Roads) -> None:
    """What AFTER says, asked of each road to the router."""
    acme, globex, hooli = KEYS.values()
    for road in (roads.sdk, roads.proxied, roads.rest):
        assert await road("who are you", "express", NEW_KEY) == spoken("who are you", 3), (
            "tier and tenant are new"
        )
        assert await road("how long", "standard", hooli) == spoken("how long", 5), "the cap is lower"
        assert await road("in bulk", "bulk", acme, 4) == spoken("in bulk", 4)

    narrowed = "tenant acme may use tiers bulk, not standard"
    assert await roads.refused("narrowed", "standard", acme) == (403, narrowed)
    assert await denied(roads.proxied("narrowed", "standard", acme)) == ("PERMISSION_DENIED", narrowed)
    with pytest.raises(diplex.DiplexError, match=narrowed):
        await roads.sdk("narrowed", "standard", acme)

    stranger = "the API key belongs to no tenant. Mend: send a configured key"
    assert await roads.refused("removed", "bulk", globex) == (401, stranger)
    assert await denied(roads.proxied("removed", "bulk", globex)) == ("UNAUTHENTICATED", stranger)

    unknown = "unknown tier 'legacy'; known: standard, bulk, express"
    assert await roads.refused("gone", "legacy", hooli) == (400, unknown)


async def denied(answer: Awaitable[str]) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer
    return caught.value.code().name, caught.value.details() or ""


def replaced(file: Path, text: str) -> None:
    """As an editor saves: a new file, renamed into the old one's place."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


async def state_when(running: Any, true: Callable[[Any], bool], what: str) -> Any:
    async def look() -> Any:
        state = await running.state()
        return state if true(state) else None

    return await running.until(look, what, within=20)


async def logged(running: Any, words: str, *, times: int = 1) -> None:
    async def look() -> bool:
        return running.log.read_text().count(words) == times

    await running.until(look, f"logged {times} times: {words}", within=20)
