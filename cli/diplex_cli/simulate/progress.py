"""How far a simulation is, on stderr: one line that is written over on a terminal, else one now and then."""

import sys
from time import perf_counter
from types import TracebackType
from typing import Final, TextIO

from diplex_core.report import Ending, Outcome
from diplex_core.words import Seconds

_WIDTH: Final = 100
_BAR: Final = 16
_ON_A_TERMINAL: Final[Seconds] = 0.2
_ELSEWHERE: Final[Seconds] = 10.0
_OVER_IT: Final = "\r\x1b[K"


class Progress:
    """Counts what is over, and tells of it while it is entered; a terminal is left as it was."""

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self._total = total
        self._stream = stream or sys.stderr
        self._over = self._stream.isatty()
        self._every = _ON_A_TERMINAL if self._over else _ELSEWHERE
        self._began = self._next = 0.0
        self._ended = dict.fromkeys(Ending, 0)

    def __enter__(self) -> "Progress":
        self._began = perf_counter()
        self._next = self._began + self._every
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._over:
            self._stream.write(_OVER_IT)
            self._stream.flush()

    def hear(self, one: Outcome) -> None:
        self._ended[one.ended] += 1

    def show(self, now: Seconds) -> None:
        """It is so late in virtual time."""
        if (clock := perf_counter()) < self._next:
            return
        self._next = clock + self._every
        said = line(self._total, self._ended, now, clock - self._began)
        self._stream.write(_OVER_IT + said if self._over else said + "\n")
        self._stream.flush()


def line(total: int, ended: dict[Ending, int], now: Seconds, passed: Seconds) -> str:
    """At most a hundred columns: a bar of what is over, virtual time, the rate, and how long it will take.

    >>> line(1000, {Ending.COMPLETED: 240, Ending.REJECTED: 10, Ending.FAILED: 0}, 12.5, 2.0)
    '████░░░░░░░░░░░░ 250/1,000 over · 10 rejected · at 12.5 s · 125/s · 6 s left'
    """
    over = sum(ended.values())
    share = over / total if total else 1.0
    bar = ("█" * round(share * _BAR)).ljust(_BAR, "░")
    words = [f"{bar} {over:,}/{total:,} over"]
    words += [f"{ended[ending]:,} {ending}" for ending in (Ending.REJECTED, Ending.FAILED) if ended[ending]]
    words.append(f"at {now:,.1f} s")
    if over:
        words += [f"{over / passed:,.0f}/s", f"{_span(passed * (total - over) / over)} left"]
    said = " · ".join(words)
    return said if len(said) <= _WIDTH else said[: _WIDTH - 1] + "…"


def _span(seconds: Seconds) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
