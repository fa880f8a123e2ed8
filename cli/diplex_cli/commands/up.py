"""Serve on this machine: spawn and supervise workers, router and REST shim, and say where each listens.

Without --config it serves the embedded default: SmolLM2 for real on this CPU, and Qwen2.5-72B on two
simulated B200s. Ctrl-C drains: what runs may finish for up to 10 s. A second Ctrl-C ends everything at once.

examples:
  diplex up
  diplex up --config fleet.yaml --rest-port 8601
  diplex up --router-port 0 --rest-port 0 --metrics-port 0 --worker-port 0 --json
"""

import asyncio
import json
import os
import secrets
import sys
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from diplex_cli import process, reader, telemetry
from diplex_cli.announcement import Arrived
from diplex_cli.arrival import arrived
from diplex_cli.configured import add_config, remark
from diplex_cli.deployment import Deployment, planned
from diplex_cli.failures import NotFine
from diplex_cli.grants_keys import grants_key, variable
from diplex_cli.shims import processes, shims
from diplex_cli.supervisor import Part, Supervisor


def add_arguments(parser: ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument(
        "--host", help="address that all parts listen on (default: the configuration's, 127.0.0.1)"
    )
    for option, what in (
        ("--router-port", "router, gRPC"),
        ("--rest-port", "REST shim"),
        ("--metrics-port", "router's /metrics"),
        ("--worker-port", "first worker, gRPC; the others follow, their /metrics 100 above"),
    ):
        parser.add_argument(option, type=_port, metavar="N", help=f"port: {what}; 0 for a free one")
    parser.add_argument(
        "--rest", action=BooleanOptionalAction, default=True, help="with the REST shim (the default)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one line of JSON when ready, instead of the table"
    )
    telemetry.add_trace_file(parser)
    process.add_log_level(parser)


def run(args: Namespace) -> int:
    telemetry.check(args)
    source = reader.read(args.config)
    deployment = planned(args, source, os.environ)
    remark(source, deployment.config)
    for name, reason in deployment.left_out.items():
        print(f"note: left out: {name}: {reason}", file=sys.stderr)
    key = grants_key(source, deployment.config) or secrets.token_urlsafe(32)
    environment = {**os.environ, variable(deployment.config): key}
    with TemporaryDirectory(prefix="diplex-up-") as folder:
        # JSON is YAML: the options and ports that were settled here are one more file for every part.
        overlay = Path(folder, "options.yaml")
        overlay.write_text(json.dumps(deployment.overlay))
        files = [name if name == reader.EMBEDDED else str(Path(name).absolute()) for name in source.files]
        parts = _parts(args, deployment, [*files, str(overlay)], Path(folder))
        fleet = Supervisor(parts, environment, _prefixed(parts))
        return asyncio.run(process.stoppable(lambda stop: _run(args, deployment, fleet, stop)))


def _parts(args: Namespace, deployment: Deployment, files: Sequence[str], folder: Path) -> list[Part]:
    """All children. Workers come first: they take longest to load, and end last."""
    common = [word for name in files for word in ("--config", name)] + ["--log-level", args.log_level]
    if args.trace_file:
        common += ["--trace-file", str(Path(args.trace_file).absolute())]
    without = [word for name in deployment.left_out for word in ("--without", name)]
    parts = [Part(one.name, ("worker", one.name, *common)) for one in deployment.workers]
    parts.append(Part("router", ("router", *common, *without), stage=1))
    if args.rest:
        count = processes(deployment.config.rest.processes)
        parts += shims(count, common, folder / "rest", stage=2)
    return parts


async def _run(args: Namespace, deployment: Deployment, fleet: Supervisor, stop: asyncio.Event) -> None:
    async with fleet:
        arriving = asyncio.create_task(arrived(deployment, rest=args.rest, say=_note), name="arrival")
        failing = asyncio.create_task(fleet.gave_up(), name="failure")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait([arriving, failing, stopping], return_when=asyncio.FIRST_COMPLETED)
            if arriving.done():
                _announce(args, arriving.result(), fleet)
                await asyncio.wait([failing, stopping], return_when=asyncio.FIRST_COMPLETED)
            if failing.done() and not stop.is_set():
                raise NotFine(f"{failing.result()} cannot run: its own words are above")
            _note("draining; Ctrl-C again ends everything at once")
        finally:
            for task in (arriving, failing, stopping):
                task.cancel()


def _announce(args: Namespace, fleet: Arrived, supervisor: Supervisor) -> None:
    if args.json:
        pids = {name: child.pid for name, child in supervisor.children.items()}
        print(json.dumps({**fleet.addresses(), "pids": pids}), flush=True)
    else:
        print(fleet.table(), flush=True)


def _prefixed(parts: Sequence[Part]) -> Callable[[str, str], None]:
    """Writes a child's lines on stderr, each behind the child's name."""
    width = max(len(part.name) for part in parts)

    def say(name: str, line: str) -> None:
        _log(f"{name:{width}} | {line}")

    return say


def _note(text: str) -> None:
    _log(f"diplex up: {text}")


def _log(line: str) -> None:
    # Whoever read the log may have gone; the fleet goes on without.
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError(f"{port} is no port")
    return port
