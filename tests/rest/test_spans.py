"""The shim's own span of an HTTP request, by the conventions for HTTP servers."""

import asyncio
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from starlette.types import Receive, Scope, Send

from diplex_rest.front import Front, span_of
from diplex_rest.metrics import Metrics
from diplex_rest.spans import HttpSpans

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CHAT = "/v1/chat/completions"


class Shim:
    """The front before an application that answers as the test says, and notes the span it ran under."""

    def __init__(self) -> None:
        self.written, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.written))
        self.status, self.headers = 200, {"content-type": "application/json"}
        self.seen: list[Any] = []
        transport = httpx.ASGITransport(Front(self.app, Metrics(), HttpSpans(provider)))
        self.http = httpx.AsyncClient(transport=transport, base_url="http://shim")

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(span_of(scope))
        headers = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    def span(self) -> ReadableSpan:
        (span,) = self.written.get_finished_spans()
        return span


@pytest.fixture
def traced() -> Shim:
    return Shim()


async def test_a_request_is_a_server_span_under_the_one_its_client_names(traced):
    traced.headers |= {"x-diplex-worker": "pkg0", "x-diplex-tier": "bulk"}
    await traced.http.post(CHAT, headers={"traceparent": PARENT, "x-request-id": "mine"})
    span = traced.span()
    assert (span.name, span.kind) == (f"POST {CHAT}", SpanKind.SERVER)
    assert f"{span.parent.trace_id:032x}-{span.parent.span_id:016x}" == PARENT[3:52]
    assert dict(span.attributes) == {
        "http.request.method": "POST",
        "http.route": CHAT,
        "url.path": CHAT,
        "url.scheme": "http",
        "http.response.status_code": 200,
        "diplex.request_id": "mine",
        "diplex.worker": "pkg0",
        "diplex.tier": "bulk",
    }
    assert traced.seen[0].get_span_context() == span.get_span_context()


async def test_a_streamed_answer_tells_when_its_first_token_went_out(traced):
    traced.headers = {"content-type": "text/event-stream; charset=utf-8"}
    await traced.http.post("/v1/completions")
    span = traced.span()
    assert 0 < span.attributes["diplex.ttft_ms"] <= (span.end_time - span.start_time) / 1e6


@pytest.mark.parametrize(
    ("status", "code"),
    [(200, StatusCode.UNSET), (400, StatusCode.UNSET), (429, StatusCode.UNSET), (503, StatusCode.ERROR)],
)
async def test_only_the_servers_own_faults_are_errors(traced, status, code):
    traced.status = status
    await traced.http.post(CHAT)
    assert traced.span().attributes["http.response.status_code"] == status
    assert traced.span().status.status_code is code


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/v1/models", "/anything"])
async def test_whoever_looks_in_makes_no_trace(traced, path):
    await traced.http.get(path, headers={"traceparent": PARENT})
    assert not traced.written.get_finished_spans()


async def test_a_client_that_left_is_told_as_such(traced):
    async def gone(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0)

    traced.http._transport.app._app = gone  # type: ignore[attr-defined]
    with pytest.raises(AssertionError):  # httpx's own: nothing was answered
        await traced.http.post(CHAT)
    assert traced.span().attributes["http.response.status_code"] == 499
    assert traced.span().status.status_code is StatusCode.UNSET
