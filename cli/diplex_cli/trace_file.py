"""Spans as lines of JSON at the end of a file, which several processes may share.

A batch is one `write` of whole lines on a file opened for appending, so no line lands inside another one's.
Names are OTLP's, ids in hexadecimal, times in nanoseconds since 1970.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import format_span_id, format_trace_id


class TraceFile(SpanExporter):
    """Appends to a file, which it makes where there is none.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        lines = "".join(json.dumps(told(span), separators=(",", ":")) + "\n" for span in spans).encode()
        whole = os.write(self._file, lines) == len(lines)
        return SpanExportResult.SUCCESS if whole else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        os.close(self._file)


def told(span: ReadableSpan) -> dict[str, Any]:
    """A span as one line tells it."""
    context, parent = span.get_span_context(), span.parent
    assert context is not None
    return {
        "trace_id": format_trace_id(context.trace_id),
        "span_id": format_span_id(context.span_id),
        "parent_span_id": format_span_id(parent.span_id) if parent is not None else "",
        "name": span.name,
        "kind": span.kind.name,
        "start_time_unix_nano": span.start_time,
        "end_time_unix_nano": span.end_time,
        "attributes": _plain(span.attributes),
        "events": [
            {"name": event.name, "time_unix_nano": event.timestamp, "attributes": _plain(event.attributes)}
            for event in span.events
        ],
        "status": {"code": span.status.status_code.name, "message": span.status.description or ""},
        "resource": _plain(span.resource.attributes),
    }


def _plain(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in (attributes or {}).items()
    }
