"""Check a configuration, or print the JSON Schema of one.

`check` names every fault with its file, line and mend, and what has no effect; several files are
checked as the one configuration that they make together. `schema` is for editors: one with a YAML language
server completes and checks a file whose first line is `# yaml-language-server: $schema=FILE`.

examples:
  diplex config check fleet.yaml
  diplex config schema > diplex-schema.json
"""

import json
import sys
from argparse import ArgumentParser, Namespace

from diplex_cli import plugins, reader
from diplex_cli.failures import NOT_FINE
from diplex_core.config import Config, ConfigErrors, remarks, schema


def add_arguments(parser: ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="check | schema", required=True)
    check = verbs.add_parser("check", help="check one configuration", description="Check a configuration.")
    check.add_argument("files", metavar="FILE", nargs="+", help="configuration file")
    check.add_argument("--json", action="store_true", help="print the result as one line of JSON")
    verbs.add_parser("schema", help="print the JSON Schema", description="Print the JSON Schema.")


def run(args: Namespace) -> int:
    if args.verb == "schema":
        print(schema.text(plugins.book()), end="")
        return 0
    return _check(args)


def _check(args: Namespace) -> int:
    faults: list[str] = []
    notes: list[str] = []
    config: Config | None = None
    try:
        source = reader.read(args.files)
        config = source.config(key_files=True)
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
