"""An engine's devices, made ready before each start of it: looked for, decided, and asked of CUDA."""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from diplex_core.words import Seconds
from diplex_workers.launch import cuda_devices
from diplex_workers.launch.keeper import CannotStart
from diplex_workers.launch.nvml import LiveNvml, Nvml, NvmlMissing
from diplex_workers.launch.placement import NotPlaced, Placed, Wanted, missing, placed

_CONTROL: Final = "nvidia-cuda-mps-control"
_NCCL: Final = ("nvidia-nccl-cu13", "nvidia-nccl-cu12")
_ANSWERS_WITHIN: Final[Seconds] = 30.0


class Seating:
    """Called before each start of an engine: what its environment says of its devices.

    Args:
        env: what the configuration has its environment say beside.
    """

    def __init__(
        self,
        wanted: Wanted,
        *,
        env: Mapping[str, str] | None = None,
        nvml: Nvml | None = None,
        nccl: Callable[[], tuple[int, ...] | None] | None = None,
    ) -> None:
        self._wanted = wanted
        self._env = {**os.environ, **(env or {})}
        self._nvml = nvml or LiveNvml()
        self._nccl = nccl or installed_nccl

    async def __call__(self) -> Mapping[str, str]:
        """Raises CannotStart where they are not there, with the mend."""
        try:
            machine = await asyncio.to_thread(self._nvml.look)
        except NvmlMissing as why:
            raise CannotStart(str(why)) from None
        decision = placed(self._wanted, machine, nccl=self._nccl())
        if isinstance(decision, NotPlaced):
            raise CannotStart(f"{decision.reason}. Mend: {decision.mend}")
        if decision.daemon:
            await self._daemon(decision)
        await self._see(decision)
        return decision.env

    async def _daemon(self, decision: Placed) -> None:
        """See that the GPU's MPS daemon runs. It stays when the engine goes: its neighbour is in it."""
        pipes = Path(decision.env["CUDA_MPS_PIPE_DIRECTORY"])
        logs = Path(f"{pipes}.log")
        if shutil.which(_CONTROL) is None:
            raise CannotStart(f"{_CONTROL} is not installed. Mend: it comes with NVIDIA's driver utilities")
        try:
            await asyncio.to_thread(_make, pipes, logs)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise CannotStart(
                f"no folder {pipes} can be made: {why}. Mend: launch.env: {{CUDA_MPS_PIPE_DIRECTORY: …}}"
            ) from None
        env = {
            **self._env,
            "CUDA_VISIBLE_DEVICES": decision.daemon,
            "CUDA_MPS_PIPE_DIRECTORY": str(pipes),
            "CUDA_MPS_LOG_DIRECTORY": str(logs),
        }
        # Asking and starting are two steps, and the other half's worker may come between: then it is there.
        for last in (False, True):
            if (await _ran(env, _CONTROL, said=b"get_server_list\n"))[0] == 0:
                return
            code, told = await _ran(env, _CONTROL, "-d")
            if code and last:
                raise CannotStart(
                    f"{_CONTROL} -d ended with exit code {code}: {told[:200]}. Mend: see {logs}"
                )

    async def _see(self, decision: Placed) -> None:
        """An old MPS ignores what it does not know, without a word: so CUDA is asked what is really there."""
        env = {**self._env, **decision.env}
        code, told = await _ran(env, sys.executable, "-P", "-m", cuda_devices.__name__)
        if code:
            raise CannotStart(f"{told.strip()[:200]}. Mend: look at nvidia-smi, and at the MPS daemon's log")
        seen: list[dict[str, Any]] = [json.loads(line) for line in told.splitlines() if line]
        if (lacks := missing(decision.expected, seen)) is not None:
            raise CannotStart(f"{lacks}. Mend: the steps `undo` and `place` of diplex recipe")


def installed_nccl() -> tuple[int, ...] | None:
    """NCCL's version where it is installed beside the worker; `None`: it is not, or elsewhere."""
    for package in _NCCL:
        try:
            return tuple(int(part) for part in version(package).split(".")[:3])
        except (PackageNotFoundError, ValueError):
            continue
    return None


def _make(*folders: Path) -> None:
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)


async def _ran(env: Mapping[str, str], *command: str, said: bytes = b"") -> tuple[int, str]:
    """A short program's exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=env,
    )
    try:
        async with asyncio.timeout(_ANSWERS_WITHIN):
            told, _ = await process.communicate(said)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise CannotStart(
            f"{command[0]} did not answer within {_ANSWERS_WITHIN:g} s. Mend: nvidia-smi"
        ) from None
    assert process.returncode is not None
    return process.returncode, told.decode(errors="replace")
