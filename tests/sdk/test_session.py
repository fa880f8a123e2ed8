"""The client's session with its router: one for all requests, back by itself, and patient for so long."""

import asyncio
from typing import Any

import pytest

import diplex
from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2


async def test_all_requests_of_a_client_share_one_session(router, client, worker, within):
    worker.echo, router.placed = True, lambda ask: worker
    replies = await within(asyncio.gather(*(client.generate(f"prompt {n}", max_tokens=3) for n in range(20))))
    assert {reply.text for reply in replies} == {" 0 1 2"}
    assert router.desks.qsize() == 1
    assert worker.streams.qsize() == 1


async def test_asks_have_numbers_that_are_never_used_twice(router, client, heard):
    desk = await router.desk()
    lives = [client.start(heard(), "a prompt") for _ in range(3)]
    numbers = [(await desk.hears()).ask_id for _ in lives]
    lives[0].cancel()
    assert (await desk.hears()).ask_id == numbers[0]
    client.start(heard(), "a prompt")
    assert (await desk.hears()).ask_id not in numbers
    assert len(set(numbers)) == 3


async def test_the_clients_key_goes_with_the_session_and_with_each_ask(router, within, heard):
    async with diplex.AsyncClient(router.address, api_key="acme") as client:
        desk = await router.desk()
        await client.wait_ready(5)
        assert desk.metadata["authorization"] == "Bearer acme"
        client.start(heard(), "a prompt")
        client.start(heard(), "a prompt", api_key="other")
        assert [(await desk.hears()).api_key for _ in range(2)] == ["acme", "other"]


async def test_a_session_that_breaks_is_dialled_again(router, client, worker, wait_until):
    (await router.desk()).break_off()
    await wait_until(lambda: not client.ready)
    worker.echo, router.placed = True, lambda ask: worker
    assert (await client.generate("a prompt", max_tokens=2, timeout=5)).text == " 0 1"


async def test_a_router_that_ends_the_session_in_peace_is_dialled_again_too(router, client, wait_until):
    desk = await router.desk()
    await router.kill()
    await wait_until(lambda: not client.ready)
    assert desk.ended.is_set()
    await router.start()
    await router.desk()
    await client.wait_ready(5)


async def test_a_request_waits_for_a_router_that_is_being_restarted(router, client, worker, wait_until):
    await router.kill()
    await wait_until(lambda: not client.ready)
    asked = asyncio.create_task(client.generate("a prompt", max_tokens=2))
    worker.echo, router.placed = True, lambda ask: worker
    await router.start()
    assert (await asked).text == " 0 1"


async def test_a_fresh_client_waits_for_a_router_that_is_not_there_yet(router, worker):
    await router.kill()
    worker.echo, router.placed = True, lambda ask: worker
    async with diplex.AsyncClient(router.address) as client:
        asked = asyncio.create_task(client.generate("a prompt", max_tokens=2))
        await asyncio.sleep(0)
        await router.start()
        assert (await asked).text == " 0 1"


async def test_where_no_router_is_a_request_ends_in_unavailable_after_a_while(router):
    await router.kill()
    async with diplex.AsyncClient(router.address, patience=0.1) as client:
        for _ in range(2):  # the second finds that the client has given up already
            with pytest.raises(diplex.Unavailable, match="no router answers") as raised:
                await client.generate("a prompt")
            assert raised.value.reason == "NO_ROUTER"
            assert router.address in raised.value.message


async def test_a_requests_own_timeout_may_be_shorter_than_the_clients_patience(router):
    await router.kill()
    async with diplex.AsyncClient(router.address) as client:
        with pytest.raises(diplex.DeadlineExceeded):
            await client.generate("a prompt", timeout=0.1)


async def test_a_request_that_waits_when_patience_ends_is_refused(router, wait_until, heard):
    async with diplex.AsyncClient(router.address, patience=0.2) as client:
        await client.wait_ready(5)
        consumer = heard()
        client.start(consumer, "a prompt")
        await (await router.desk()).hears()
        await router.kill()
        assert (await consumer.end()).reason == pb.END_REASON_REFUSED
        assert consumer.problem.reason == "NO_ROUTER"


async def test_closing_the_client_ends_what_waits_and_what_runs(router, worker, heard, within):
    async with diplex.AsyncClient(router.address) as client:
        await client.wait_ready(5)
        desk = await router.desk()
        waits, runs = heard(), heard()
        client.start(runs, "a prompt")
        await desk.grant(await desk.hears(), worker)
        playing = await worker.plays()
        client.start(waits, "a prompt")
        await desk.hears()
    assert [len(consumer.dones) for consumer in (waits, runs)] == [1, 1]
    assert waits.dones[0].reason == runs.dones[0].reason == pb.END_REASON_CANCELLED
    await within(desk.ended.wait())
    await within(playing.stream.ended.wait())
    await client.aclose()


async def test_answers_to_asks_that_nobody_knows_are_passed_over(router, client, worker):
    desk = await router.desk()
    stray: Any = {"ask_id": 999}
    await desk.say(
        queued=[router_pb2.Queued(**stray)],
        granted=[router_pb2.Granted(**stray)],
        refused=[router_pb2.Refused(**stray)],
        revoked=[router_pb2.Revoked(**stray)],
    )
    worker.echo, router.placed = True, lambda ask: worker
    assert (await client.generate("a prompt", max_tokens=1)).text == " 0"
