"""An engine's process: started again when it dies, killed when it hangs, ended with its owner.

The engines are a small server of these tests' own, which says of itself that it is simulated.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from diplex_workers.launch.keeper import CannotStart, Keeper, Start

QUICK = (0.01, 0.04)


class Watched:
    """A keeper, with everything that it has said, and a way to wait for what it will say."""

    def __init__(self, start: Start, **more: object) -> None:
        self.said: list[str] = []
        self._news = asyncio.Event()
        self.keeper = Keeper("pkg0", start, told=self._hear, pauses=QUICK, **more)  # type: ignore[arg-type]

    def _hear(self) -> None:
        self.said.append(self.keeper.problem)
        self._news.set()

    async def until(self, what: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not what():
                self._news.clear()
                await self._news.wait()

    async def heard(self, words: str) -> str:
        await self.until(lambda: any(words in said for said in self.said))
        return next(said for said in self.said if words in said)


@asynccontextmanager
async def kept(start: Start, **more: object) -> AsyncIterator[Watched]:
    watched = Watched(start, **more)
    keeping = asyncio.create_task(watched.keeper.keep())
    try:
        yield watched
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping


async def answers(port: int) -> None:
    """Wait until somebody listens there."""
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.01)  # a port has no event
                continue
            writer.close()
            return


async def gone(pid: int) -> None:
    async with asyncio.timeout(20):
        while True:
            if not lives(pid):
                return
            await asyncio.sleep(0.01)  # not a child of ours: its end has no event here


def lives(pid: int) -> bool:
    """Whether a process is there, and not only waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def engine_of(leash_pid: int) -> int:
    """The engine's own process, below its leash."""
    return int(Path(f"/proc/{leash_pid}/task/{leash_pid}/children").read_text().split()[0])


def exists(path: str) -> bool:
    assert path.endswith("config.yaml")
    return Path(path).exists()


async def test_an_engine_that_ends_is_started_again_with_pauses_that_double(command: tuple[str, ...]):
    async with kept(Start((*command, "--exit", "3"))) as watched:
        await watched.until(lambda: watched.keeper.starts > 4)
        ends = [said for said in watched.said if "exit code 3" in said]
    assert "simulated error: no such model; starting it again in 0.01 s" in ends[0]
    assert [said.rpartition(" in ")[2] for said in ends[:4]] == ["0.01 s", "0.02 s", "0.04 s", "0.04 s"]


async def test_the_reason_is_the_line_that_says_what_is_wrong_not_the_one_that_points_elsewhere():
    """As vLLM 0.20.0 ended on an H100: three lines of its log, shortened."""
    lines = (
        "pydantic_core.ValidationError: 1 validation error for ModelConfig",
        "Value error, invalid literal for int() with base 10: 'GPU-575e6cd7'",
        "For further information visit https://errors.pydantic.dev/2.14/v/value_error",
    )
    script = "; ".join(f'echo "{line}"' for line in lines) + "; exit 1"
    async with kept(Start(("sh", "-c", script))) as watched:
        reason = await watched.heard("ended with exit code 1")
    assert ": Value error, invalid literal for int() with base 10: 'GPU-575e6cd7'; starting" in reason


async def test_a_command_that_is_not_there_is_said_with_its_name():
    async with kept(Start(("no-such-engine", "serve"))) as watched:
        reason = await watched.heard("did not start")
    assert "no-such-engine cannot be started: no such file or directory" in reason


async def test_what_it_needs_is_looked_up_before_every_start():
    looks: list[int] = []

    async def place() -> Mapping[str, str]:
        looks.append(1)
        if len(looks) < 3:
            raise CannotStart("the GPU is not divided. Mend: bash recipe.sh place")
        return {"CUDA_VISIBLE_DEVICES": "MIG-7"}

    async with kept(Start(("sh", "-c", "echo gets $CUDA_VISIBLE_DEVICES")), place=place) as watched:
        ended = await watched.heard("ended with exit code 0")
    assert watched.said[0] == (
        "the GPU is not divided. Mend: bash recipe.sh place; starting it again in 0.01 s"
    )
    assert "gets MIG-7" in ended


async def test_an_engine_that_does_not_serve_in_time_is_ended(command: tuple[str, ...]):
    start = Start((*command, "--never-ready", "--stubborn"), ready_within=0.2, grace=0.1)
    async with kept(start) as watched:
        reason = await watched.heard("did not serve within 0.2 s, and was ended")
    assert "starting it again" in reason


async def test_an_engine_that_falls_silent_is_killed_and_its_pause_begins_anew(
    command: tuple[str, ...], port: int
):
    async with kept(Start((*command, "--stubborn"), silent=0.1, grace=0.1)) as watched:
        await answers(port)
        first = watched.keeper.pid
        watched.keeper.served()
        assert watched.keeper.problem == ""
        watched.keeper.silent()
        await watched.heard("did not answer for 0.1 s, and was ended")
        await watched.until(lambda: watched.keeper.starts == 2)
        await answers(port)
        assert watched.keeper.pid != first


async def test_an_engine_that_answers_and_is_not_well_is_started_anew_when_told(
    command: tuple[str, ...], port: int
):
    async with kept(Start((*command, "--stubborn"), grace=0.1)) as watched:
        await answers(port)
        first = watched.keeper.pid
        watched.keeper.served()
        await watched.keeper.anew("its gauge is wrong")
        assert watched.keeper.pid is None
        await watched.heard("is not well, and was ended")
        await watched.until(lambda: watched.keeper.starts == 2)
        assert watched.keeper.pid != first


async def test_one_that_answers_again_in_time_is_left_alone(command: tuple[str, ...], port: int):
    async with kept(Start(command, silent=5.0)) as watched:
        await answers(port)
        watched.keeper.served()
        watched.keeper.silent()
        watched.keeper.served()
        assert watched.keeper.problem == ""
        assert watched.keeper.starts == 1


@pytest.mark.parametrize("stubborn", [False, True], ids=["told to end", "that does not hear"])
async def test_an_engine_ends_with_its_keeper(stubborn: bool, command: tuple[str, ...], port: int):
    start = Start((*command, "--stubborn") if stubborn else command, grace=0.2)
    async with kept(start) as watched:
        await answers(port)
        assert watched.keeper.pid is not None
        engine = engine_of(watched.keeper.pid)
    await gone(engine)


async def test_an_engine_does_not_outlive_an_owner_that_was_killed(command: tuple[str, ...], port: int):
    leash = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "diplex_workers.launch.leash", "0.1", *command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    await answers(port)
    engine = engine_of(leash.pid)
    assert leash.stdin is not None
    leash.stdin.close()  # as the system does for a process that is no more
    await gone(engine)
    assert await leash.wait() == 128 + 15


async def test_a_part_that_an_engine_leaves_behind_goes_with_it(tmp_path: Path):
    note = tmp_path / "pid"
    script = f"sleep 600 & echo $! > {note}; exit 4"
    async with kept(Start(("sh", "-c", script))) as watched:
        await watched.heard("ended with exit code 4")
        left = int(note.read_text())
        await gone(left)


async def test_its_configuration_is_a_file_that_goes_with_it(tmp_path: Path):
    kept_copy = tmp_path / "copy"
    start = Start(("sh", "-c", f'cp "$0" {kept_copy}; echo "$0"', "{config}"), config={"dtype": "fp8"})
    async with kept(start) as watched:
        reason = await watched.heard("ended with exit code 0")
    assert kept_copy.read_text() == '{"dtype": "fp8"}'
    assert not exists(reason.partition(": ")[2].partition(";")[0])


def test_the_workers_environment_is_the_engines_with_more(monkeypatch: pytest.MonkeyPatch):
    """Its own variables win over those that a place gives: whoever wrote them meant them."""
    monkeypatch.setenv("DIPLEX_TEST_SEEN", "yes")

    async def place() -> Mapping[str, str]:
        return {"A": "place", "B": "place"}

    async def run() -> str:
        start = replace(Start(("sh", "-c", "echo $A $B $DIPLEX_TEST_SEEN")), env={"B": "own"})
        async with kept(start, place=place) as watched:
            return await watched.heard("ended with exit code 0")

    assert "place own yes" in asyncio.run(run())
    assert "A" not in os.environ
