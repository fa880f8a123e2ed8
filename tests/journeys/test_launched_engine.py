"""An engine that its worker starts: it dies under load and comes back, and nothing is left over.

The engine is a small server of the tests' own, which says of itself that it is simulated.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import diplex

SERVER = Path(__file__).parents[1] / "workers" / "launch" / "simulated_server.py"
STREAMS = 6
LONG = 2000

CONFIG = """\
models:
  echoed: {}
packages:
  box0:
    gpu: h200
    model: echoed
    kv_blocks: 4096
    slots: 8
    engine:
      kind: attach
      api: openai
      context: 8192
      url: "http://127.0.0.1:PORT"
      launch: {command: [PYTHON, "SERVER", --port, "PORT"], silent_s: 0.5, drain_s: 1}
tiers:
  standard: {patterns: [A], max_output_tokens: 8192}
"""


@pytest.fixture
def config() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = str(one.getsockname()[1])
    return CONFIG.replace("PYTHON", sys.executable).replace("SERVER", str(SERVER)).replace("PORT", port)


def engine_of(running: Any) -> int:
    """The engine's own process, below its leash."""
    leash = running.pid_of("diplex_workers.launch.leash")
    return int(Path(f"/proc/{leash}/task/{leash}/children").read_text().split()[0])


def lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def broken(stream: Any) -> diplex.DiplexError:
    with pytest.raises(diplex.DiplexError) as caught:
        async for _ in stream:
            pass
    return caught.value


async def test_an_engine_that_dies_under_load_fails_its_streams_and_serves_again(fleet: Any, config: str):
    running = fleet(config)
    async with diplex.AsyncClient(running.router) as client:
        boot = (await running.pool_of("box0")).info.boot
        streams = [client.stream(f"prompt {n}", max_tokens=LONG) for n in range(STREAMS)]
        ends = [asyncio.create_task(broken(stream)) for stream in streams]
        await asyncio.gather(*(stream.started() for stream in streams))
        assert (await running.pool_of("box0")).used_slots == STREAMS
        os.kill(engine_of(running), signal.SIGKILL)
        errors = await asyncio.wait_for(asyncio.gather(*ends), 20)
        assert {type(error) for error in errors} == {diplex.Unavailable}
        assert (await running.settled(within=20)).leases.over_capacity == 0

        reply = await client.generate("after", max_tokens=3, timeout=20)
        assert reply.text == "simulated " * 3
        assert (await running.pool_of("box0")).info.boot == boot  # the worker itself never went
    assert "box0: python" in running.log.read_text()
    assert (await running.settled()).leases.over_capacity == 0


async def test_an_engine_ends_with_its_worker_however_that_ends(fleet: Any, config: str):
    running = fleet(config)
    engine = engine_of(running)
    running.kill("worker", "box0")

    async def another() -> bool:
        """The worker that was started in its place has an engine of its own."""
        try:
            return engine_of(running) != engine
        except (ValueError, IndexError, OSError):
            return False

    await running.until(another, "the next worker's engine", within=30)
    assert not lives(engine)
    second = engine_of(running)
    running.end()
    assert not lives(second)


def test_a_program_that_is_not_there_is_told_at_once_with_the_mend(tmp_path: Path, config: str):
    (tmp_path / "fleet.yaml").write_text(config.replace(f"[{sys.executable}, ", "[no-such-engine, "))
    told = subprocess.run(
        [sys.executable, "-m", "diplex_cli.main", "up", "--config", "fleet.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert told.returncode != 0
    assert "fleet.yaml:" in told.stderr
    assert "there is no program no-such-engine on PATH. Mend: install the engine" in told.stderr
