"""The worker's time: seconds since it started, and a call at a later moment. Tests invent their own."""

import asyncio
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
    """The running event loop's time, from now on."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()

    def now(self) -> Seconds:
        return self._loop.time() - self._started

    def at(self, when: Seconds, do: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_at(self._started + when, do)
