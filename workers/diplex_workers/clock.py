"""The worker's time: seconds since it started, and a call at a later moment. Tests invent their own."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from diplex_core.words import Seconds


class Alarm(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """It will not happen; without effect once it has."""


class Clock(Protocol):
    def now(self) -> Seconds:
        """Seconds since the worker started; never goes back."""

    def at(self, when: Seconds, do: Callable[[], None]) -> Alarm:
        """Call `do` once, at `when` or soon after."""


class LoopClock:
    """The process's monotonic clock, from now on, with the running event loop's timers.

    Not the loop's own time: uvloop keeps that in whole milliseconds, as of its last turn.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._started = time.monotonic()

    def now(self) -> Seconds:
        return time.monotonic() - self._started

    def at(self, when: Seconds, do: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_later(max(0.0, when - self.now()), do)
