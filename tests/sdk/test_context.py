"""Trace context goes into messages and comes out of them, with no OpenTelemetry SDK set up."""

import pytest
from opentelemetry import trace

from diplex.wire.context import parent_of, recording, traceparent_of

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_outside_of_any_span_there_is_none():
    assert traceparent_of(trace.get_current_span()) == ("", "")
    assert traceparent_of(trace.INVALID_SPAN) == ("", "")


def test_what_came_in_goes_out_again():
    came_in = trace.get_current_span(parent_of(PARENT, "vendor=value"))
    assert traceparent_of(came_in) == (PARENT, "vendor=value")


@pytest.mark.parametrize("text", ["", "nonsense", "00-00000000000000000000000000000000-b7ad6b7169203331-01"])
def test_what_is_no_traceparent_hides_the_surrounding_one(text: str):
    with trace.use_span(trace.get_current_span(parent_of(PARENT))):
        assert traceparent_of(trace.get_current_span(parent_of(text))) == ("", "")


def test_without_an_sdk_nothing_records():
    assert not recording()
    assert not recording(trace.NoOpTracerProvider())
