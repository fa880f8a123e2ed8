"""Replay a public trace against a running router, and report what became of each tier's promise.

Requests come when the trace says, whatever has become of those before; prompts are token ids of the trace's
lengths, with its shared prefixes, and answers are as long as the trace's. Every duration counts from the
moment at which a request was due. Ctrl-C sends nothing more and reports on what was sent.

TRACE is CSV of Azure or ServeGen, or JSON lines of Mooncake or Bailian, gzipped or not; - reads stdin.

examples:
  diplex replay benchmarks/traces/azure_code_2023.csv.gz --limit 500 --tiers interactive=0.5,bulk=0.5
  diplex replay trace.jsonl --speed 10 --clamp-input 30000 --tiers bulk --plot replay.png --json
"""

import asyncio
import json
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Final

from diplex_cli import telemetry, whom
from diplex_cli.failures import NOT_FINE
from diplex_cli.replay import options

if TYPE_CHECKING:
    from diplex_cli.replay.session import Settings

_TIMEOUT: Final = 900.0


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("trace", metavar="TRACE", help="file of the trace")
    options.add_load(parser, timeout=_TIMEOUT)
    whom.add_url(parser)
    telemetry.add_trace_file(parser)
    options.add_report(parser)


def run(args: Namespace) -> int:
    from diplex_cli.replay.mix import shares_in

    shares = shares_in(args.tiers) if args.tiers else {}
    if args.plot:
        # Before minutes of load, not after them.
        from diplex_cli.replay import plot
    from diplex_cli.replay import traces
    from diplex_cli.replay.session import replay
    from diplex_core.report import text

    trace = traces.read(args.trace, args.limit)
    settings = _settings(args, shares)
    with telemetry.exported(args, "diplex-client"), _runner() as runner:
        done = runner.run(replay(trace, settings))
    print(json.dumps(done.report.to_json(), ensure_ascii=False) if args.json else text(done.report))
    if args.plot:
        plot.draw(done, args.plot)
    return 0 if done.fine else NOT_FINE


def _settings(args: Namespace, shares: dict[str, float]) -> "Settings":
    from diplex_cli.replay.session import Settings

    return Settings(
        url=args.url,
        model=args.model,
        shares=shares,
        api_keys=options.api_keys(args),
        speed=args.speed or 1.0,
        limit=args.limit,
        seed=args.seed,
        clamp_input=args.clamp_input,
        clamp_output=args.clamp_output,
        max_tokens=args.max_tokens,
        timeout=args.timeout,
        retry=args.retry,
    )


def _runner() -> "asyncio.Runner":
    """With uvloop, where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)
