"""The data plane, side by side on loopback: diplex on each of its paths, and three routers beside it.

Everything that computes tokens here is simulated. Load and upstream share one core, what is measured has the
other. Results go into a JSON file, scenario by scenario: those that are not asked for keep what stands there.

    .venv/bin/python benchmarks/data_plane/run.py --list
    .venv/bin/python benchmarks/data_plane/run.py --quick --only rest_paced_1 --out results.json
    .venv/bin/python benchmarks/data_plane/run.py --out results.json    # half an hour
"""

import argparse
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bars
import crowd
import grpc_frames
import grpc_proxy
import grpc_session
import grpc_ttft
import grpc_ways
import long_prompts
import machine
import profiles
import rest
import slow

Scenario = Callable[[bool, list[str]], dict[str, Any]]
"""Told whether it is to be quick, and who is to be measured (none: all)."""

SCENARIOS: dict[str, Scenario] = {
    "rest_paced_1": lambda quick, who: rest.paced(1, *shape(quick, 3.0), who),
    "rest_paced_2": lambda quick, who: rest.paced(2, *shape(quick, 3.0), who),
    "rest_paced_4": lambda quick, who: rest.paced(4, *shape(quick, 3.0), who),
    "rest_full_speed": lambda quick, who: rest.full_speed(*shape(quick, 3.0), who),
    "rest_unary": lambda quick, who: rest.unary(*shape(quick, 3.0), who),
    "rest_unary_closed": lambda quick, who: rest.unary_closed(*shape(quick, 3.0), who),
    "rest_first_token": lambda quick, who: rest.first_token(*shape(quick, 5.0), who),
    "grpc_first_token": lambda quick, _: judged(grpc_ttft.measure(quick), grpc_ways.began),
    "grpc_router_idle": lambda quick, _: grpc_ways.router_idle(quick),
    "grpc_session": lambda quick, _: judged(grpc_session.measure(quick), grpc_ways.admitted),
    "grpc_proxy": lambda quick, _: judged(grpc_proxy.measure(quick), grpc_ways.proxied),
    "grpc_frames": lambda quick, _: judged(grpc_frames.measure(quick), grpc_ways.framed),
    "crowd_idle": lambda quick, _: crowd.idle(quick),
    "crowd_gaps": lambda quick, _: crowd.gaps(quick),
    "slow_reader": lambda quick, _: slow.reader(quick),
    "long_prompts": lambda quick, _: long_prompts.prompts(quick),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="SCENARIO", help="these, in this order (default: all)")
    parser.add_argument("--who", nargs="+", default=[], help="direct, diplex, a peer's name (default: all)")
    parser.add_argument("--quick", action="store_true", help="one round: a look, no figure to keep")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON; other scenarios in it are kept")
    parser.add_argument("--lock", type=Path, metavar="FILE", help="held for one scenario at a time")
    parser.add_argument(
        "--profile", type=Path, metavar="FOLDER", help="py-spy flame graphs of diplex's processes; no figures"
    )
    parser.add_argument("--list", action="store_true", help="print the scenarios' names")
    args = parser.parse_args()
    if args.list:
        print("\n".join(SCENARIOS))
        return
    unknown = [name for name in args.only or () if name not in SCENARIOS]
    if unknown:
        parser.error(f"no such scenario: {', '.join(unknown)}. Known: {', '.join(SCENARIOS)}")
    if args.profile:
        profiles.into(args.profile)
        args.quick, args.who, args.out = True, ["diplex"], None
    # What it starts inherits the load's core, unless told otherwise, and ends with it.
    os.sched_setaffinity(0, {machine.cores()[0]})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))
    failed: list[str] = []
    for name in args.only or SCENARIOS:
        profiles.begin(name)
        with held(args.lock):
            began = time.monotonic()
            about = machine.description()
            print(f"{name}: begins", file=sys.stderr, flush=True)
            try:
                found = SCENARIOS[name](args.quick, args.who)
            except RuntimeError as error:
                print(f"{name}: no result: {error}", file=sys.stderr, flush=True)
                failed.append(name)
                continue
        result = {
            "machine": about,
            "quick": args.quick,
            "took_s": round(time.monotonic() - began, 1),
            **found,
        }
        show(name, result)
        if args.out:
            keep(args.out, name, result)
    sys.exit(1 if failed else 0)


def judged(figures: dict[str, Any], by: Callable[[dict[str, Any]], list[dict[str, Any]]]) -> dict[str, Any]:
    """Figures with their bars."""
    return {"figures": figures, "bars": by(figures)}


def shape(quick: bool, seconds: float) -> tuple[int, float]:
    """Rounds, and the seconds of one measurement."""
    return (1, seconds / 2) if quick else (5, seconds)


@contextmanager
def held(lock: Path | None) -> Iterator[None]:
    """While others on this machine wait for their turn."""
    if lock is None:
        yield
        return
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def show(name: str, result: dict[str, Any]) -> None:
    """Each figure as median [least, most], and each bar."""
    print(f"\n{name} ({result['took_s']} s{', quick' if result['quick'] else ''}; all tokens are simulated)")
    for who, figures in result.get("figures", {}).items():
        print(f"  {who}")
        for key, value in figures.items():
            spread = f" [{value['least']:.4g}, {value['most']:.4g}]" if "least" in value else ""
            print(f"    {key:28} {value['median']:10.4g}{spread}")
    for why in result.get("missing", {}).values():
        print(f"  left out: {why}")
    for one in result.get("bars", []):
        print(f"  {bars.line(one)}")
    sys.stdout.flush()


def keep(file: Path, name: str, result: dict[str, Any]) -> None:
    """Put one scenario's result among the others."""
    everything = json.loads(file.read_text()) if file.exists() else {}
    everything[name] = result
    order = [*SCENARIOS, *(name for name in everything if name not in SCENARIOS)]
    ordered = {name: everything[name] for name in order if name in everything}
    file.write_text(json.dumps(ordered, indent=1) + "\n")


if __name__ == "__main__":
    main()
