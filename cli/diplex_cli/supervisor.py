"""Child processes that are kept running: started again when they die, drained when it is over.

A child's stdin is its leash: it closes when this process goes, however it goes, and the child drains itself.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from diplex_cli.failures import WRONG_USAGE
from diplex_cli.process import DRAIN_WITHIN, LEASH

PAUSE_FIRST: Final = 0.1
PAUSE_LAST: Final = 5.0
LONG_LIFE: Final = 10.0
"""Seconds after which a child's death is no longer a failed start."""


@dataclass(frozen=True, slots=True)
class Part:
    """A child to keep: its name in the log, and the words after `diplex`. Later stages are drained first."""

    name: str
    words: tuple[str, ...]
    stage: int = 0

    @property
    def command(self) -> tuple[str, ...]:
        # -P: a folder of that name where the user happens to stand must not be imported.
        return (sys.executable, "-P", "-m", "diplex_cli", *self.words)


class Child:
    """One part, from its first start to its last end. `pid` changes with each start."""

    def __init__(self, part: Part, environment: Mapping[str, str], say: Callable[[str, str], None]) -> None:
        self.name = part.name
        self.stage = part.stage
        self._part = part
        self._environment = {**environment, LEASH: "stdin"}
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self._ending = asyncio.Event()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def keep(self) -> int:
        """Run it, again and again, until it is told to end, or cannot start at all. Its exit code."""
        pause, first = PAUSE_FIRST, True
        while True:
            began = time.monotonic()
            code = await self._one_life()
            if self._ending.is_set() or (first and code == WRONG_USAGE):
                return code
            pause = PAUSE_FIRST if time.monotonic() - began > LONG_LIFE else pause
            self._say(self.name, f"{_how(code)}; starting it again in {pause:g} s")
            if await self._told_to_end(pause):
                return code
            pause, first = min(2 * pause, PAUSE_LAST), False

    def drain(self) -> None:
        """Tell it to finish what runs, and end."""
        self._ending.set()
        if self._process and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it now, and whatever it has started."""
        self._ending.set()
        if self._process and self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    async def _one_life(self) -> int:
        # A session of its own: Ctrl-C in the terminal is for the supervisor alone, which then drains.
        self._process = await asyncio.create_subprocess_exec(
            *self._part.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environment,
            start_new_session=True,
        )
        if self._ending.is_set():
            self.drain()
        assert self._process.stdout is not None
        relay = asyncio.create_task(self._relay(self._process.stdout), name=f"log of {self.name}")
        try:
            code = await self._process.wait()
            # What it started may hold its output open for a moment longer.
            await asyncio.wait([relay], timeout=1.0)
            return code
        finally:
            relay.cancel()

    async def _relay(self, output: asyncio.StreamReader) -> None:
        rest = b""
        while chunk := await output.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._say(self.name, line.decode(errors="replace"))
        if rest:
            self._say(self.name, rest.decode(errors="replace"))

    async def _told_to_end(self, within: float) -> bool:
        try:
            async with asyncio.timeout(within):
                return await self._ending.wait()
        except TimeoutError:
            return False


class Supervisor:
    """All children of one `diplex up`. Leaving the context drains them; cancelled meanwhile, it kills them.

    Args:
        say: told each line of a child's log, and what happens to the child, with its name.
    """

    def __init__(
        self, parts: Sequence[Part], environment: Mapping[str, str], say: Callable[[str, str], None]
    ) -> None:
        self.children = {part.name: Child(part, environment, say) for part in parts}
        self._say = say
        self._keeping: dict[asyncio.Task[int], Child] = {}

    async def __aenter__(self) -> "Supervisor":
        self._keeping = {
            asyncio.create_task(child.keep(), name=child.name): child for child in self.children.values()
        }
        return self

    async def gave_up(self) -> str:
        """Wait until a child ends for good; its name."""
        done, _ = await asyncio.wait(self._keeping, return_when=asyncio.FIRST_COMPLETED)
        task = done.pop()
        task.result()
        return self._keeping[task].name

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            async with asyncio.timeout(DRAIN_WITHIN):
                await self._drain()
        except TimeoutError:
            late = ", ".join(child.name for task, child in self._keeping.items() if not task.done())
            self._say("drain", f"not over within {DRAIN_WITHIN:g} s; killed: {late}")
        finally:
            for child in self.children.values():
                child.kill()
            await asyncio.wait(self._keeping)

    async def _drain(self) -> None:
        """Stage by stage: whoever asks others ends before they do."""
        for stage in sorted({child.stage for child in self.children.values()}, reverse=True):
            ending = [task for task, child in self._keeping.items() if child.stage == stage]
            for task in ending:
                self._keeping[task].drain()
            await asyncio.wait(ending)


def _how(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
