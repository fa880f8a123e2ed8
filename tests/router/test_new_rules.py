"""The rules are replaced while a router runs: whoever asks next is judged by the new ones."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2
from diplex_core.words import Pattern, Rules, Tenant, Tier


class Rewritten:
    """Rules that a test hands in one by one."""

    def __init__(self) -> None:
        self._coming: asyncio.Queue[Rules] = asyncio.Queue()

    def put(self, rules: Rules) -> None:
        self._coming.put_nowait(rules)

    async def coming(self) -> AsyncIterator[Rules]:
        while True:
            yield await self._coming.get()


def asked(**fields: Any) -> router_pb2.RouterGenerateRequest:
    return router_pb2.RouterGenerateRequest(prompt=pb.Prompt(text="hello"), max_tokens=50, **fields)


async def answered(stub: Any, **fields: Any) -> int:
    """How many tokens came."""
    return sum([news.count async for message in stub.Generate(asked(**fields)) for news in message.tokens])


async def refused(stub: Any, **fields: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answered(stub, **fields)
    return caught.value.code(), caught.value.details() or ""


async def test_the_next_request_obeys_the_new_rules(
    worker: Any, new_router: Any, rules: Rules, wait_for_fleet: Any, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, logger="diplex_router")
    rewritten = Rewritten()
    async with new_router(worker, new_rules=rewritten.coming()) as stub:
        assert await answered(stub) == 50
        assert (await refused(stub, tier="gold"))[0] is grpc.StatusCode.INVALID_ARGUMENT

        tiers = dict(rules.tiers)
        gold = Tier("gold", (Pattern.A,), max_output_tokens=7)
        lowered = replace(tiers["standard"], max_output_tokens=5)
        acme = Tenant("acme", "sesame", tiers=frozenset({"gold"}))
        rewritten.put(
            replace(rules, tiers={"standard": lowered, "gold": gold}, tenants=(acme, Tenant("b", "poppy")))
        )
        await wait_for_fleet(stub, lambda fleet: fleet.rules_version == 1)

        assert await answered(stub, tier="gold", api_key="sesame") == 7
        assert await answered(stub, api_key="poppy") == 5
        code, words = await refused(stub, api_key="sesame")
        assert (code, words) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "tenant acme may use tiers gold, not standard",
        )
        code, words = await refused(stub, tier="bulk", api_key="poppy")
        assert (code, words) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "unknown tier 'bulk'; known: standard, gold",
        )
        assert (await refused(stub, api_key="stranger"))[0] is grpc.StatusCode.UNAUTHENTICATED
        listed = await stub.ListModels(router_pb2.RouterListModelsRequest())
        assert list(listed.tiers) == ["standard", "gold"]
    assert [one.getMessage() for one in caplog.records if one.getMessage().startswith("rules ")] == [
        "rules 1: tiers standard changed, gold added, bulk removed; tenants acme, b added"
    ]


async def test_a_request_that_runs_goes_on_without_its_tier_and_its_tenant(
    worker: Any, new_router: Any, rules: Rules, wait_for_fleet: Any
):
    """The worker ends the sequence only after the rules have changed."""
    rewritten = Rewritten()
    acme = Tenant("acme", "sesame")
    worker.held_back = asyncio.Event()
    async with new_router(
        worker, rules=replace(rules, tenants=(acme,)), new_rules=rewritten.coming()
    ) as stub:
        running = asyncio.create_task(answered(stub, tier="bulk", api_key="sesame"))
        await wait_for_fleet(stub, lambda fleet: fleet.leases.running == 1)
        bcme = Tenant("bcme", "poppy")
        rewritten.put(replace(rules, tiers={"standard": rules.tiers["standard"]}, tenants=(bcme,)))
        await wait_for_fleet(stub, lambda fleet: fleet.rules_version == 1)
        worker.held_back.set()
        assert await running == 50
