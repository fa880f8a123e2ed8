"""A process that an engine starts, and that never outlives it.

The tie is the child's stdin: the child reads it and ends when it closes. So it goes down with an owner
that was killed too, on every system, and nobody has to know its process id.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

# What a child has to end by itself, in seconds, before it is killed.
GRACE: Final = 2.0


class LaunchFailed(Exception):
    """The child did not come up: its own words, or what it did instead."""


class Child:
    """A running child. `hello` is the JSON object that it said when it was ready."""

    def __init__(self, process: asyncio.subprocess.Process, hello: Mapping[str, Any]) -> None:
        self._process = process
        self.hello = hello

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ended(self) -> str:
        """Wait until the child is gone; how it went, for people."""
        code = await self._process.wait()
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def kill(self) -> None:
        """End a child that does not answer. Safe when it is gone already."""
        if self._process.returncode is None:
            self._process.kill()


@asynccontextmanager
async def launched(module: str, options: Mapping[str, Any], *, within: float) -> AsyncIterator[Child]:
    """Run `python -m module` with this interpreter, for as long as the context lasts.

    The child reads its options as one line of JSON from stdin (they may hold a secret, and command lines
    are for everybody to see), and answers with one line of JSON on stdout: what it is, or
    `{"problem": "…"}`. Its stderr is its owner's.

    Args:
        within: seconds in which it must have answered.
    Raises:
        LaunchFailed: it said a problem, ended, or said nothing in time.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield Child(process, await _greet(process, options, within))
    finally:
        await _end(process)


async def _greet(
    process: asyncio.subprocess.Process, options: Mapping[str, Any], within: float
) -> Mapping[str, Any]:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(options).encode() + b"\n")
    try:
        async with asyncio.timeout(within):
            line = await process.stdout.readline()
            if not line:
                raise LaunchFailed(f"ended with exit code {await process.wait()} before it was ready")
    except TimeoutError:
        raise LaunchFailed(f"was not ready within {within:g} s") from None
    try:
        hello: Mapping[str, Any] = json.loads(line)
    except ValueError:
        raise LaunchFailed(f"said {line[:80]!r} where JSON was expected") from None
    if "problem" in hello:
        raise LaunchFailed(str(hello["problem"]))
    return hello


async def _end(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(GRACE):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
