"""The REST shim as several processes on one port: how many, and how each is started."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from diplex_cli.supervisor import Part

SISTERS: Final = "--sisters"
"""Option of `diplex rest` for its own kind: it is one of several, which count together in that folder."""
_CORES_EACH: Final = 8
"""Workers and router want the other seven."""
_MOST: Final = 4


def processes(wanted: int | None) -> int:
    """How many processes: what was asked for, or else by the cores that this process may use."""
    return wanted or max(1, min(_MOST, len(os.sched_getaffinity(0)) // _CORES_EACH))


def shims(count: int, words: Sequence[str], folder: Path, *, stage: int = 0) -> list[Part]:
    """What to start.

    Args:
        words: options that all of them get.
        folder: where several count together; it is made.
    """
    if count == 1:
        return [Part("rest", ("rest", *words, "--processes", "1"), stage)]
    folder.mkdir()
    several = ("rest", *words, SISTERS, str(folder))
    return [Part(f"rest.{number}", several, stage) for number in range(count)]
