"""Where spans go: what the environment asks for, a file that processes share, collectors that are away."""

import json
import logging
import multiprocessing
import subprocess
import sys
from pathlib import Path
from threading import Event

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from diplex_cli import telemetry
from diplex_cli.trace_file import TraceFile

ANYWHERE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}
PROCESSES, SPANS = 4, 200


@pytest.mark.parametrize(
    ("environment", "spans", "metrics"),
    [
        ({}, False, False),
        (ANYWHERE, True, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4317"}, True, False),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://collector:4317"}, False, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True, False),
        ({**ANYWHERE, "OTEL_TRACES_EXPORTER": "none"}, False, True),
        ({**ANYWHERE, "OTEL_METRICS_EXPORTER": "none"}, True, False),
        ({**ANYWHERE, "OTEL_SDK_DISABLED": "true"}, False, False),
        ({**ANYWHERE, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, True, True),
        ({**ANYWHERE, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}, False, True),
    ],
)
def test_the_standard_variables_say_what_goes_out(environment: dict[str, str], spans: bool, metrics: bool):
    assert telemetry._otlp("TRACES", environment)[0] is spans
    assert telemetry._otlp("METRICS", environment)[0] is metrics


def test_what_cannot_go_out_is_said_with_its_mend_and_the_command_goes_on(diplex, simulated):
    env = {**ANYWHERE, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_METRICS_EXPORTER": "none"}
    done = diplex("chat", "hello", "--url", "127.0.0.1:1", "--timeout", "0.2", env=env)
    note = "note: OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf: diplex speaks OTLP over gRPC"
    assert done.stderr.startswith(note)
    assert "Mend: grpc, and the collector's port for it (4317)" in done.stderr


@pytest.mark.parametrize("command", [("up",), ("router",), ("chat", "hello")])
def test_a_trace_file_that_cannot_be_written_is_wrong_usage(diplex, simulated, tmp_path, command):
    words = ("--config", simulated) if command[0] != "chat" else ()
    done = diplex(
        *command, *words, "--trace-file", tmp_path / "no" / "spans.jsonl", env={"DIPLEX_GRANTS_KEY": "k"}
    )
    assert done.returncode == 2
    assert "spans.jsonl cannot be written: No such file or directory. Mend: another FILE" in done.stderr


def write_spans(path: str, name: str) -> None:
    provider = TracerProvider(resource=Resource({"service.name": name}))
    provider.add_span_processor(SimpleSpanProcessor(TraceFile(path)))
    tracer = provider.get_tracer("test")
    for number in range(SPANS):
        with tracer.start_as_current_span("outer", attributes={"number": number, "long": "x" * 3000}):
            tracer.start_span("inner").end()
    provider.shutdown()


def test_lines_of_several_processes_never_mix(tmp_path: Path):
    path = tmp_path / "spans.jsonl"
    spawning = multiprocessing.get_context("spawn")
    writing = [
        spawning.Process(target=write_spans, args=(str(path), f"writer {number}"))
        for number in range(PROCESSES)
    ]
    for process in writing:
        process.start()
    for process in writing:
        process.join()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == PROCESSES * SPANS * 2
    by_id = {line["span_id"]: line for line in lines}
    for line in lines:
        assert line["end_time_unix_nano"] >= line["start_time_unix_nano"]
        if line["name"] == "inner":
            outer = by_id[line["parent_span_id"]]
            assert (outer["name"], outer["resource"]) == ("outer", line["resource"])


def test_what_the_sdk_logs_is_one_line_a_minute_without_a_traceback(caplog: pytest.LogCaptureFixture):
    sdk = logging.getLogger("opentelemetry.exporter")
    with telemetry._quiet(), caplog.at_level(logging.WARNING):
        for _ in range(5):
            try:
                raise ConnectionError("refused")
            except ConnectionError:
                sdk.exception("Exception while\nexporting %s", "Span")
    (record,) = caplog.records
    assert record.getMessage() == "serving goes on: Exception while exporting Span"
    assert record.levelno == logging.WARNING and record.exc_info is None


def test_a_collector_that_never_answers_is_left_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(telemetry, "FLUSH_WITHIN", 0.05)
    answer, abandoned, flushed = Event(), Event(), Event()

    def flush() -> None:
        answer.wait()

    telemetry._end([telemetry.Road(flushed.set, lambda: None), telemetry.Road(flush, abandoned.set)])
    assert flushed.is_set() and abandoned.is_set()
    answer.set()


def test_without_a_collector_or_a_file_the_sdk_is_not_even_loaded():
    script = (
        "import sys; from argparse import Namespace; from diplex_cli import telemetry\n"
        "with telemetry.exported(Namespace(trace_file=None), 'x'): pass\n"
        "print('opentelemetry.sdk' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr
