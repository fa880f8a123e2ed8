"""Looks at this machine's GPUs, before and while a load runs."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from diplex_cli.failures import UsageError
from diplex_core.words import Seconds
from diplex_workers.launch.nvml import LiveNvml, Machine, NvmlMissing, RecordedNvml

_EVERY: Final[Seconds] = 0.5
_CUDA_WITHIN: Final[Seconds] = 60.0
# Looks that are taken from a recording; its last one stays.
_RECORDED: Final = 32


class Looks:
    """What a machine's GPUs said.

    Args:
        recording: a file to play instead of asking; its first look is of the idle machine.
    Attributes:
        first: before any load; `None`: they cannot be asked, and `problem` says why.
        loaded: while a load ran.
    Raises:
        UsageError: the file is no recording.
    """

    def __init__(self, recording: str | None = None) -> None:
        self.recorded = recording is not None
        self._nvml = _recording(recording) if recording is not None else LiveNvml()
        self.first: Machine | None = None
        self.problem = ""
        self.loaded: list[Machine] = []

    async def look(self) -> None:
        """The first look; of a recording all."""
        self.first = await self._look()
        if self.recorded:
            looks = [await self._look() for _ in range(_RECORDED)]
            self.loaded = [one for one in looks if one is not None and one != self.first]

    @asynccontextmanager
    async def meanwhile(self) -> AsyncIterator[None]:
        """Look on while something else happens."""
        async with asyncio.TaskGroup() as tasks:
            looking = tasks.create_task(self._look_on())
            try:
                yield
            finally:
                looking.cancel()

    async def _look_on(self) -> None:
        while (machine := await self._look()) is not None:
            self.loaded.append(machine)
            await asyncio.sleep(_EVERY)

    async def _look(self) -> Machine | None:
        try:
            return await asyncio.to_thread(self._nvml.look)
        except NvmlMissing as missing:
            self.problem = str(missing)
            return None


def visible() -> tuple[str, ...] | None:
    """The devices that CUDA gives a program here, by name; `None`: there is no CUDA to ask."""
    command = [sys.executable, "-m", "diplex_workers.launch.cuda_devices"]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=_CUDA_WITHIN, check=False)
    if asked.returncode:
        return None
    return tuple(json.loads(line)["name"] for line in asked.stdout.splitlines())


def _recording(file: str) -> RecordedNvml:
    try:
        return RecordedNvml(Path(file))
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = getattr(error, "strerror", None) or repr(error)
        mend = "Mend: one that `python -m diplex_workers.launch.nvml` printed"
        raise UsageError(f"--nvml: {file} is no recording: {why}. {mend}") from error
