"""A client that cannot reach its worker sends the request through the router, and nothing of it is lost."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

import diplex
from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2
from diplex.wire.status import Problem


@pytest.fixture
async def desk(router: Any, client: Any) -> Any:
    return await router.desk()


@pytest.fixture
async def nowhere(other: Any) -> Any:
    """A worker that advertises an address at which nobody answers."""
    await other.kill()
    return other


@pytest.fixture
async def through(router: Any) -> AsyncIterator[diplex.AsyncClient]:
    async with diplex.AsyncClient(router.address, direct="never", api_key="acme") as client:
        await client.wait_ready()
        yield client


async def test_a_request_whose_worker_cannot_be_reached_goes_through_the_router(
    client, desk, router, nowhere
):
    reply = asyncio.create_task(client.generate("a prompt", max_tokens=9, temperature=0.5, request_id="r1"))
    ask = await desk.hears()
    await desk.grant(ask, nowhere)
    proxied = await router.proxies()
    request = proxied.request
    assert (request.request_id, request.prompt.text, request.max_tokens) == ("r1", "a prompt", 9)
    assert request.sampling.temperature == 0.5
    await proxied.serve("to", " be")
    await proxied.end()
    said = await reply
    assert (said.text, said.finish_reason) == ("to be", "stop")
    assert said.serving.worker == "w9"


async def test_it_gives_its_grant_back(client, desk, router, nowhere):
    reply = asyncio.create_task(client.generate("a prompt"))
    ask = await desk.hears()
    await desk.grant(ask, nowhere)
    withdraw = await desk.hears()
    assert isinstance(withdraw, router_pb2.Withdraw)
    assert withdraw.ask_id == ask.ask_id
    await (await router.proxies()).end()
    await reply


async def test_the_address_is_remembered_so_that_the_next_request_asks_for_no_grant(
    client, desk, router, nowhere
):
    first = asyncio.create_task(client.generate("a prompt"))
    await desk.grant(await desk.hears(), nowhere)
    await (await router.proxies()).end()
    await first
    assert isinstance(await desk.hears(), router_pb2.Withdraw)
    second = asyncio.create_task(client.generate("another"))
    await (await router.proxies()).end()
    await second
    assert desk.heard.empty()


async def test_workers_in_reach_are_still_reached_straight(client, desk, router, worker, nowhere):
    for at, proxied in ((worker, False), (nowhere, True), (worker, False)):
        reply = asyncio.create_task(client.generate("a prompt"))
        ask = await desk.hears()
        await desk.grant(ask, at)
        if proxied:
            await (await router.proxies()).end()
            assert isinstance(await desk.hears(), router_pb2.Withdraw)
        else:
            await (await worker.plays()).done(pb.END_REASON_STOP)
        await reply
    assert router.proxied.empty()


async def test_an_answer_that_has_begun_is_asked_for_again_and_not_sent_anew(
    client, desk, worker, nowhere, heard, router
):
    consumer = heard()
    client.start(consumer, "a prompt")
    await desk.grant(await desk.hears(), worker)
    playing = await worker.plays()
    await playing.say("to")
    await playing.done(pb.END_REASON_PREEMPTED)
    await desk.grant(await desk.hears(), nowhere)
    again = await desk.hears()
    assert (again.again.worker, again.again.produced_tokens) == ("w2", 1)
    await desk.grant(again, worker)
    playing = await worker.plays()
    assert playing.start.resume.from_index == 1
    await playing.done(pb.END_REASON_STOP)
    await consumer.end()
    assert router.proxied.empty()


async def test_a_client_told_never_to_go_straight_asks_for_no_grant(through, router):
    desk = await router.desk()
    reply = asyncio.create_task(through.generate("a prompt", tier="bulk"))
    proxied = await router.proxies()
    assert (proxied.request.tier, proxied.request.api_key) == ("bulk", "acme")
    await proxied.end()
    await reply
    assert desk.heard.empty()


async def test_a_client_told_always_to_go_straight_never_goes_round(router, nowhere, worker, heard):
    consumer = heard()
    async with diplex.AsyncClient(router.address, direct="always") as client:
        desk = await router.desk()
        client.start(consumer, "a prompt")
        await desk.grant(await desk.hears(), nowhere)
        await desk.grant(await desk.hears(), worker)
        await (await worker.plays()).done(pb.END_REASON_STOP)
        await consumer.end()
    assert router.proxied.empty()


def test_another_word_than_the_three_is_named() -> None:
    with pytest.raises(ValueError, match=r"direct is 'sometimes'\. Mend: one of auto, always, never"):
        diplex.AsyncClient(direct="sometimes")  # type: ignore[arg-type]


async def test_the_queue_and_a_preemption_are_told_as_they_would_be_straight(through, router, heard):
    consumer = heard()
    through.start(consumer, "a prompt")
    proxied = await router.proxies()
    await proxied.say(queued=router_pb2.Queued(position=3))
    await proxied.serve("to", worker="w1")
    await proxied.say(serving=router_pb2.Serving(worker="w2", preemptions=1))
    await proxied.end()
    await consumer.end()
    assert (consumer.queued, consumer.served, consumer.preempted) == ([3], ["w1", "w2"], [1])


@pytest.mark.parametrize("said", [False, True])
async def test_what_the_router_refuses_is_refused_for_good(through, router, heard, said):
    problem = Problem(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full", "QUEUE_FULL", retry_after=2.0)
    consumer = heard()
    through.start(consumer, "a prompt")
    proxied = await router.proxies()
    if said:
        await proxied.say(done=pb.Done(reason=pb.END_REASON_REFUSED, error=problem.to_bytes()))
    with pytest.raises(grpc.aio.AbortError):
        await problem.abort(proxied.context)
    proxied.over.set()
    assert (await consumer.end()).reason == pb.END_REASON_REFUSED
    assert (consumer.problem.reason, consumer.problem.retry_after) == ("QUEUE_FULL", 2.0)


async def test_leaving_ends_the_call(through, router, heard, within):
    consumer = heard()
    life = through.start(consumer, "a prompt")
    proxied = await router.proxies()
    life.cancel()
    assert (await consumer.end()).reason == pb.END_REASON_CANCELLED
    await within(proxied.left.wait())


async def test_a_request_left_before_its_call_began_ends_all_the_same(through, heard):
    consumer = heard()
    through.start(consumer, "a prompt").cancel()
    assert (await consumer.end()).reason == pb.END_REASON_CANCELLED


async def test_a_router_that_dies_before_the_first_token_is_asked_again_when_it_is_back(
    through, router, heard
):
    consumer = heard()
    through.start(consumer, "a prompt")
    await router.proxies()
    await router.kill()
    await router.start()
    proxied = await router.proxies()
    await proxied.serve("whole")
    await proxied.end()
    await consumer.end()
    assert consumer.text == "whole"


async def test_a_router_that_dies_later_cuts_the_answer_short_and_says_so(through, router, heard, wait_until):
    consumer = heard()
    through.start(consumer, "a prompt")
    await (await router.proxies()).serve("to")
    await wait_until(lambda: consumer.tokens)
    await router.kill()
    await consumer.end()
    assert consumer.problem.reason == "CUT_SHORT"


async def test_nothing_is_read_beyond_a_window(through, router, heard, wait_until):
    consumer = heard()
    life = through.start(consumer, "a prompt")
    life.window(1)
    proxied = await router.proxies()
    await proxied.serve("to")
    await proxied.serve(" be", index=1)
    await wait_until(lambda: consumer.tokens)
    assert consumer.text == "to"
    life.window(0)
    await wait_until(lambda: consumer.text == "to be")
    await proxied.end()
    await consumer.end()


async def test_a_trace_goes_on_through_the_router(through, router, heard):
    consumer = heard()
    wanted = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    from opentelemetry import context, trace

    from diplex.wire.context import parent_of

    token = context.attach(parent_of(wanted))
    try:
        assert trace.get_current_span().get_span_context().is_valid
        through.start(consumer, "a prompt")
    finally:
        context.detach(token)
    proxied = await router.proxies()
    assert proxied.metadata["traceparent"].split("-")[1] == wanted.split("-")[1]
    await proxied.end()
    await consumer.end()
