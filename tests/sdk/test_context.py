"""Trace context goes into messages and comes out of them, with no OpenTelemetry SDK set up."""

import pytest
from opentelemetry import trace

from diplex.wire.context import attach, current_traceparent, traceparent_of

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_outside_of_any_span_there_is_none():
    assert current_traceparent() == ("", "")
    assert traceparent_of(trace.INVALID_SPAN) == ("", "")


def test_what_came_in_goes_out_again():
    with attach(PARENT, "vendor=value"):
        assert current_traceparent() == (PARENT, "vendor=value")
    assert current_traceparent() == ("", "")


@pytest.mark.parametrize("text", ["", "nonsense", "00-00000000000000000000000000000000-b7ad6b7169203331-01"])
def test_what_is_no_traceparent_hides_the_surrounding_one(text: str):
    with attach(PARENT), attach(text):
        assert current_traceparent() == ("", "")
