"""Trace context travels in each message, not in metadata: a stream is shared by many requests.

Only the OpenTelemetry API is used. Where no SDK is set up, a trace that came in still goes out again.
"""

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR = TraceContextTextMapPropagator()


def traceparent_of(span: trace.Span) -> tuple[str, str]:
    """W3C `traceparent` and `tracestate` of a span; both empty for one that records nothing valid."""
    if not span.get_span_context().is_valid:
        return "", ""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, trace.set_span_in_context(span, Context()))
    return carrier.get("traceparent", ""), carrier.get("tracestate", "")


def parent_of(traceparent: str, tracestate: str = "") -> Context:
    """The context to start a child span in. What is no traceparent gives an empty one: a new trace."""
    if not traceparent:
        return Context()
    return _PROPAGATOR.extract({"traceparent": traceparent, "tracestate": tracestate}, Context())


def recording(provider: trace.TracerProvider | None = None) -> bool:
    """Whether an OpenTelemetry SDK is set up: without one, whatever is kept for a span is kept for nobody.

    Args:
        provider: `None`: the process's own.
    """
    return not isinstance(
        provider or trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider
    )
