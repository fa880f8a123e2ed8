"""A request's spans on its worker."""

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from diplex_core.words import EndReason
from diplex_workers.spans import SpanWriter

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def written(house) -> InMemorySpanExporter:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    house.account.observers.append(SpanWriter(house.account.settings, provider))
    return exporter


def test_a_request_is_a_prefill_and_a_decode_under_its_clients_span(house, written):
    claim = house.run(traceparent=PARENT)
    house.clock.pass_time(0.5)
    house.say(claim, 1)
    house.clock.pass_time(1.0)
    house.say(claim, 10, end=EndReason.STOP)
    prefill, decode = written.get_finished_spans()
    assert [span.name for span in (prefill, decode)] == ["prefill", "decode"]
    for span in (prefill, decode):
        assert span.kind is SpanKind.SERVER
        assert f"{span.parent.trace_id:032x}-{span.parent.span_id:016x}" == PARENT[3:52]
        assert span.attributes["diplex.package"] == "pkg0"
    assert prefill.end_time == decode.start_time
    assert prefill.end_time - prefill.start_time == pytest.approx(0.5e9, abs=10)
    assert decode.end_time - decode.start_time == pytest.approx(1.0e9, abs=10)
    assert prefill.attributes["diplex.ttft_ms"] == pytest.approx(500)
    assert decode.attributes["diplex.tpot_ms"] == pytest.approx(100)
    assert decode.attributes["diplex.tokens_per_second"] == pytest.approx(10)
    assert decode.attributes["gen_ai.usage.output_tokens"] == 11
    assert decode.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert decode.status.status_code is StatusCode.UNSET


def test_a_request_that_never_had_a_token_has_one_span_with_its_error(house, written):
    house.begin(blocks=1)
    house.counted(100)
    (prefill,) = written.get_finished_spans()
    assert (prefill.name, prefill.status.status_code) == ("prefill", StatusCode.ERROR)
    assert "the grant holds 1 KV blocks, and the request needs 6" in prefill.status.description
    assert prefill.attributes["error.type"] == "GRANT_TOO_SMALL"
    assert "diplex.ttft_ms" not in prefill.attributes
