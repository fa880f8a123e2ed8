"""Failures that are expected, as one or two lines for people and an exit code. All others are bugs.

An exception's class is looked up where it was loaded: this module itself imports no part of diplex.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

NOT_FINE: Final = 1
WRONG_USAGE: Final = 2


@dataclass(frozen=True, slots=True)
class Failure:
    """What is printed on stderr, and what the process ends with."""

    text: str
    code: int


class UsageError(Exception):
    """The command cannot do this, as it was asked: place, reason and mend in the message."""


class NotFine(Exception):
    """What was asked for did not come about: place, reason and mend in the message."""


# (module, class): exit code. The module need not be loaded: then nothing has raised it.
_EXPECTED: Final[Mapping[tuple[str, str], int]] = MappingProxyType(
    {
        (__name__, "UsageError"): WRONG_USAGE,
        (__name__, "NotFine"): NOT_FINE,
        ("diplex_core.config.faults", "ConfigErrors"): WRONG_USAGE,
        ("diplex_core.plan.deployment", "Unplannable"): WRONG_USAGE,
        ("diplex_cli.reader", "FileFault"): WRONG_USAGE,
        ("diplex.wire.serving", "PortTaken"): WRONG_USAGE,
        ("diplex_workers.launch.weights", "WeightsMissing"): WRONG_USAGE,
        ("diplex.wire.status", "Problem"): NOT_FINE,
        ("diplex.errors", "DiplexError"): NOT_FINE,
    }
)

# The option that needs it, where the command alone does not.
_OPTIONS: Final[Mapping[str, str]] = MappingProxyType({"matplotlib": " --plot"})

# What brings a missing package.
_EXTRAS: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(("starlette", "uvicorn", "httptools"), "rest"),
        **dict.fromkeys(("uvloop", "grpc_health", "grpc_reflection", "grpc_channelz", "aiohttp"), "server"),
        "prometheus_client": "server",
        "opentelemetry": "server",
        "xllamacpp": "llamacpp",
        "matplotlib": "plot",
        **dict.fromkeys(("tokenizers", "jinja2"), "tokenizers"),
    }
)


def told(error: Exception, command: str) -> Failure | None:
    """How to tell it; `None` for an error that nobody expected.

    Args:
        command: the command that it ended, as in `diplex COMMAND`.
    """
    if isinstance(error, ImportError):
        return _missing_extra(error, command)
    for (module, name), code in _EXPECTED.items():
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(error, kind):
            return Failure(str(error), code)
    return None


def _missing_extra(error: ImportError, command: str) -> Failure | None:
    package = (error.name or "").partition(".")[0]
    extra = _EXTRAS.get(package)
    if extra is None:
        return None
    # The shim's extra holds all that it needs, but for tokenizers.
    extra = "rest" if command == "rest" and extra != "tokenizers" else extra
    text = f"diplex {command}{_OPTIONS.get(package, '')} needs {package}. Mend: pip install 'diplex[{extra}]'"
    return Failure(text, WRONG_USAGE)
