"""`--config` for every command that has it: files in, a checked configuration out, remarks on stderr."""

import os
import sys
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence

from diplex_cli import reader
from diplex_cli.failures import UsageError
from diplex_cli.process import leashed
from diplex_core.config import Config, remarks

GRANTS_KEY = "DIPLEX_GRANTS_KEY"
"""Environment variable with the key that signs grants, where the configuration names no other."""


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
    source = reader.read(names)
    config = source.config(environment)
    # Under `up` each part would say it again.
    if not leashed():
        remark(source, config)
    return config


def remark(source: reader.Source, config: Config) -> None:
    """Say on stderr what the configuration asks for in vain."""
    for line in source.lines(list(remarks(config))):
        print(f"note: {line}", file=sys.stderr)


def grants_key(config: Config) -> str | None:
    """The key that routers sign with and workers verify with; `None` where the environment has none.

    Raises:
        UsageError: the configuration names a variable that is not set.
    """
    name = config.grants_key_env
    if name and not os.environ.get(name):
        raise UsageError(f"grants.key_env: the environment variable {name} is not set. Mend: export {name}=…")
    return os.environ.get(name or GRANTS_KEY) or None
