"""A request's span at the SDK: what it says of one that went well, badly, or twice, and who its parent is."""

import asyncio
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

import diplex
from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2, worker_pb2
from diplex.wire.context import parent_of
from diplex.wire.status import Problem

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def written(client: Any) -> InMemorySpanExporter:
    """The client's spans, once they have ended."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    client._tracer = provider.get_tracer("test")
    return exporter


def only(written: InMemorySpanExporter) -> ReadableSpan:
    (span,) = written.get_finished_spans()
    return span


def ids(span: ReadableSpan | trace.SpanContext) -> str:
    context = span.get_span_context() if isinstance(span, ReadableSpan) else span
    return f"{context.trace_id:032x}-{context.span_id:016x}"


def sent(message: router_pb2.Ask | worker_pb2.Start) -> str:
    """Whom a message names as the parent."""
    return message.traceparent[3:52]


async def test_a_request_is_one_client_span_that_says_what_came_of_it(router, client, worker, written):
    asked = asyncio.create_task(client.generate("a prompt", max_tokens=8, tier="bulk", request_id="mine"))
    desk = await router.desk()
    await desk.grant(await desk.hears(), worker)
    playing = await worker.plays()
    await playing.say("a")
    await playing.say("b", "c")
    usage = pb.Usage(prompt_tokens=7, completion_tokens=3, cached_tokens=2)
    await playing.done(pb.END_REASON_STOP, usage=usage)
    reply = await asked
    span = only(written)
    assert (span.name, span.kind) == ("text_completion m", SpanKind.CLIENT)
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes) == {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "diplex",
        "gen_ai.request.model": "m",
        "gen_ai.request.max_tokens": 8,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.cache_read.input_tokens": 2,
        "gen_ai.usage.output_tokens": 3,
        "server.address": "127.0.0.1",
        "server.port": router.port,
        "diplex.request_id": "mine",
        "diplex.worker": "w1",
        "diplex.package": "pkg0",
        "diplex.pattern": "A",
        "diplex.engine": "script",
        "diplex.simulated": True,
        "diplex.tier": "bulk",
        "diplex.tenant": "default",
        "diplex.lease.attempt": 1,
        "diplex.lease.blocks": 0,
        "diplex.queue_ms": 1.5,
        "diplex.ttft_ms": pytest.approx(reply.ttft_s * 1000, abs=50),
        "diplex.tpot_ms": span.attributes["diplex.tpot_ms"],
        "diplex.tokens_per_second": pytest.approx(1000 / span.attributes["diplex.tpot_ms"]),
    }
    assert 0 < span.attributes["diplex.ttft_ms"] <= (span.end_time - span.start_time) / 1e6


async def test_router_and_worker_are_told_the_span_as_their_parent(router, client, worker, written):
    with trace.use_span(trace.get_current_span(parent_of(PARENT, "vendor=value"))):
        asked = asyncio.create_task(client.generate(messages=[{"role": "user", "content": "hi"}]))
    desk = await router.desk()
    ask = await desk.hears()
    await desk.grant(ask, worker)
    playing = await worker.plays()
    await playing.done(pb.END_REASON_STOP)
    await asked
    span = only(written)
    assert span.name == "chat m"
    assert ids(span.parent) == PARENT[3:52]
    assert sent(ask) == sent(playing.start) == ids(span)
    assert ask.tracestate == "vendor=value"


async def test_a_stream_is_a_child_of_the_span_that_was_current_when_it_was_asked_for(client, worker, router):
    worker.echo, router.placed = True, lambda ask: worker
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    client._tracer = tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("outer") as outer:
        stream = client.stream("a prompt", max_tokens=2)
    assert "".join([chunk.text async for chunk in stream]) == " 0 1"
    _, inner = exporter.get_finished_spans()
    assert inner.parent.span_id == outer.get_span_context().span_id


async def test_a_request_that_is_asked_again_keeps_its_span_and_says_why(router, client, worker, written):
    asked = asyncio.create_task(client.generate("a prompt", max_tokens=8))
    desk = await router.desk()
    first = await desk.hears()
    await desk.grant(first, worker)
    playing = await worker.plays()
    await playing.say("a")
    await playing.done(pb.END_REASON_PREEMPTED)
    again = await desk.hears()
    await desk.grant(again, worker)
    playing = await worker.plays()
    await playing.say("b")
    await playing.done(pb.END_REASON_STOP, usage=pb.Usage(prompt_tokens=2, completion_tokens=2))
    assert (await asked).text == "ab"
    span = only(written)
    assert sent(first) == sent(again) == sent(playing.start) == ids(span)
    assert [event.name for event in span.events] == ["granted", "asked again", "granted"]
    assert span.attributes["diplex.preemptions"] == 1
    assert dict(span.events[1].attributes) == {
        "reason": "preempted",
        "diplex.worker": "w1",
        "diplex.lease.attempt": 1,
        "gen_ai.usage.output_tokens": 1,
    }
    assert span.attributes["diplex.lease.attempt"] == 2


async def test_a_refusal_is_the_spans_error_with_its_reason(router, client, written):
    asked = asyncio.create_task(client.generate("a prompt"))
    desk = await router.desk()
    problem = Problem(grpc.StatusCode.RESOURCE_EXHAUSTED, "no room", "QUEUE_FULL", retry_after=1.0)
    await desk.refuse(await desk.hears(), problem)
    with pytest.raises(diplex.Overloaded):
        await asked
    span = only(written)
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "no room")
    assert span.attributes["error.type"] == "QUEUE_FULL"
    assert span.attributes["gen_ai.response.finish_reasons"] == ("refused",)
    assert "diplex.ttft_ms" not in span.attributes


async def test_a_caller_who_cancels_is_no_error(router, client, worker, written):
    stream = client.stream("a prompt")
    started = asyncio.create_task(stream.started())
    desk = await router.desk()
    await desk.grant(await desk.hears(), worker)
    playing = await worker.plays()
    await playing.say("a")
    await started
    stream.cancel()
    await playing.cancelled.wait()
    await playing.done(pb.END_REASON_CANCELLED)
    await stream.aclose()
    span = only(written)
    assert span.status.status_code is StatusCode.UNSET
    assert span.attributes["gen_ai.response.finish_reasons"] == ("cancelled",)


async def test_after_the_first_token_the_span_is_not_in_the_tokens_way(
    router, client, worker, heard, written
):
    consumer = heard()
    life = client.start(consumer, "a prompt")
    desk = await router.desk()
    await desk.grant(await desk.hears(), worker)
    playing = await worker.plays()
    before = life._consumer.on_tokens
    await playing.say("a")
    await playing.say("b")
    await playing.done(pb.END_REASON_STOP)
    await consumer.over
    assert life._consumer.on_tokens == consumer.on_tokens != before


async def test_a_trace_that_is_not_sampled_goes_on_unsampled_and_costs_nothing(router, client, worker, heard):
    client._tracer = TracerProvider(sampler=ALWAYS_OFF).get_tracer("test")
    consumer = heard()
    life = client.start(consumer, "a prompt")
    ask = await (await router.desk()).hears()
    assert int(ask.traceparent[-2:], 16) & trace.TraceFlags.SAMPLED == 0
    assert life._consumer is consumer
    life.cancel()
