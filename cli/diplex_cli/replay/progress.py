"""How far a load is, on stderr: one line that is written over on a terminal, else a line now and then."""

import asyncio
import sys
from time import perf_counter
from typing import Final, TextIO

from diplex_cli.replay.load import Tally
from diplex_core.report import Ending
from diplex_core.words import Seconds

_WIDTH: Final = 100
_BAR: Final = 16
_ON_A_TERMINAL: Final[Seconds] = 0.2
_ELSEWHERE: Final[Seconds] = 10.0
_OVER_IT: Final = "\r\x1b[K"


def line(tally: Tally, passed: Seconds) -> str:
    """At most a hundred columns: a bar of what was sent, what became of it, and each tier's attainment."""
    done = tally.sent / tally.total if tally.total else 1.0
    bar = ("█" * round(done * _BAR)).ljust(_BAR, "░")
    ends = tally.by_ending
    words = [
        f"{passed:5.0f} s {bar} {tally.sent}/{tally.total} sent",
        f"{tally.running} open",
        f"{ends[Ending.COMPLETED]} done",
    ]
    words += [f"{ends[ending]} {ending}" for ending in (Ending.REJECTED, Ending.FAILED) if ends[ending]]
    words += [f"{tier} {tally.met[tier] / count:.0%}" for tier, count in sorted(tally.ended.items()) if count]
    said = " · ".join(words)
    return said if len(said) <= _WIDTH else said[: _WIDTH - 1] + "…"


async def show(tally: Tally, stream: TextIO | None = None) -> None:
    """Show it until cancelled; a terminal is left as it was."""
    stream = stream or sys.stderr
    began = perf_counter()
    over = stream.isatty()
    try:
        while True:
            await asyncio.sleep(_ON_A_TERMINAL if over else _ELSEWHERE)
            said = line(tally, perf_counter() - began)
            stream.write(_OVER_IT + said if over else said + "\n")
            stream.flush()
    finally:
        if over:
            stream.write(_OVER_IT)
            stream.flush()
