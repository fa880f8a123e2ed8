"""The outermost layer: each request gets an id and a span, each response tells the id, both are counted."""

import re
import secrets
from collections.abc import Iterable
from typing import Final

from opentelemetry.trace import Span
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diplex_rest.metrics import CLIENT_CLOSED, Metrics
from diplex_rest.spans import HttpSpans

_SANE: Final = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
# One label value an endpoint: model names and what strangers probe for would make endless ones.
_ROUTES: Final = frozenset(
    {"/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/ready", "/metrics"}
)


def request_id_of(scope: Scope) -> str:
    """The id that the front gave this request."""
    return str(scope["state"]["request_id"])


def span_of(scope: Scope) -> Span:
    """The span that the front began for this request."""
    span: Span = scope["state"]["span"]
    return span


class Front:
    """Wraps the whole application, so that its own error pages have an id too."""

    def __init__(self, app: ASGIApp, metrics: Metrics, spans: HttpSpans) -> None:
        self._app = app
        self._metrics = metrics
        self._spans = spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = sane_id(scope["headers"]) or f"req_{secrets.token_hex(16)}"
        state = scope.setdefault("state", {})
        span = self._spans.begin(scope, request_id)
        state["request_id"], state["span"] = request_id, span.span
        tag = (b"x-request-id", request_id.encode())
        status = CLIENT_CLOSED

        async def tagged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), tag]
                span.head(message["headers"])
            await send(message)

        self._metrics.began()
        try:
            await self._app(scope, receive, tagged)
        finally:
            self._metrics.ended(route_of(scope["path"]), status)
            span.end(status)


def sane_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The client's own `x-request-id`, if it can stand in a header and a log line; else ""."""
    given = next((value for name, value in headers if name == b"x-request-id"), b"")
    return given.decode() if _SANE.fullmatch(given) else ""


def route_of(path: str) -> str:
    """The endpoint that a path belongs to, as metrics name it."""
    if path in _ROUTES:
        return path
    return "/v1/models/{id}" if path.startswith("/v1/models/") else "other"
