"""Run one worker of the configuration alone: the engine, and the gRPC server around it.

NAME is the package, or in pattern B the package and the die, such as pkg2.0. Without the key that signs
grants (in the variable that `grants.key_env` names, else DIPLEX_GRANTS_KEY, or in the file that
`grants.key_file` names) it refuses direct sessions.

example:
  DIPLEX_GRANTS_KEY=secret diplex worker pkg0 --config fleet.yaml
"""

import asyncio
import logging
from argparse import ArgumentParser, Namespace

from diplex_cli import grants_keys, process, telemetry
from diplex_cli.configured import add_config, sourced
from diplex_cli.failures import UsageError
from diplex_core.config import Config, WorkerConfig, cannot_run
from diplex_core.config.faults import nearest
from diplex_core.config.values import METRICS_ABOVE

log = logging.getLogger(__name__)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="which worker of the configuration")
    add_config(parser)
    parser.add_argument("--host", help="address to listen on (default: the configuration's)")
    parser.add_argument("--port", type=int, metavar="N", help="gRPC port; 0 for any free one")
    parser.add_argument(
        "--metrics-port", type=int, metavar="N", help="port of /metrics (default: gRPC port + 100)"
    )
    telemetry.add_trace_file(parser)
    process.add_log_level(parser)


def run(args: Namespace) -> int:
    process.log_to_stderr(args.log_level)
    source, config = sourced(args.config)
    worker = _named(config, args.name)
    key = grants_keys.grants_key(source, config)
    if key is None and not worker.open:
        log.warning(
            "no key for grants: direct sessions are refused. Mend: export %s=…, the same as the router's",
            grants_keys.variable(config),
        )

    from diplex.wire.grants import Keys
    from diplex_cli.engines import engine_for
    from diplex_workers import server
    from diplex_workers.settings import WorkerSettings

    port = worker.port if args.port is None else args.port
    settings = WorkerSettings(
        name=worker.name,
        package=worker.package,
        pattern=worker.pattern,
        gpu=worker.gpu,
        dies=worker.dies,
        tiers=worker.tiers,
        host=args.host or worker.host,
        port=port,
        metrics_port=_metrics_port(port) if args.metrics_port is None else args.metrics_port,
        advertise=worker.advertise or worker.url,
        keys=Keys.of(key) if key else None,
        open=worker.open,
        drain=process.DRAIN_WITHIN,
    )
    engine = engine_for(worker, config.rules)

    async def serving(stop: asyncio.Event) -> None:
        async with grants_keys.followed(source, settings.keys):
            await server.run(settings, engine, stop=stop)

    with telemetry.exported(args, "diplex-worker", worker.name):
        return process.serve(serving)


def _metrics_port(port: int) -> int:
    return port + METRICS_ABOVE if port else 0


def _named(config: Config, name: str) -> WorkerConfig:
    worker = config.worker(name)
    if worker is None:
        names = [one.name for one in config.workers]
        mend = nearest(name, names) or f"one of {', '.join(names)}"
        raise UsageError(f"the configuration has no worker '{name}'. Mend: {mend}")
    if reason := cannot_run(worker):
        raise UsageError(f"{name} cannot be run: {reason}")
    return worker
