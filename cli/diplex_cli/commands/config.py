"""Check a configuration: every fault with its file, line and mend, and what is not acted on yet.

Several files are checked as the one configuration that they make together.

example:
  diplex config check fleet.yaml
"""

import json
import sys
from argparse import ArgumentParser, Namespace

from diplex_cli import reader
from diplex_cli.failures import NOT_FINE
from diplex_core.config import Config, ConfigErrors, remarks


def add_arguments(parser: ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="check", required=True)
    check = verbs.add_parser("check", help="check one configuration", description=__doc__.partition("\n")[0])
    check.add_argument("files", metavar="FILE", nargs="+", help="configuration file")
    check.add_argument("--json", action="store_true", help="print the result as one line of JSON")


def run(args: Namespace) -> int:
    faults: list[str] = []
    notes: list[str] = []
    config: Config | None = None
    try:
        source = reader.read(args.files)
        config = source.config()
        notes = list(source.lines(list(remarks(config))))
    except reader.FileFault as error:
        faults = str(error).splitlines()
    except ConfigErrors as errors:
        faults = list(errors.args)
    if args.json:
        print(json.dumps({"fine": not faults, "faults": faults, "notes": notes}))
        return NOT_FINE if faults else 0
    for note in notes:
        print(f"note: {note}")
    for fault in faults:
        print(fault, file=sys.stderr)
    if config is None:
        return NOT_FINE
    print(f"{', '.join(args.files)}: fine: {_counted(config)}")
    return 0


def _counted(config: Config) -> str:
    counts = (
        ("models", len(config.models)),
        ("workers", len(config.workers)),
        ("tiers", len(config.rules.tiers)),
        ("tenants", len(config.rules.tenants)),
    )
    return ", ".join(f"{count} {what if count != 1 else what[:-1]}" for what, count in counts)
