"""Simulate a load on a fleet: the router's own core and simulated engines, in virtual time.

The same admission, queues, tiers and placement as in a router, the same engine model as the sim engine, and a
clock that jumps from event to event: thousands of packages, and the report of `diplex replay`. Real engines
cannot be simulated: they are left out. Ctrl-C lets nothing more arrive and reports on what did.

TRACE is a file that `diplex replay` reads (- reads stdin), or what is to be drawn: steady:, poisson: or
bursty:rate=R, with requests=N, prompt=N, output=N (prompt_p95=, output_p95=: log-normal), lengths=FILE
(drawn from a trace's), prefixes=100x512 (so many shared prefixes of so many tokens), zipf=S, burst=CV.

examples:
  diplex simulate benchmarks/traces/azure_code_2023.csv.gz --limit 500 --tiers interactive=0.5,bulk=0.5
  diplex simulate poisson:prompt=1500,output=200,prefixes=100x512 --packages 20 --load 0.9 --plot sim.png
  diplex simulate trace.jsonl --config fleet.yaml --requests 100000 --load 1.2 --faults faults.yaml --json
"""

import gc
import json
import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from time import perf_counter
from typing import TYPE_CHECKING, Final

from diplex_cli.configured import add_config
from diplex_cli.failures import NOT_FINE, UsageError
from diplex_cli.replay import options

if TYPE_CHECKING:
    from diplex_cli.simulate.fleet import Fleet
    from diplex_cli.simulate.session import Settings

_COLLECT: Final = (50_000, 50, 100)
"""After how many new objects the youngest are looked through, and how much more seldom the older ones."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("trace", metavar="TRACE", help="file of a trace, or what is to be drawn")
    add_config(parser)
    parser.add_argument(
        "--packages",
        type=options.count,
        metavar="N",
        help="as many, by copies of the configuration's simulated ones",
    )
    options.add_load(parser, timeout=None)
    parser.add_argument(
        "--load",
        type=options.positive,
        metavar="X",
        help="a share of what the fleet can take by its own step times, such as 0.9, instead of a rate",
    )
    parser.add_argument("--repeat", type=options.count, metavar="N", help="N times round the trace")
    parser.add_argument(
        "--requests", type=options.count, metavar="N", help="round the trace until N requests came"
    )
    parser.add_argument(
        "--message-ms",
        type=_message,
        default=0.0,
        metavar="MS",
        help="how long each message between client, router and worker takes (%(default)g)",
    )
    parser.add_argument("--faults", metavar="FILE", help="YAML script of what goes wrong and when")
    options.add_report(parser)


def run(args: Namespace) -> int:
    from diplex_cli.configured import configured
    from diplex_cli.replay.mix import shares_in

    shares = shares_in(args.tiers) if args.tiers else {}
    if args.plot:
        # Before minutes of load, not after them.
        from diplex_cli.simulate import plot
    from diplex_cli.simulate.fleet import fleet_of
    from diplex_cli.simulate.session import simulate
    from diplex_cli.simulate.streams import stream_of
    from diplex_core.report import text

    if args.load is not None and args.speed is not None:
        raise UsageError("--load and --speed both say how fast. Mend: one of them")
    if args.repeat is not None and args.requests is not None:
        raise UsageError("--repeat and --requests both say how many. Mend: one of them")
    fleet = fleet_of(configured(args.config, os.environ), args.packages)
    settings = _settings(args, shares, fleet)
    stream = stream_of(
        args.trace, limit=args.limit, rounds=args.repeat, requests=args.requests, seed=args.seed
    )
    if args.load is not None and stream.rate is not None and stream.format == "synthetic":
        raise UsageError("--load and rate=… both say how fast. Mend: one of them")
    # Millions of values live as long as a request: to look for cycles among them at the usual pace takes a
    # tenth of the run.
    gc.set_threshold(*_COLLECT)
    began = perf_counter()
    done = simulate(stream, fleet, settings)
    took = perf_counter() - began
    print(json.dumps(done.report.to_json(), ensure_ascii=False) if args.json else text(done.report))
    sent = done.report.run["requests_sent"]
    print(
        f"note: {done.report.duration:,.1f} s were simulated in {took:,.1f} s, "
        f"{took / max(1, sent) * 1e6:,.0f} us a request",
        file=sys.stderr,
    )
    if args.plot:
        plot.draw(done, args.plot)
    return 0 if done.fine else NOT_FINE


def _settings(args: Namespace, shares: dict[str, float], fleet: "Fleet") -> "Settings":
    from diplex_cli.simulate import faults
    from diplex_cli.simulate.session import Settings

    names = [worker.name for worker in fleet.workers], [worker.package for worker in fleet.workers]
    return Settings(
        config=", ".join(args.config) or "the embedded default",
        model=args.model,
        shares=shares,
        api_keys=options.api_keys(args),
        speed=args.speed or 1.0,
        load=args.load,
        seed=args.seed,
        clamp_input=args.clamp_input,
        clamp_output=args.clamp_output,
        max_tokens=args.max_tokens,
        timeout=args.timeout,
        retry=args.retry,
        message=args.message_ms / 1000,
        faults=faults.read(args.faults, *names) if args.faults else (),
    )


def _message(text: str) -> float:
    """Milliseconds."""
    number = float(text)
    if not 0 <= number <= 1000:
        raise ArgumentTypeError(f"{text} is not within 0 and 1000")
    return number
