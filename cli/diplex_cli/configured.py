"""`--config` for every command that has it: files in, a checked configuration out, remarks on stderr."""

import sys
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence

from diplex_cli import reader
from diplex_cli.process import leashed
from diplex_core.config import Config, remarks


def add_config(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        metavar="FILE",
        action="append",
        default=[],
        help="configuration; several add to each other (default: the embedded one)",
    )


def configured(names: Sequence[str], environment: Mapping[str, str] | None = None) -> Config:
    """The configuration of these files.

    Args:
        environment: where tenants' keys are; `None` for parts that do not need them.
    Raises:
        FileFault: a file cannot be read.
        ConfigErrors: everything that is wrong in them.
    """
    return sourced(names, environment)[1]


def sourced(
    names: Sequence[str], environment: Mapping[str, str] | None = None
) -> tuple[reader.Source, Config]:
    """The same, and where each of its words stands."""
    source = reader.read(names)
    config = source.config(environment)
    # Under `up` each part would say it again.
    if not leashed():
        remark(source, config)
    return source, config


def remark(source: reader.Source, config: Config) -> None:
    """Say on stderr what the configuration asks for in vain."""
    for line in source.lines(list(remarks(config))):
        print(f"note: {line}", file=sys.stderr)
