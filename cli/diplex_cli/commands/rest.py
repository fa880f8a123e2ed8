"""Run the REST shim alone: OpenAI's HTTP API in front of a router.

Several processes share the port; one that dies is started again.

examples:
  diplex rest --config fleet.yaml
  diplex rest --config fleet.yaml --processes 4
"""

import asyncio
import logging
import os
import sys
from argparse import SUPPRESS, ArgumentParser, Namespace
from pathlib import Path
from tempfile import TemporaryDirectory

from diplex_cli import process, reader, telemetry
from diplex_cli.configured import add_config, configured
from diplex_cli.failures import NotFine
from diplex_cli.shims import SISTERS, processes, shims
from diplex_cli.supervisor import Supervisor

log = logging.getLogger(__name__)


def add_arguments(parser: ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--host", help="address to listen on (default: the configuration's)")
    parser.add_argument("--rest-port", type=int, metavar="N", help="HTTP port; 0 for any free one")
    parser.add_argument("--router", metavar="HOST:PORT", help="its router (default: the configuration's)")
    parser.add_argument(
        "--processes", type=_count, metavar="N", help="so many processes (default: the configuration's)"
    )
    parser.add_argument(SISTERS, metavar="FOLDER", help=SUPPRESS)
    telemetry.add_trace_file(parser)
    process.add_log_level(parser)


def run(args: Namespace) -> int:
    process.log_to_stderr(args.log_level)
    at = configured(args.config).rest
    count = processes(args.processes or at.processes)
    host, port = args.host or at.host, at.port if args.rest_port is None else args.rest_port
    if count > 1 and args.sisters is None:
        return _several(args, count, host, port)
    if args.sisters is not None:
        # Read by prometheus_client when it is imported, which the next line does.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = args.sisters

    from diplex_rest import server

    settings = server.RestSettings(
        host=host,
        port=port,
        router=args.router or at.router,
        drain=process.DRAIN_WITHIN,
        tokenizers=reader.read(args.config).tokenizers(),
        shared=args.sisters is not None,
    )
    with telemetry.exported(args, "diplex-rest"):
        return process.serve(lambda stop: server.run(settings, stop=stop))


def _several(args: Namespace, count: int, host: str, port: int) -> int:
    from diplex_rest.server import kept

    words = [word for name in args.config for word in ("--config", str(Path(name).absolute()))]
    words += ["--host", host, "--log-level", args.log_level]
    if args.router:
        words += ["--router", args.router]
    if args.trace_file:
        words += ["--trace-file", str(Path(args.trace_file).absolute())]
    with kept(host, port) as port_kept, TemporaryDirectory(prefix="diplex-rest-") as folder:
        words += ["--rest-port", str(port_kept.getsockname()[1])]
        parts = shims(count, words, Path(folder, "counts"))
        return asyncio.run(process.stoppable(lambda stop: _keep(Supervisor(parts, os.environ, _say), stop)))


async def _keep(fleet: Supervisor, stop: asyncio.Event) -> None:
    async with fleet, asyncio.TaskGroup() as tasks:
        failing = tasks.create_task(fleet.gave_up(), name="failure")
        stopping = tasks.create_task(stop.wait(), name="stop")
        await asyncio.wait([failing, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not failing.cancel():
            raise NotFine(f"{failing.result()} cannot run: its own words are above")


def _say(name: str, line: str) -> None:
    print(f"{name} | {line}", file=sys.stderr, flush=True)


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise ValueError(f"{count} is no number of processes")
    return count
