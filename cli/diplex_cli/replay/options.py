"""Options of every command that plays a trace: how much of it, how fast, to whom, and what is made of it."""

import math
import os
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import Final

from diplex_cli.failures import UsageError
from diplex_core.words import Tokens

_PICTURES: Final = (".png", ".svg")


def add_load(parser: ArgumentParser, *, timeout: float | None) -> None:
    """What is sent, and when.

    Args:
        timeout: seconds after which a request is given up where nothing else is said; `None`: never.
    """
    parser.add_argument("--speed", type=positive, metavar="X", help="divide arrival times by X (1)")
    parser.add_argument("--limit", type=count, metavar="N", help="only the first N requests")
    parser.add_argument(
        "--tiers",
        default="",
        metavar="NAME=SHARE,…",
        help="which share of the requests asks for which tier (default: all for the default_tier)",
    )
    parser.add_argument("--model", default="", help="default: the configuration's default_model")
    parser.add_argument("--clamp-input", type=count, metavar="N", help="shorten longer prompts to N tokens")
    parser.add_argument("--clamp-output", type=count, metavar="N", help="shorten longer answers to N tokens")
    parser.add_argument(
        "--max-tokens",
        type=count,
        metavar="N",
        help="ask for at most N tokens each time: how long an answer comes to be only the engine knows",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="draws whatever is drawn (%(default)s)"
    )
    parser.add_argument(
        "--retry",
        action="store_true",
        help="send a refused request once more, exactly when its refusal said",
    )
    parser.add_argument(
        "--timeout",
        type=positive,
        default=timeout,
        metavar="S",
        help=f"give a request up after so many seconds ({'never' if timeout is None else f'{timeout:g}'})",
    )
    parser.add_argument(
        "--api-key",
        action="append",
        metavar="KEY",
        help="names the tenant; several share the requests evenly (default: $DIPLEX_API_KEY)",
    )


def add_report(parser: ArgumentParser) -> None:
    """What is made of it."""
    parser.add_argument("--json", action="store_true", help="print the report as one line of JSON")
    parser.add_argument("--plot", metavar="FILE", type=picture, help="draw it, as .png or .svg")


def api_keys(args: Namespace) -> tuple[str, ...]:
    """The keys that share the requests: those that are named, or else the environment's, if there is one."""
    named = os.environ.get("DIPLEX_API_KEY")
    return tuple(args.api_key or ([named] if named else []))


def clamped(inputs: Tokens | None, outputs: Tokens | None) -> str:
    """Which lengths are not the stream's own; "" where all are."""
    return ", ".join(
        f"{what} clamped to {most:,} tokens"
        for what, most in (("prompts", inputs), ("answers", outputs))
        if most is not None
    )


def capped(most: Tokens) -> str:
    return f"each request asks for at most {most:,} tokens; its answer ends where the trace's does"


def positive(text: str) -> float:
    number = float(text)
    if not (number > 0 and math.isfinite(number)):
        raise ArgumentTypeError(f"{text} is not above 0")
    return number


def count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ArgumentTypeError(f"{text} is not 1 or more")
    return number


def picture(text: str) -> Path:
    """A picture's path, refused before minutes of load and not after them."""
    path = Path(text)
    if path.suffix.lower() not in _PICTURES:
        raise UsageError(f"--plot: '{text}' is neither .png nor .svg. Mend: --plot {path.stem}.png")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--plot: there is no folder {path.parent}. Mend: mkdir -p {path.parent}")
    return path
