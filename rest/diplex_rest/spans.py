"""An HTTP request's span at the shim, by OpenTelemetry's conventions for HTTP servers.

Only the two routes that generate have one: whoever looks in on `/health` every second makes no traces. Its
child is the SDK's own span, which tells all the rest.
"""

import time
from collections.abc import Iterable
from typing import Final

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode
from starlette.types import Scope

from diplex.wire import telemetry as words
from diplex.wire.context import parent_of

_TRACED: Final = frozenset({"/v1/chat/completions", "/v1/completions"})
_CONTEXT: Final = frozenset({b"traceparent", b"tracestate"})
_TOLD: Final = {b"x-diplex-worker": words.WORKER, b"x-diplex-tier": words.TIER}
_SERVER_FAULT: Final = 500


class HttpSpan:
    """One request, from its arrival to its last byte."""

    def __init__(self, span: Span) -> None:
        self.span = span
        self._began = time.perf_counter()

    def head(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """The response's head goes out: a streamed one with its first token."""
        if not self.span.is_recording():
            return
        for name, value in headers:
            if name in _TOLD:
                self.span.set_attribute(_TOLD[name], value.decode())
            elif name == b"content-type" and value.startswith(b"text/event-stream"):
                self.span.set_attribute(words.TTFT_MS, (time.perf_counter() - self._began) * 1000)

    def end(self, status: int) -> None:
        self.span.set_attribute("http.response.status_code", status)
        if status >= _SERVER_FAULT:
            self.span.set_attribute(words.ERROR_TYPE, str(status))
            self.span.set_status(StatusCode.ERROR)
        self.span.end()


class HttpSpans:
    """Begins spans. `provider` None: the process's own."""

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("diplex.rest", tracer_provider=provider)

    def begin(self, scope: Scope, request_id: str) -> HttpSpan:
        """A span, child of the one that the client names in its headers; one that records nothing for paths
        that are not traced."""
        path, method = scope["path"], scope["method"]
        if path not in _TRACED:
            return HttpSpan(trace.INVALID_SPAN)
        sent = {name: value.decode("latin-1") for name, value in scope["headers"] if name in _CONTEXT}
        span = self._tracer.start_span(
            f"{method} {path}",
            parent_of(sent.get(b"traceparent", ""), sent.get(b"tracestate", "")),
            SpanKind.SERVER,
            {
                "http.request.method": method,
                "http.route": path,
                "url.path": path,
                "url.scheme": scope["scheme"],
                words.REQUEST_ID: request_id,
            },
        )
        return HttpSpan(span)
