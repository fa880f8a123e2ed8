"""An engine's own process, kept running: started, watched, started again with back-off, ended at last.

    starts ──► loads ──► serves ──► (silent) ──► serves
      ▲          │          │           │
      │          ▼          ▼           ▼
      └─ pause ◄─ ended, or ended by us: too long without serving, or without an answer

What it serves is for others to notice (the engine that is attached to it says `served` and `silent`). This
knows the process: why there is none, and when there will be one.
"""

import asyncio
import json
import logging
import os
import re
import shlex
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Never

from diplex_core.words import Seconds
from diplex_workers.launch import leash

log = logging.getLogger("diplex.engine")

CONFIG: Final = "{config}"
"""Stands in a command for the path of a file with the start's `config`."""
PAUSE_FIRST: Final[Seconds] = 1.0
PAUSE_LAST: Final[Seconds] = 60.0
LONG_LIFE: Final[Seconds] = 60.0
"""Seconds of serving after which an end is no longer a failed start."""
_ERROR: Final = re.compile(r"error|cannot|failed", re.IGNORECASE)
# Last lines of its log, one of which becomes the reason that people read.
_LAST_LINES: Final = 20
_LONGEST_REASON: Final = 300
# More than the grace that its leash gives it: then something is wrong with the leash.
_BEYOND_GRACE: Final[Seconds] = 5.0


class CannotStart(Exception):
    """What it needs is not there now. The message has the reason and the mend."""


@dataclass(frozen=True, slots=True)
class Start:
    """Attributes:
    command: its words, `CONFIG` for the path of the file with `config`.
    env: what its environment has beside the worker's own.
    ready_within, silent: seconds in which it must serve, and that it may then go without an answer.
    grace: seconds that it has to end by itself when told to.
    """

    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    ready_within: Seconds = 1800.0
    silent: Seconds = 30.0
    grace: Seconds = 20.0


class Keeper:
    """Keeps one engine's process. `problem` says why it does not serve, "" while it does.

    Args:
        name: of the worker, before each line of the engine's log.
        place: what its environment says of its devices, looked up before each start; raises CannotStart.
        told: called when `problem` has changed.
        pauses: the first pause before a start, and the longest; each is twice the one before.
    """

    def __init__(
        self,
        name: str,
        start: Start,
        *,
        place: Callable[[], Awaitable[Mapping[str, str]]] | None = None,
        told: Callable[[], None] = lambda: None,
        pauses: tuple[Seconds, Seconds] = (PAUSE_FIRST, PAUSE_LAST),
    ) -> None:
        self._name = name
        self._start = start
        self._place = place
        self._told = told
        self._first_pause, self._last_pause = pauses
        self._serves, self._silent = asyncio.Event(), asyncio.Event()
        self._unwanted, self._gone = asyncio.Event(), asyncio.Event()
        self._served_since = 0.0
        self._tail: deque[str] = deque(maxlen=_LAST_LINES)
        self.problem = f"{self._what} was not started yet"
        self.pid: int | None = None
        self.starts = 0

    @property
    def _what(self) -> str:
        """The program, as people call it."""
        return Path(self._start.command[0]).name

    def tell(self, told: Callable[[], None]) -> None:
        """Whom to tell that `problem` has changed, where that is known later only."""
        self._told = told

    def served(self) -> None:
        """It answers, and takes work."""
        if self.pid is not None and not self._serves.is_set():
            self._served_since = time.monotonic()
            self._silent.clear()
            self._serves.set()
            self.problem = ""

    def silent(self) -> None:
        """It does not answer any more."""
        self._serves.clear()
        self._silent.set()

    async def anew(self, reason: str) -> None:
        """It answers and is not to be kept: end it, and start it again. Returns once it is gone."""
        if self.pid is None:
            return
        log.warning("%s: %s is started anew: %s", self._name, self._what, reason)
        self._unwanted.set()
        await self._gone.wait()

    async def keep(self) -> Never:
        """Run it, again and again, until cancelled; then it is ended."""
        pause = self._first_pause
        with TemporaryDirectory(prefix="diplex-engine-") as folder:
            while True:
                self._served_since = 0.0
                reason = await self._one_life(Path(folder))
                if self._served_since and time.monotonic() - self._served_since > LONG_LIFE:
                    pause = self._first_pause
                self._say(f"{reason}; starting it again in {pause:g} s")
                log.warning("%s: %s", self._name, self.problem)
                await asyncio.sleep(pause)
                pause = min(2 * pause, self._last_pause)

    async def _one_life(self, folder: Path) -> str:
        """From one start to the end that it finds; how it went, for people."""
        start = self._start
        try:
            placed = await self._place() if self._place else {}
        except CannotStart as why:
            return str(why)
        command = start.command
        if start.config:
            file = folder / "config.yaml"
            file.write_text(json.dumps(start.config))  # which is YAML too
            command = tuple(str(file) if word == CONFIG else word for word in command)
        log.info("%s: starting %s", self._name, shlex.join(command))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", leash.__name__, str(start.grace), *command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **placed, **start.env},
        )
        self.pid, self.starts = process.pid, self.starts + 1
        self._serves.clear()
        self._silent.clear()
        self._unwanted.clear()
        self._gone.clear()
        self._tail.clear()
        self._say(f"{self._what} is loading")
        try:
            return await self._until_over(process)
        finally:
            self.pid = None
            self._serves.clear()
            self._gone.set()

    async def _until_over(self, process: asyncio.subprocess.Process) -> str:
        assert process.stdout is not None and process.stdin is not None
        relay = asyncio.create_task(self._relay(process.stdout), name=f"log of {self._name}")
        ended = asyncio.create_task(process.wait(), name=f"end of {self._name}")
        watch = asyncio.create_task(self._until_unfit(), name=f"watch over {self._name}")
        try:
            await asyncio.wait([ended, watch], return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                # What it started may hold its output open for a moment longer.
                await asyncio.wait([relay], timeout=1.0)
                return f"{self._what} {_how(ended.result())}{self._last_words()}"
            self._say(f"{self._what} {watch.result()}, and is ended")
            with suppress(ConnectionError):
                process.stdin.write(b"k")  # its leash kills it at the first byte
                await process.stdin.drain()
            await ended
            return f"{self._what} {watch.result()}, and was ended{self._last_words()}"
        finally:
            watch.cancel()
            await self._end(process)
            ended.cancel()
            relay.cancel()

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """Let go of the leash, and see it gone."""
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(self._start.grace + _BEYOND_GRACE):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _until_unfit(self) -> str:
        """Why it has to be ended."""
        silent = asyncio.create_task(self._until_silent(), name=f"silence of {self._name}")
        unwanted = asyncio.create_task(self._unwanted.wait(), name=f"restart of {self._name}")
        try:
            await asyncio.wait([silent, unwanted], return_when=asyncio.FIRST_COMPLETED)
            return silent.result() if silent.done() else "is not well"
        finally:
            silent.cancel()
            unwanted.cancel()

    async def _until_silent(self) -> str:
        start = self._start
        try:
            async with asyncio.timeout(start.ready_within):
                await self._serves.wait()
        except TimeoutError:
            return f"did not serve within {start.ready_within:g} s"
        while True:
            await self._silent.wait()
            try:
                async with asyncio.timeout(start.silent):
                    await self._serves.wait()
            except TimeoutError:
                return f"did not answer for {start.silent:g} s"

    async def _relay(self, output: asyncio.StreamReader) -> None:
        rest = b""
        while chunk := await output.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._line(line)
        if rest:
            self._line(rest)

    def _line(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if text:
            self._tail.append(text)
            log.info("%s | %s", self._name, text)

    def _last_words(self) -> str:
        """Of its log, the last line that speaks of an error and points nowhere else; else the last."""
        errors = [line for line in self._tail if _ERROR.search(line) and "://" not in line]
        said = errors or list(self._tail)
        return f": {said[-1].strip()[:_LONGEST_REASON]}" if said else ""

    def _say(self, problem: str) -> None:
        self.problem = problem
        self._told()


def _how(code: int) -> str:
    if code == leash.CANNOT_START:
        return "did not start"
    if code > 128:
        return f"was killed by signal {code - 128}"
    return f"ended with exit code {code}"
