"""One trace a request, from its client to its worker: over OTLP to a real receiver, and in a file of lines.

The receiver is a gRPC server in this process that speaks OTLP's TraceService and MetricsService; the fleet is
told of it by the standard variable, as it would be of any collector.
"""

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2, router_pb2_grpc
from diplex.wire.serving import channel

ROOT = Path(__file__).parents[2]
MODEL = "qwen2.5-72b-instruct"
WITHIN = 20.0
CALLER = "b7ad6b7169203331"
# Three processes are enough to write into one file, or to miss a collector.
ALONE = """\
models:
  qwen2.5-72b-instruct: {profile: qwen2.5-72b, weights: mxfp4-mixed, kv_cache: mxfp8}
packages:
  pkg0: {gpu: b200, pattern: C, model: qwen2.5-72b-instruct, engine: {kind: sim, calibration: chapter}}
tiers:
  standard: {patterns: [A, C]}
"""
TREE = {"admit", "queue", "place", "prefill", "decode"}


@dataclass(frozen=True, slots=True)
class Span:
    """A span, whichever way it came."""

    trace: str
    id: str
    parent: str
    name: str
    kind: str
    start: int
    end: int
    attributes: dict[str, Any]
    events: tuple[str, ...]
    status: str
    resource: dict[str, Any]

    @property
    def service(self) -> str:
        return str(self.resource["service.name"])

    @property
    def ttft_ms(self) -> float:
        return float(self.attributes["diplex.ttft_ms"])


class Collector(trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer):
    """Takes spans and metrics, and keeps them."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.metrics: set[str] = set()

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
        if isinstance(request, metrics_service_pb2.ExportMetricsServiceRequest):
            scopes = [scope for resource in request.resource_metrics for scope in resource.scope_metrics]
            self.metrics |= {metric.name for scope in scopes for metric in scope.metrics}
            return metrics_service_pb2.ExportMetricsServiceResponse()
        for resource in request.resource_spans:
            about = plain(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [of_otlp(span, about) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


def plain(attributes: Any) -> dict[str, Any]:
    values = {}
    for one in attributes:
        kind = one.value.WhichOneof("value")
        value = getattr(one.value, kind)
        values[one.key] = [item.string_value for item in value.values] if kind == "array_value" else value
    return values


def of_otlp(span: trace_pb2.Span, resource: dict[str, Any]) -> Span:
    return Span(
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.name,
        trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        plain(span.attributes),
        tuple(event.name for event in span.events),
        trace_pb2.Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
        resource,
    )


def of_line(line: str) -> Span:
    span = json.loads(line)
    return Span(
        span["trace_id"],
        span["span_id"],
        span["parent_span_id"],
        span["name"],
        span["kind"],
        span["start_time_unix_nano"],
        span["end_time_unix_nano"],
        span["attributes"],
        tuple(event["name"] for event in span["events"]),
        span["status"]["code"],
        span["resource"],
    )


@pytest.fixture(scope="module")
def collector() -> Iterator[tuple[Collector, dict[str, str]]]:
    """A receiver on a free port, and the environment that points to it."""
    taker = Collector()
    server = grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(taker, server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(taker, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
    }
    try:
        yield taker, env
    finally:
        server.stop(None).wait()


@pytest.fixture(scope="module")
def collected(shared_fleet: Any, collector: Any) -> Any:
    """A fleet that sends its spans and metrics there."""
    return shared_fleet(env=collector[1])


async def over_rest(rest: str, trace: str) -> None:
    """A streamed chat, from a client that is traced itself."""
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 24, "stream": True}
    headers = {"traceparent": f"00-{trace}-{CALLER}-01"}
    async with httpx.AsyncClient(base_url=rest, timeout=WITHIN, verify=False) as http:
        answer = await http.post("/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == 200 and answer.text.endswith("data: [DONE]\n\n")


def over_the_sdk(router: str, *options: str, env: dict[str, str] | None = None) -> None:
    """`diplex chat`: the SDK in a process of its own."""
    words = ["chat", "hello", "--url", router, "--max-tokens", "24", *options]
    done = subprocess.run(
        [sys.executable, "-m", "diplex_cli.main", *words],
        capture_output=True,
        text=True,
        timeout=WITHIN,
        env={**os.environ, **(env or {})},
    )
    assert done.returncode == 0, done.stderr


def drawn(file: Path) -> list[str]:
    """What the example draws of the last trace in a file: the first word of each span's line."""
    words = [sys.executable, ROOT / "examples" / "draw_trace.py", file]
    done = subprocess.run(words, capture_output=True, text=True, timeout=WITHIN)
    assert done.returncode == 0, done.stderr
    return [line.split()[0] for line in done.stdout.splitlines() if "  diplex-" in line]


async def proxied(router: str, trace: str) -> None:
    """`Generate`, as any gRPC client calls it."""
    request = router_pb2.RouterGenerateRequest(model=MODEL, prompt=pb.Prompt(text="hello"), max_tokens=24)
    metadata = (("traceparent", f"00-{trace}-{CALLER}-01"),)
    async with channel(router) as to_router:
        call = router_pb2_grpc.RouterStub(to_router).Generate(request, timeout=WITHIN, metadata=metadata)
        last = [message async for message in call][-1]
    assert last.done.reason == pb.END_REASON_LENGTH


async def arrived(running: Any, taker: Collector, trace: str, number: int) -> list[Span]:
    """The spans of a trace, once so many have come."""

    async def look() -> list[Span] | None:
        spans = [span for span in list(taker.spans) if span.trace == trace]
        return spans if len(spans) >= number else None

    spans: list[Span] = await running.until(look, f"{number} spans of trace {trace}", within=WITHIN)
    return spans


def tree_of(spans: list[Span]) -> dict[str, Span]:
    """The spans of one trace by name, each name once."""
    assert len({span.trace for span in spans}) == 1
    assert max(Counter(span.name for span in spans).values()) == 1
    return {span.name: span for span in spans}


def check_tree(spans: dict[str, Span], asking: Span) -> None:
    """Router's and worker's spans hang below whoever asked, and say all that they should."""
    assert set(spans) >= TREE
    admit, prefill, decode = spans["admit"], spans["prefill"], spans["decode"]
    assert admit.parent == prefill.parent == decode.parent == asking.id
    assert spans["queue"].parent == spans["place"].parent == admit.id
    assert (prefill.kind, decode.kind) == ("SERVER", "SERVER")
    assert {spans[name].service for name in ("admit", "queue", "place")} == {"diplex-router"}
    assert prefill.service == decode.service == "diplex-worker"
    worker = asking.attributes["diplex.worker"]
    assert prefill.resource["service.instance.id"] == decode.resource["service.instance.id"] == worker

    for span in (asking, admit, prefill, decode):
        assert span.attributes["diplex.worker"] == worker
        assert span.attributes["diplex.package"] == worker
        assert span.attributes["diplex.pattern"] == ("C" if worker == "pkg0" else "A")
        assert span.attributes["diplex.tier"] == "standard"
        assert span.attributes["gen_ai.request.model"] == MODEL
        assert span.attributes["diplex.request_id"] == asking.attributes["diplex.request_id"]
        assert span.status == "UNSET"
    for span in (asking, admit):
        assert span.attributes["diplex.lease.blocks"] > 0
        assert span.attributes["diplex.queue_ms"] >= 0
        assert span.attributes["gen_ai.usage.input_tokens"] > 0
    for span in (asking, admit, decode):
        assert span.attributes["gen_ai.usage.output_tokens"] == 24
        assert span.attributes["diplex.tpot_ms"] > 0
        assert span.attributes["diplex.tokens_per_second"] > 0
        assert span.attributes["gen_ai.response.finish_reasons"] == ["length"]
    # Who stands farther from the engine sees its first token later. Router and client hear of it at once.
    assert 0 < prefill.ttft_ms <= admit.ttft_ms
    assert prefill.ttft_ms <= asking.ttft_ms
    assert prefill.start <= prefill.end == decode.start <= decode.end
    for inside in (spans["queue"], spans["place"]):
        assert admit.start <= inside.start <= inside.end <= admit.end
    missed_by = (admit.ttft_ms - admit.attributes["diplex.prediction.ttft_ms"]) / 1000
    assert admit.attributes["diplex.prediction.ttft_error"] == pytest.approx(missed_by)
    assert admit.attributes["diplex.slo.met"] is True  # its tier promises nothing
    assert "granted" in asking.events


async def test_a_request_over_rest_is_one_trace_from_its_client_to_its_worker(collected: Any, collector: Any):
    taker, trace = collector[0], "0af7651916cd43dd8448eb211c80319c"
    await over_rest(collected.rest, trace)
    spans = tree_of(await arrived(collected, taker, trace, 7))
    shim, asking = spans["POST /v1/chat/completions"], spans[f"chat {MODEL}"]
    assert (shim.parent, shim.kind, shim.service) == (CALLER, "SERVER", "diplex-rest")
    assert (asking.parent, asking.kind, asking.service) == (shim.id, "CLIENT", "diplex-rest")
    assert spans["admit"].kind == "SERVER"
    check_tree(spans, asking)
    assert asking.ttft_ms <= shim.ttft_ms
    assert shim.start <= asking.start <= asking.end

    # What is measured of it goes the same way.
    async def measured() -> bool:
        return taker.metrics >= {
            "gen_ai.server.time_to_first_token",
            "gen_ai.server.time_per_output_token",
            "gen_ai.server.request.duration",
            "diplex.queue.duration",
        }

    await collected.until(measured, "the metrics of the conventions", within=WITHIN)


async def test_a_request_over_the_sdk_is_one_trace_that_begins_with_its_client(
    collected: Any, collector: Any
):
    taker, env = collector
    over_the_sdk(collected.router, env=env)
    (asking,) = [span for span in taker.spans if span.service == "diplex-client"]
    assert (asking.name, asking.kind, asking.parent) == (f"chat {MODEL}", "CLIENT", "")
    spans = tree_of(await arrived(collected, taker, asking.trace, 6))
    check_tree(spans, asking)


async def test_a_proxied_request_is_one_trace_with_the_router_as_client(collected: Any, collector: Any):
    taker, trace = collector[0], "4bf92f3577b34da6a3ce929d0e0e4736"
    await proxied(collected.router, trace)
    spans = tree_of(await arrived(collected, taker, trace, 6))
    asking = spans[f"generate {MODEL}"]
    assert (asking.parent, asking.kind, asking.service) == (CALLER, "SERVER", "diplex-router")
    assert spans["admit"].kind == "INTERNAL"
    check_tree(spans, asking)


async def test_a_trace_file_has_the_same_trees_line_by_line_from_all_processes(fleet: Any):
    running = fleet(ALONE, "--trace-file", "spans.jsonl")
    file = running.folder / "spans.jsonl"
    rest, by_proxy = "0af7651916cd43dd8448eb211c80319c", "4bf92f3577b34da6a3ce929d0e0e4736"
    await over_rest(running.rest, rest)
    await proxied(running.router, by_proxy)
    over_the_sdk(running.router, "--trace-file", str(file))
    running.end()  # a drain lets nothing be lost
    spans = [of_line(line) for line in file.read_text().splitlines()]
    traces: dict[str, list[Span]] = {}
    for span in spans:
        traces.setdefault(span.trace, []).append(span)
    assert len(traces) == 3
    for trace, name in ((rest, f"chat {MODEL}"), (by_proxy, f"generate {MODEL}")):
        tree = tree_of(traces.pop(trace))
        check_tree(tree, tree[name])
    (over_sdk,) = traces.values()
    tree = tree_of(over_sdk)
    assert tree[f"chat {MODEL}"].service == "diplex-client"
    check_tree(tree, tree[f"chat {MODEL}"])
    assert drawn(file) == ["chat", "admit", "queue", "place", "prefill", "decode"]


async def test_a_collector_that_is_not_there_disturbs_nobody(fleet: Any):
    with socket.socket() as bound:  # bound and not listened on: whoever dials is turned away
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_BSP_SCHEDULE_DELAY": "100"}
        running = fleet(ALONE, env=env)
        for _ in range(3):
            await over_rest(running.rest, "0af7651916cd43dd8448eb211c80319c")

        async def noticed() -> bool:
            return "serving goes on" in running.log.read_text()

        await running.until(noticed, "a line about the collector", within=WITHIN)
        await over_rest(running.rest, "0af7651916cd43dd8448eb211c80319c")
        await running.settled()
        running.end()
    log = running.log.read_text()
    assert "Traceback" not in log
    said = Counter(line.partition("|")[0].strip() for line in log.splitlines() if "serving goes on" in line)
    assert set(said) <= {"router", "rest", "pkg0"} and max(said.values()) <= 2
    assert "not over within" not in log
