"""What tracing costs: CPU time a request of client, router and worker, without it and with it, in one run.

A fleet with one simulated worker is started for each way of tracing, the same requests go through it, and the
CPU time of each process is read before and after. The ways take turns, round after round, so that whatever
else the machine does meets all of them. Everything runs on this machine; the engine is simulated and costs
little, which makes the share of tracing look larger than beside a real one.

    .venv/bin/python benchmarks/tracing/cost.py            # about a minute and a half
"""

import argparse
import asyncio
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

WAYS = ("off", "sampled out", "file", "otlp")
TOKENS, AT_ONCE, WARM_UP = 64, 32, 50
FLEET = """\
models: {m: {profile: qwen2.5-72b, weights: mxfp4-mixed, kv_cache: mxfp8}}
packages:
  pkg0: {gpu: b200, pattern: A, model: m, engine: {kind: sim, calibration: chapter, time_scale: 10}}
tiers: {standard: {patterns: [A]}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=600, help="in each round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of every way (%(default)s)")
    parser.add_argument("--client", metavar="HOST:PORT", help=argparse.SUPPRESS)
    parser.add_argument("--trace-file", help=argparse.SUPPRESS)
    parser.add_argument("--sink", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.sink:
        sink()
    elif args.client:
        client(args)
    else:
        measure(args)


def measure(args: argparse.Namespace) -> None:
    spent: dict[str, dict[str, list[float]]] = {way: {} for way in WAYS}
    with tempfile.TemporaryDirectory() as folder, started([sys.executable, __file__, "--sink"]) as receiver:
        port = first_line(receiver)
        for round_ in range(args.rounds):
            for way in WAYS:
                for part, milliseconds in one_round(way, args.requests, Path(folder), port).items():
                    spent[way].setdefault(part, []).append(milliseconds)
            print(f"round {round_ + 1} of {args.rounds} is over", file=sys.stderr)
    parts = list(spent["off"])
    middle = {way: {part: statistics.median(spent[way][part]) for part in parts} for way in WAYS}
    machine = f"{os.cpu_count()} cores ({processor()}), Python {platform.python_version()}"
    print(f"{time.strftime('%Y-%m-%d')}, {machine}")
    print(
        f"CPU milliseconds a request, median of {args.rounds} rounds of {args.requests} requests "
        f"of {TOKENS} tokens, {AT_ONCE} at a time; simulated engine"
    )
    print(f"{'tracing':12}" + "".join(f"{part:>10}" for part in parts) + f"{'all':>10}{'ratio':>8}")
    base = sum(middle["off"].values())
    for way in WAYS:
        total = sum(middle[way].values())
        row = "".join(f"{middle[way][part]:10.2f}" for part in parts)
        print(f"{way:12}{row}{total:10.2f}{total / base:8.2f}")


def one_round(way: str, requests: int, folder: Path, port: str) -> dict[str, float]:
    """CPU milliseconds a request of each part."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    option: list[str] = []
    if way == "file":
        option = ["--trace-file", str(folder / "spans.jsonl")]
    elif way != "off":
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{port}"
    if way == "sampled out":
        environment["OTEL_TRACES_SAMPLER"] = "always_off"
    config = folder / "fleet.yaml"
    config.write_text(FLEET)
    any_ports = [word for part in ("router", "metrics", "worker") for word in (f"--{part}-port", "0")]
    words = [
        "up",
        "--no-rest",
        "--config",
        str(config),
        "--json",
        "--log-level",
        "warning",
        *any_ports,
        *option,
    ]
    with started([sys.executable, "-m", "diplex_cli.main", *words], environment) as fleet:
        said = json.loads(first_line(fleet))
        before = {part: cpu_of(said["pids"][part]) for part in ("router", "pkg0")}
        asking = [sys.executable, __file__, "--client", said["router"], "--requests", str(requests), *option]
        own = subprocess.run(asking, env=environment, check=True, capture_output=True, text=True).stdout
        spent = {part: cpu_of(said["pids"][part]) - cpu for part, cpu in before.items()}
    asked = requests + WARM_UP
    return {
        "client": float(own) * 1000 / requests,
        "router": spent["router"] * 1000 / asked,
        "worker": spent["pkg0"] * 1000 / asked,
    }


def client(args: argparse.Namespace) -> None:
    """Ask for everything, and print this process's CPU seconds for it."""
    from diplex_cli import telemetry

    with telemetry.exported(args, "diplex-client"):
        print(asyncio.run(ask(args.client, args.requests)))


async def ask(router: str, requests: int) -> float:
    import diplex

    async with diplex.AsyncClient(router) as asking:
        places = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            async with places:
                await asking.generate(f"prompt {number}", max_tokens=TOKENS, ignore_eos=True)

        await asyncio.gather(*(one(number) for number in range(WARM_UP)))
        before = own_cpu()
        await asyncio.gather(*(one(number) for number in range(requests)))
        return own_cpu() - before


def sink() -> None:
    """An OTLP receiver that throws everything away. Its own CPU time is nobody's."""
    import grpc
    from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

    class Traces(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request, context):  # type: ignore[no-untyped-def]
            return trace_service_pb2.ExportTraceServiceResponse()

    class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
        def Export(self, request, context):  # type: ignore[no-untyped-def]
            return metrics_service_pb2.ExportMetricsServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()


def own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def cpu_of(pid: int) -> float:
    """Seconds of user and system time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )


@contextmanager
def started(words: list[str], environment: dict[str, str] | None = None) -> "Iterator[subprocess.Popen[str]]":
    """A process that ends with the `with` block."""
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def first_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    line = process.stdout.readline().strip()
    assert line, "it ended before it was ready"
    return line


if __name__ == "__main__":
    main()
