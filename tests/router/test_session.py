"""`Router.Session` over real gRPC."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2, worker_pb2
from diplex.wire.grants import Keys
from diplex.wire.status import Problem


def ask(ask_id: int, **more: Any) -> router_pb2.RouterSessionRequest:
    fields = {"request_id": f"r{ask_id}", "prompt_tokens": 8, "max_tokens": 4, **more}
    return router_pb2.RouterSessionRequest(asks=[router_pb2.Ask(ask_id=ask_id, **fields)])


async def open_session(stub: Any) -> Any:
    call = stub.Session()
    hello = await call.read()
    assert hello.router == "r1"
    assert hello.epoch
    return call


async def test_an_ask_is_answered_with_a_signed_grant_for_the_worker(worker: Any, new_router: Any) -> None:
    async with new_router(worker) as stub:
        session = await open_session(stub)
        await session.write(ask(1))
        (granted,) = (await session.read()).granted
        grant = Keys.of("k1:for tests only").verify(granted.grant)
        assert (granted.ask_id, granted.address) == (1, f"127.0.0.1:{worker.port}")
        assert (grant.worker, grant.boot, grant.blocks, grant.max_tokens) == ("w1", 1, 1, 4)
        assert grant.claim.lease_id >> 32 == grant.epoch
        session.cancel()


async def test_asks_of_one_message_are_answered_together_and_refused_one_by_one(
    worker: Any, new_router: Any
) -> None:
    async with new_router(worker) as stub:
        session = await open_session(stub)
        asks = [
            router_pb2.Ask(ask_id=1, prompt_tokens=8),
            router_pb2.Ask(ask_id=2, prompt_tokens=8, tier="gold"),
        ]
        await session.write(router_pb2.RouterSessionRequest(asks=asks))
        answer = await session.read()
        assert [granted.ask_id for granted in answer.granted] == [1]
        problem = Problem.from_bytes(answer.refused[0].status)
        assert (problem.reason, problem.field) == ("UNKNOWN_TIER", "tier")
        session.cancel()


async def test_a_session_that_ends_gives_back_what_it_did_not_start(
    worker: Any, new_router: Any, wait_for_fleet: Any
) -> None:
    async with new_router(worker) as stub:
        session = await open_session(stub)
        await session.write(ask(1))
        await session.read()
        session.cancel()
        order = await asyncio.wait_for(worker.orders.get(), 5)
        assert order.stops[0].reason == pb.END_REASON_REVOKED
        fleet = await wait_for_fleet(
            stub, lambda f: f.leases.closed == 1 and f.workers[0].blocks.reclaiming == 0
        )
        assert fleet.workers[0].blocks.free == 100


async def test_what_waits_is_told_its_place_and_granted_when_there_is_room(
    worker: Any, new_router: Any
) -> None:
    worker.slots = 1
    async with new_router(worker) as stub:
        session = await open_session(stub)
        await session.write(ask(1))
        (first,) = (await session.read()).granted
        await session.write(ask(2))
        (queued,) = (await session.read()).queued
        assert (queued.ask_id, queued.position) == (2, 0)
        grant = pb.Grant.FromString(first.grant.grant)
        await session.write(router_pb2.RouterSessionRequest(withdraws=[router_pb2.Withdraw(ask_id=1)]))
        (second,) = (await session.read()).granted
        assert second.ask_id == 2
        assert pb.Grant.FromString(second.grant.grant).claim.lease_id == grant.claim.lease_id + 1
        session.cancel()


async def test_a_restarted_worker_is_used_again(
    new_worker: Any, serve: Any, new_router: Any, wait_for_fleet: Any
) -> None:
    worker = new_worker("w1")
    async with AsyncExitStack() as first_life:
        await first_life.enter_async_context(serve(worker))
        async with new_router(worker) as stub:
            await first_life.aclose()
            await wait_for_fleet(stub, lambda f: f.workers[0].state in ("lost", "down"))
            async with serve(new_worker("w1", port=worker.port, boot=2)):
                fleet = await wait_for_fleet(stub, lambda f: f.workers[0].state == "up")
                assert fleet.workers[0].info.boot == 2


async def test_running_claims_are_adopted_after_a_restart_of_the_router(
    worker: Any, new_router: Any, wait_for_fleet: Any
) -> None:
    claim = pb.Claim(lease_id=5 << 32 | 9, attempt=1)
    worker.adopted = [worker_pb2.Held(claim=claim, blocks=40, slots=1)]
    async with new_router(worker) as stub:
        fleet = await wait_for_fleet(stub, lambda f: f.leases.adopted == 1)
        assert fleet.workers[0].blocks.reserved == 40
        worker.report(ended=[worker_pb2.Ended(claim=claim, reason=pb.END_REASON_STOP)])
        fleet = await wait_for_fleet(stub, lambda f: f.leases.closed == 1)
        assert fleet.workers[0].blocks.reserved == 0
