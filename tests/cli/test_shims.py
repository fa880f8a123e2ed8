"""The shim as several processes on one port."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from diplex_cli import shims
from diplex_cli.ports import Picker

WITHIN = 60.0  # seconds; a machine that does nothing else needs three


@pytest.mark.parametrize(
    ("wanted", "cores", "count"),
    [(None, 1, 1), (None, 8, 1), (None, 16, 2), (None, 31, 3), (None, 128, 4), (1, 128, 1), (7, 2, 7)],
)
def test_there_is_one_for_every_eight_cores_and_four_at_most_unless_a_number_is_said(
    monkeypatch: pytest.MonkeyPatch, wanted: int | None, cores: int, count: int
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    assert shims.processes(wanted) == count


def test_one_is_started_as_itself_and_several_count_together(tmp_path: Path):
    (one,) = shims.shims(1, ["--config", "f"], tmp_path / "one", stage=2)
    assert (one.name, one.words, one.stage) == ("rest", ("rest", "--config", "f", "--processes", "1"), 2)
    assert not (tmp_path / "one").exists()
    folder = tmp_path / "two"
    several = shims.shims(2, ["--config", "f"], folder)
    assert [part.name for part in several] == ["rest.0", "rest.1"]
    assert {part.words for part in several} == {("rest", "--config", "f", "--sisters", str(folder))}
    assert folder.is_dir()


@asynccontextmanager
async def two_shims(file: Path, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """`diplex rest` with two processes and no router; what they log is nobody's concern."""
    words = ("--config", str(file), "--rest-port", str(port), "--processes", "2", "--log-level", "error")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "diplex_cli", "rest", *words),
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(WITHIN):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def figures(port: int) -> dict[str, float]:
    """What `/metrics` tells, or nothing while nobody listens."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return {}
    try:
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
        page = (await reader.read()).partition(b"\r\n\r\n")[2].decode()
    except ConnectionResetError:
        return {}
    finally:
        writer.close()
    # Each line as it stands: the body is one chunk, whose frame has no two words.
    lines = [line.rsplit(" ", 1) for line in page.splitlines() if line.startswith("diplex_")]
    return {name: float(value) for name, value in lines}


async def until_two(port: int) -> dict[str, float]:
    # Other processes: no event of theirs reaches us.
    while (seen := await figures(port)).get("diplex_rest_processes") != 2:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    return seen


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


PAGES = 'diplex_rest_requests_total{route="/metrics",status="200"}'


async def test_their_metrics_are_one_sum_from_which_a_death_takes_nothing(simulated: Path):
    port = Picker("127.0.0.1").one()
    async with two_shims(simulated, port) as parent:
        before = (await until_two(port)).get(PAGES, 0)
        for _ in range(20):
            # Each on a connection of its own, so that both processes get some of them.
            assert (await figures(port))["diplex_rest_requests_open"] == 1
        assert (await figures(port))[PAGES] == before + 21
        first, _ = children(parent.pid)
        os.kill(first, signal.SIGKILL)
        while first in children(parent.pid) or len(children(parent.pid)) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        after = await until_two(port)
        assert after[PAGES] >= before + 22
        parent.send_signal(signal.SIGTERM)
        assert await parent.wait() == 0
        assert await figures(port) == {}


async def test_a_port_that_another_shim_shares_among_its_own_is_taken_all_the_same(simulated: Path):
    port = Picker("127.0.0.1").one()
    async with two_shims(simulated, port):
        await until_two(port)
        async with two_shims(simulated, port) as late:
            assert await late.wait() == 2
            assert late.stderr is not None
            assert f"port {port} on 127.0.0.1 is taken" in (await late.stderr.read()).decode()
