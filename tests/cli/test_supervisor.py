"""Children live, die, come back, and end with their parent."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from diplex_cli import supervisor
from diplex_cli.supervisor import Part, Supervisor

HARK = "import os, sys, time; print('pid', os.getpid(), flush=True); "
# Ends when told to by SIGTERM, as a part that drains at once.
LIVE = HARK + "time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + LIVE


@dataclass(frozen=True, slots=True)
class Script(Part):
    """A child that runs a line of Python instead of `diplex`."""

    source: str = ""

    @property
    def command(self) -> tuple[str, ...]:
        return (sys.executable, "-c", self.source)


@dataclass(slots=True)
class Heard:
    """What the children said, and a way to wait for it."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def say(self, name: str, line: str) -> None:
        self.lines.append((name, line))
        self.news.set()

    async def until(self, there: Callable[[list[str]], bool]) -> list[str]:
        async with asyncio.timeout(30):
            while not there(said := [line for _, line in self.lines]):
                self.news.clear()
                await self.news.wait()
        return said

    async def pids(self, count: int) -> list[int]:
        said = await self.until(lambda lines: sum(line.startswith("pid") for line in lines) >= count)
        return [int(line.split()[1]) for line in said if line.startswith("pid")]


@pytest.fixture
async def heard() -> Heard:
    return Heard()


def kept(heard: Heard, *sources: str) -> Supervisor:
    parts = [Script(f"part{number}", (), source=source) for number, source in enumerate(sources)]
    return Supervisor(parts, dict(os.environ), heard.say)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_a_childs_lines_come_with_its_name(heard: Heard):
    # In one write: the child may be told to end as soon as its first line was heard.
    async with kept(heard, r"print('one\ntwo', end='', flush=True); import time; time.sleep(60)", LIVE):
        await heard.until(lambda lines: "one" in lines)
        await heard.pids(1)
    assert ("part0", "one") in heard.lines
    assert ("part0", "two") in heard.lines


async def test_a_child_that_dies_is_started_again_and_it_is_said(heard: Heard):
    async with kept(heard, LIVE) as children:
        (first,) = await heard.pids(1)
        os.kill(first, signal.SIGKILL)
        _, second = await heard.pids(2)
        assert children.children["part0"].pid == second != first
    assert ("part0", "was killed by SIGKILL; starting it again in 0.1 s") in heard.lines


async def test_the_pause_doubles_while_a_child_goes_on_dying(heard: Heard, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(supervisor, "PAUSE_LAST", 0.2)
    async with kept(heard, "raise SystemExit(3)"):
        said = await heard.until(lambda lines: len(lines) >= 3)
    assert said[:3] == [
        f"ended with exit code 3; starting it again in {pause} s" for pause in (0.1, 0.2, 0.2)
    ]


async def test_a_child_that_lived_long_is_started_again_soon(heard: Heard, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(supervisor, "LONG_LIFE", 0.0)
    async with kept(heard, "raise SystemExit(3)"):
        said = await heard.until(lambda lines: len(lines) >= 3)
    assert set(said) == {"ended with exit code 3; starting it again in 0.1 s"}


async def test_a_child_that_cannot_start_for_wrong_usage_is_given_up(heard: Heard):
    async with kept(heard, LIVE, "raise SystemExit(2)") as children, asyncio.timeout(30):
        assert await children.gave_up() == "part1"


async def test_leaving_ends_every_child(heard: Heard):
    async with kept(heard, LIVE, LIVE):
        pids = await heard.pids(2)
        assert not any(map(gone, pids))
    assert all(map(gone, pids))


async def test_a_child_that_does_not_drain_is_killed(heard: Heard, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(supervisor, "DRAIN_WITHIN", 0.2)
    async with kept(heard, STUBBORN):
        (pid,) = await heard.pids(1)
    assert gone(pid)
    assert heard.lines[-1] == ("drain", "not over within 0.2 s; killed: part0")


async def test_whoever_asks_others_is_drained_before_them(heard: Heard):
    told = "import signal; signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('told', flush=True)))"
    source = f"import sys; {told}; {LIVE}"
    parts = [Script(name, (), stage, source) for name, stage in (("worker", 0), ("rest", 2), ("router", 1))]
    async with Supervisor(parts, dict(os.environ), heard.say):
        await heard.pids(3)
    assert [name for name, line in heard.lines if line == "told"] == ["rest", "router", "worker"]


async def test_a_cancelled_drain_kills_at_once(heard: Heard):
    draining = asyncio.Event()

    async def run() -> None:
        async with kept(heard, STUBBORN):
            await heard.pids(1)
            draining.set()

    task = asyncio.create_task(run())
    await draining.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(5):
            await task
    assert all(map(gone, await heard.pids(1)))


LEASHED = """
import asyncio
from diplex_cli import process
async def part(stop):
    print("pid", __import__("os").getpid(), flush=True)
    await stop.wait()
    print("drained", flush=True)
raise SystemExit(process.serve(part))
"""

PARENT = """
import asyncio, os, sys
from diplex_cli.supervisor import Part, Supervisor
class Script(Part):
    command = (sys.executable, "-c", sys.argv[1])
async def main():
    def say(name, line):
        print(line, flush=True)
    async with Supervisor([Script("child", ())], dict(os.environ), say):
        await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.fixture
async def parent() -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, LEASHED, stdout=subprocess.PIPE
    )
    yield process
    if process.returncode is None:
        process.kill()
    await process.wait()


async def test_a_child_ends_when_its_supervisor_is_killed(parent: asyncio.subprocess.Process):
    assert parent.stdout
    async with asyncio.timeout(30):
        child = int((await parent.stdout.readline()).split()[1])
        handle = os.pidfd_open(child)
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(handle, ended.set)
        parent.kill()
        await ended.wait()
        asyncio.get_running_loop().remove_reader(handle)
        os.close(handle)
