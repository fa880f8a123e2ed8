"""Run the router alone: it links to the workers of the configuration and serves until it is told to stop.

The key that signs grants comes from the environment (the variable that `grants.key_env` names, else
DIPLEX_GRANTS_KEY), or from the file that `grants.key_file` names. Workers need the same one.

Tiers and tenants are read again when a file of --config changes, and at SIGHUP: what runs goes on, the next
request obeys the new ones. A file that is wrong changes nothing.

example:
  DIPLEX_GRANTS_KEY=secret diplex router --config fleet.yaml
"""

import asyncio
import os
from argparse import ArgumentParser, Namespace

from diplex_cli import grants_keys, plugins, process, telemetry
from diplex_cli.configured import add_config, remark
from diplex_cli.failures import UsageError
from diplex_cli.reloading import Reloading
from diplex_core.config import cannot_run


def add_arguments(parser: ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--host", help="address to listen on (default: the configuration's)")
    parser.add_argument("--router-port", type=int, metavar="N", help="gRPC port; 0 for any free one")
    parser.add_argument("--metrics-port", type=int, metavar="N", help="port of /metrics; 0 for any free one")
    parser.add_argument(
        "--without", metavar="NAME", action="append", default=[], help="a worker of the file to leave out"
    )
    telemetry.add_trace_file(parser)
    process.add_log_level(parser)


def run(args: Namespace) -> int:
    process.log_to_stderr(args.log_level)
    reloading = Reloading(args.config, os.environ)
    config = reloading.started_with
    if not process.leashed():  # else `up` has said it
        remark(reloading.source, config)
    key = grants_keys.grants_key(reloading.source, config)
    if key is None:
        name = grants_keys.variable(config)
        raise UsageError(
            f"the router needs the key that signs grants. Mend: export {name}=…, as for its workers"
        )

    from diplex.wire.grants import Keys
    from diplex_router import server
    from diplex_router.settings import RouterSettings, WorkerSpec

    at = config.router
    settings = RouterSettings(
        name=at.name,
        host=args.host or at.host,
        port=at.port if args.router_port is None else args.router_port,
        metrics_port=at.metrics_port if args.metrics_port is None else args.metrics_port,
        rules=config.rules,
        workers=tuple(
            WorkerSpec(
                worker.name,
                worker.address,
                worker.package,
                worker.pattern,
                (worker.model.name,),
                worker.tiers,
            )
            for worker in config.workers
            if cannot_run(worker) is None and worker.name not in args.without
        ),
        keys=Keys.of(key),
        book=plugins.book(),
    )

    async def serving(stop: asyncio.Event) -> None:
        async with grants_keys.followed(reloading.source, settings.keys):
            new_rules = reloading.rules() if reloading.watched else None
            await server.run(settings, stop=stop, new_rules=new_rules)

    with telemetry.exported(args, "diplex-router", at.name):
        return process.serve(serving)
