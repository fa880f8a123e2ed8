"""Run the REST shim alone: OpenAI's HTTP API in front of a router.

example:
  diplex rest --config fleet.yaml
"""

from argparse import ArgumentParser, Namespace

from diplex_cli import process, reader, telemetry
from diplex_cli.configured import add_config, configured


def add_arguments(parser: ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--host", help="address to listen on (default: the configuration's)")
    parser.add_argument("--rest-port", type=int, metavar="N", help="HTTP port; 0 for any free one")
    parser.add_argument("--router", metavar="HOST:PORT", help="its router (default: the configuration's)")
    telemetry.add_trace_file(parser)
    process.add_log_level(parser)


def run(args: Namespace) -> int:
    process.log_to_stderr(args.log_level)
    at = configured(args.config).rest

    from diplex_rest import server

    settings = server.RestSettings(
        host=args.host or at.host,
        port=at.port if args.rest_port is None else args.rest_port,
        router=args.router or at.router,
        drain=process.DRAIN_WITHIN,
        tokenizers=reader.read(args.config).tokenizers(),
    )
    with telemetry.exported(args, "diplex-rest"):
        return process.serve(lambda stop: server.run(settings, stop=stop))
