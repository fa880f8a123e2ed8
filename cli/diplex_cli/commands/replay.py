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
import math
import os
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from diplex_cli import telemetry, whom
from diplex_cli.failures import NOT_FINE, UsageError

if TYPE_CHECKING:
    from diplex_cli.replay.session import Settings

_TIMEOUT: Final = 900.0
_PICTURES: Final = (".png", ".svg")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("trace", metavar="TRACE", help="file of the trace")
    parser.add_argument(
        "--speed", type=_positive, default=1.0, metavar="X", help="divide arrival times by X (%(default)g)"
    )
    parser.add_argument("--limit", type=_count, metavar="N", help="only the first N requests")
    parser.add_argument(
        "--tiers",
        default="",
        metavar="NAME=SHARE,…",
        help="which share of the requests asks for which tier (default: all for the default_tier)",
    )
    parser.add_argument("--model", default="", help="default: the configuration's default_model")
    parser.add_argument("--clamp-input", type=_count, metavar="N", help="shorten longer prompts to N tokens")
    parser.add_argument("--clamp-output", type=_count, metavar="N", help="shorten longer answers to N tokens")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="draws tiers and prompts (%(default)s)"
    )
    parser.add_argument(
        "--retry",
        action="store_true",
        help="send a refused request once more, exactly when its refusal said",
    )
    parser.add_argument(
        "--timeout",
        type=_positive,
        default=_TIMEOUT,
        metavar="S",
        help="give a request up after so many seconds (%(default)g)",
    )
    whom.add_url(parser)
    parser.add_argument(
        "--api-key",
        action="append",
        metavar="KEY",
        help="names the tenant; several share the requests evenly (default: $DIPLEX_API_KEY)",
    )
    telemetry.add_trace_file(parser)
    parser.add_argument("--json", action="store_true", help="print the report as one line of JSON")
    parser.add_argument("--plot", metavar="FILE", type=_picture, help="draw it, as .png or .svg")


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

    named = os.environ.get("DIPLEX_API_KEY")
    return Settings(
        url=args.url,
        model=args.model,
        shares=shares,
        api_keys=tuple(args.api_key or ([named] if named else [])),
        speed=args.speed,
        limit=args.limit,
        seed=args.seed,
        clamp_input=args.clamp_input,
        clamp_output=args.clamp_output,
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


def _positive(text: str) -> float:
    number = float(text)
    if not (number > 0 and math.isfinite(number)):
        raise ArgumentTypeError(f"{text} is not above 0")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ArgumentTypeError(f"{text} is not 1 or more")
    return number


def _picture(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in _PICTURES:
        raise UsageError(f"--plot: '{text}' is neither .png nor .svg. Mend: --plot {path.stem}.png")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--plot: there is no folder {path.parent}. Mend: mkdir -p {path.parent}")
    return path
