"""What a user sees of the async client: replies, typed errors, models, and questions to the router."""

import asyncio
from typing import Any

import grpc
import pytest
from opentelemetry import trace

import diplex
from diplex.v1 import generation_pb2 as pb
from diplex.wire.context import parent_of
from diplex.wire.status import Problem

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def echoing(router: Any, worker: Any) -> Any:
    worker.echo, router.placed = True, lambda ask: worker
    return worker


async def test_a_whole_answer_tells_what_was_said_by_whom_and_how_fast(client, echoing):
    reply = await client.generate("a prompt", max_tokens=4, tier="bulk", request_id="mine")
    assert (reply.text, reply.texts, reply.ids) == (" 0 1 2 3", (" 0 1 2 3",), (0, 1, 2, 3))
    assert (reply.finish_reason, reply.finish_reasons) == ("length", ("length",))
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (3, 4, 7)
    assert reply.request_id == "mine"
    assert reply.serving == diplex.Serving(
        request_id="mine",
        worker="w1",
        package="pkg0",
        pattern="A",
        engine="script",
        simulated=True,
        tier="bulk",
        tenant="default",
        max_tokens=4,
        queue_ms=1.5,
    )
    assert 0 < reply.ttft_s <= reply.e2e_s
    assert reply.tokens_per_s is None or reply.tokens_per_s > 0


async def test_each_choice_has_its_own_text_and_reason(router, client, worker):
    asked = asyncio.create_task(client.generate("a prompt", n=2))
    desk = await router.desk()
    await desk.grant(await desk.hears(), worker)
    playing = await worker.plays()
    await playing.say("a", choice=0, index=0)
    await playing.say("x", "y", choice=1, index=0)
    reasons = [pb.END_REASON_STOP, pb.END_REASON_LENGTH]
    await playing.done(pb.END_REASON_STOP, choice_reasons=reasons, timing=pb.Timing(total_ms=1500))
    reply = await asked
    assert (reply.text, reply.texts, reply.finish_reasons) == ("a", ("a", "xy"), ("stop", "length"))
    assert (reply.timing.total_s, reply.timing.first_token_s) == (1.5, None)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, diplex.InvalidRequest),
        (grpc.StatusCode.FAILED_PRECONDITION, diplex.InvalidRequest),
        (grpc.StatusCode.NOT_FOUND, diplex.UnknownModel),
        (grpc.StatusCode.UNAUTHENTICATED, diplex.Unauthenticated),
        (grpc.StatusCode.PERMISSION_DENIED, diplex.PermissionDenied),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, diplex.Overloaded),
        (grpc.StatusCode.UNAVAILABLE, diplex.Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, diplex.DeadlineExceeded),
        (grpc.StatusCode.CANCELLED, diplex.Cancelled),
        (grpc.StatusCode.INTERNAL, diplex.EngineFailed),
    ],
)
async def test_what_the_router_refuses_is_raised_by_its_kind(router, client, code, kind):
    asked = asyncio.create_task(client.generate("a prompt"))
    desk = await router.desk()
    said = Problem(code, "no. Mend: none", "WHY", retry_after=2.0, metadata={"needed": "9"}, field="tier")
    await desk.refuse(await desk.hears(), said)
    with pytest.raises(kind) as raised:
        await asked
    error = raised.value
    assert (error.code, error.message, error.reason) == (code, "no. Mend: none", "WHY")
    assert (error.retry_after, error.metadata["needed"], error.field) == (2.0, "9", "tier")
    assert str(error) == "no. Mend: none"
    assert isinstance(error, diplex.DiplexError)


async def test_an_end_that_nobody_explains_is_still_an_error(router, client, worker):
    asked = asyncio.create_task(client.generate("a prompt"))
    desk = await router.desk()
    await desk.grant(await desk.hears(), worker)
    await (await worker.plays()).done(pb.END_REASON_FAILED)
    with pytest.raises(diplex.EngineFailed, match="failed"):
        await asked


async def test_cancelling_the_caller_ends_the_request_at_the_worker(router, client, worker, within):
    asked = asyncio.create_task(client.generate("a prompt"))
    desk = await router.desk()
    await desk.grant(await desk.hears(), worker)
    playing = await worker.plays()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await within(playing.cancelled.wait())


async def test_a_request_that_cannot_be_is_refused_before_anybody_is_asked(client):
    with pytest.raises(diplex.InvalidRequest) as raised:
        await client.generate()
    assert raised.value.field == "prompt"
    with pytest.raises(diplex.InvalidRequest, match="max_tokens"):
        client.stream("a prompt", max_tokens=0)
    with pytest.raises(diplex.InvalidRequest, match="JSON"):
        await client.generate(messages=b"not json")
    with pytest.raises(TypeError, match="temprature"):
        await client.generate("a prompt", temprature=1.0)


async def test_a_request_without_a_model_is_for_the_default_one_by_name(router, client, heard):
    client.start(heard(), "a prompt")
    assert (await (await router.desk()).hears()).model == "m"
    assert client.default_model == "m"


async def test_a_prompt_is_bound_by_its_models_figures(router, client, heard):
    desk = await router.desk()
    client.start(heard(), "x" * 400)
    client.start(heard(), prompt_ids=[1, 2, 3])
    assert [(ask.prompt_tokens, ask.exact) for ask in [await desk.hears() for _ in range(2)]] == [
        (100, False),
        (3, True),
    ]


async def test_a_model_that_is_not_listed_is_looked_for_once_more(router, client, heard):
    desk = await router.desk()
    router.models.append(pb.Model(name="new", bound=pb.CountBound(bytes_per_token=2), workers=1))
    looks = router.looks
    client.start(heard(), "x" * 400, model="new")
    ask = await desk.hears()
    assert (ask.model, ask.prompt_tokens) == ("new", 200)
    assert router.looks == looks + 1


async def test_a_model_that_nobody_knows_is_the_routers_to_refuse(router, client, heard):
    desk = await router.desk()
    client.start(heard(), "x" * 400, model="gpt-5")
    ask = await desk.hears()
    assert (ask.model, ask.prompt_tokens) == ("gpt-5", 400)


async def test_cancelled_while_its_model_is_looked_for_it_is_never_asked_for(router, client, heard):
    consumer = heard()
    life = client.start(consumer, "a prompt", model="gpt-5")
    life.cancel()
    assert (await consumer.end()).reason == pb.END_REASON_CANCELLED
    client.start(heard(), "a prompt", request_id="next")
    assert (await (await router.desk()).hears()).request_id == "next"


async def test_a_chat_for_a_model_without_template_is_refused_with_the_mend(router, wait_until):
    router.models[0].has_chat_template = False
    async with diplex.AsyncClient(router.address) as client:
        chat = [{"role": "user", "content": "hi"}]
        for _ in range(2):  # before the list is there, and after
            with pytest.raises(diplex.InvalidRequest, match="chat template") as raised:
                await client.generate(messages=chat)
            assert raised.value.field == "messages"


async def test_models_are_told_as_the_router_lists_them(router, client):
    (model,) = await client.models()
    assert (model.name, model.context, model.workers, model.default) == ("m", 2048, 1, True)
    router.models.append(pb.Model(name="new"))
    assert [model.name for model in await client.models()] == ["m", "new"]


async def test_the_router_answers_questions_about_itself(client):
    assert (await client.fleet()).epoch == 7
    assert await client.metrics() == "a 1\n"
    assert await client.count_tokens("abc") == diplex.TokenCount(3, True)


async def test_a_question_that_the_router_refuses_raises_its_kind(client):
    with pytest.raises(diplex.UnknownModel, match="known: m") as raised:
        await client.explain(prompt_tokens=5, model="x")
    assert raised.value.reason == "UNKNOWN_MODEL"


async def test_a_question_to_a_router_that_is_gone_names_the_address(router, client):
    await router.kill()
    with pytest.raises(diplex.Unavailable) as raised:
        await client.fleet()
    assert router.address in raised.value.message
    assert raised.value.reason == "NO_ROUTER"


async def test_it_is_ready_with_a_session_and_a_worker_and_not_before(router, wait_until):
    router.models[0].workers = 0
    async with diplex.AsyncClient(router.address) as client:
        await router.desk()
        with pytest.raises(diplex.Unavailable, match="no worker"):
            await client.wait_ready(0.1)
        assert not client.ready
        router.models[0].workers = 1
        await client.wait_ready(5)
        await router.kill()
        await wait_until(lambda: not client.ready)
        with pytest.raises(diplex.Unavailable, match="no router"):
            await client.wait_ready(0.1)
    assert not client.ready


async def test_a_client_that_is_not_open_says_how_to_open_it():
    with pytest.raises(RuntimeError, match="async with"):
        await diplex.AsyncClient().generate("a prompt")


async def test_the_callers_trace_goes_to_router_and_worker(router, client, worker, heard):
    with trace.use_span(trace.get_current_span(parent_of(PARENT, "vendor=value"))):
        client.start(heard(), "a prompt")
    desk = await router.desk()
    ask = await desk.hears()
    assert (ask.traceparent, ask.tracestate) == (PARENT, "vendor=value")
    await desk.grant(ask, worker)
    assert (await worker.plays()).start.traceparent == PARENT


async def test_the_fleet_is_watched_as_often_as_asked_until_the_router_has_gone(client):
    seen = []
    with pytest.raises(diplex.Unavailable):
        async for fleet in client.watch_fleet(0.25):
            seen.append(fleet.uptime_s)
    assert seen == [250, 251]
