"""`diplex up`, and its parts one by one, as processes: start, death, drain."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diplex as sdk
from diplex_cli.ports import Picker

ANY_PORTS = ("--router-port", "0", "--rest-port", "0", "--metrics-port", "0", "--worker-port", "0")
WITHIN = 60.0  # seconds; a machine that does nothing else needs three


@dataclass(slots=True)
class Running:
    """A `diplex` process and what it has logged."""

    process: asyncio.subprocess.Process
    log: list[str] = field(default_factory=list)

    async def line(self) -> str:
        """The next line on stdout."""
        assert self.process.stdout
        return (await self.process.stdout.readline()).decode()

    async def logged(self, words: str) -> str:
        """The first line of the log with these words."""
        while not (found := [line for line in self.log if words in line]):
            assert await self._read(), f"it ended, and said no '{words}':\n{''.join(self.log)}"
        return found[0]

    async def ended(self, *signals: signal.Signals) -> int:
        """Send the signals, and read the log to its end: the exit code."""
        for one in signals:
            self.process.send_signal(one)
        while await self._read():
            pass
        return await self.process.wait()

    async def _read(self) -> bytes:
        assert self.process.stderr
        line = await self.process.stderr.readline()
        if line:
            self.log.append(line.decode())
        return line


@asynccontextmanager
async def running(folder: Path, *words: str, env: dict[str, str] | None = None) -> AsyncIterator[Running]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "diplex_cli", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env={**os.environ, **(env or {})},
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(WITHIN):
            yield Running(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def until(look: Callable[[], Awaitable[Any]]) -> Any:
    """Look until there is something to see; the test's own deadline ends it."""
    # Another process: no event of it reaches us.
    while not (seen := await look()):  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    return seen


async def test_a_fleet_starts_answers_and_drains(tmp_path: Path, simulated: Path):
    async with running(tmp_path, "up", "--config", "fleet.yaml", "--json", *ANY_PORTS) as up:
        told = json.loads(await up.line())
        assert set(told["workers"]) == {"pkg0"}
        assert told["fleet"]["pkg0"] == {
            "package": "pkg0",
            "pattern": "A",
            "engine": "sim",
            "models": ["qwen2.5-72b-instruct"],
            "simulated": True,
            "calibration": "chapter",
            "state": "up",
        }
        async with sdk.AsyncClient(told["router"]) as client:
            reply = await client.generate("hello", max_tokens=3)
            assert reply.usage.completion_tokens == 3
        assert await up.ended(signal.SIGINT) == 0
    assert [line for line in up.log if "Traceback" in line] == []


async def test_a_worker_that_is_killed_is_started_again(tmp_path: Path, simulated: Path):
    async with running(tmp_path, "up", "--config", "fleet.yaml", "--json", "--no-rest", *ANY_PORTS) as up:
        told = json.loads(await up.line())
        assert told["rest"] is None
        async with sdk.AsyncClient(told["router"]) as client:
            before = (await client.fleet()).workers[0].info.boot

            async def back() -> bool:
                (worker,) = (await client.fleet()).workers
                return worker.state == "up" and worker.info.boot != before

            os.kill(told["pids"]["pkg0"], signal.SIGKILL)
            await up.logged("pkg0   | was killed by SIGKILL; starting it again in 0.1 s")
            await until(back)
            reply = await client.generate("hello", max_tokens=3)
            assert reply.usage.completion_tokens == 3


async def test_a_drain_lets_a_running_stream_end_and_a_second_signal_does_not(
    tmp_path: Path, simulated: Path
):
    async with running(tmp_path, "up", "--config", "fleet.yaml", "--json", "--no-rest", *ANY_PORTS) as up:
        told = json.loads(await up.line())
        async with sdk.AsyncClient(told["router"]) as client:
            short = client.stream("hello", max_tokens=100)
            await short.started()
            up.process.send_signal(signal.SIGINT)
            await up.logged("draining; Ctrl-C again ends everything at once")
            assert sum([chunk.count async for chunk in short]) == 100
        assert await up.ended() == 0

    async with running(tmp_path, "up", "--config", "fleet.yaml", "--json", "--no-rest", *ANY_PORTS) as up:
        told = json.loads(await up.line())
        async with sdk.AsyncClient(told["router"]) as client:
            endless = client.stream("hello", max_tokens=4096)
            await endless.started()
            up.process.send_signal(signal.SIGINT)
            await up.logged("draining")
            began = asyncio.get_running_loop().time()
            assert await up.ended(signal.SIGINT) == 0
            assert asyncio.get_running_loop().time() - began < 5
            await endless.aclose()


async def test_nothing_outlives_a_killed_up(tmp_path: Path, simulated: Path):
    async with running(tmp_path, "up", "--config", "fleet.yaml", "--json", *ANY_PORTS) as up:
        told = json.loads(await up.line())
        assert len(told["pids"]) == 3
        up.process.kill()

        async def all_gone() -> bool:
            return not any(map(alive, told["pids"].values()))

        await until(all_gone)


async def test_the_table_says_what_is_simulated_and_what_to_try(tmp_path: Path, simulated: Path):
    async with running(tmp_path, "up", "--config", "fleet.yaml", *ANY_PORTS) as up:
        table = []
        while "try:" not in (line := await up.line()):
            table.append(line.split())
        assert ["pkg0", "A", "sim,", "simulated", "(chapter)", "qwen2.5-72b-instruct"] in [
            row[:6] for row in table
        ]
        assert "/v1/chat/completions" in line
        assert '"model": "qwen2.5-72b-instruct"' in line


async def test_the_parts_one_by_one_make_the_same_fleet(tmp_path: Path, simulated: Path):
    picker = Picker("127.0.0.1")
    router, rest, metrics, first = (picker.run_of(1) for _ in range(4))
    ports = {
        "router": {"port": router, "metrics_port": metrics},
        "rest": {"port": rest},
        "workers": {"first_port": first},
    }
    (tmp_path / "ports.yaml").write_text(json.dumps(ports))
    common = ("--config", "fleet.yaml", "--config", "ports.yaml")
    key = {"DIPLEX_GRANTS_KEY": "sesame"}
    async with (
        running(tmp_path, "worker", "pkg0", *common, env=key) as worker,
        running(tmp_path, "router", *common, env=key) as router_part,
        running(tmp_path, "rest", *common, env={"DIPLEX_GRANTS_KEY": ""}) as shim,
    ):
        async with sdk.AsyncClient(f"127.0.0.1:{router}", patience=WITHIN) as client:
            await client.wait_ready(WITHIN)
            assert (await client.generate("hello", max_tokens=3)).usage.completion_tokens == 3
        for part in (shim, router_part, worker):
            assert await part.ended(signal.SIGTERM) == 0


async def test_a_worker_without_the_grants_key_says_what_it_refuses(tmp_path: Path, simulated: Path):
    port = str(Picker("127.0.0.1").run_of(1))
    words = ("worker", "pkg0", "--config", "fleet.yaml", "--port", port)
    async with running(tmp_path, *words, env={"DIPLEX_GRANTS_KEY": ""}) as worker:
        line = await worker.logged("no key for grants: direct sessions are refused")
        assert "Mend: export DIPLEX_GRANTS_KEY=" in line
        await worker.logged("listens on")
        assert await worker.ended(signal.SIGTERM) == 0


async def test_a_part_whose_port_is_taken_says_the_option(tmp_path: Path, simulated: Path):
    async with asyncio.timeout(WITHIN):
        busy = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        port = str(busy.sockets[0].getsockname()[1])
        for words in (("router", "--router-port"), ("rest", "--rest-port"), ("worker", "pkg0", "--port")):
            words = (*words[:-1], "--config", "fleet.yaml", words[-1], port)
            async with running(tmp_path, *words, env={"DIPLEX_GRANTS_KEY": "sesame"}) as part:
                assert await part.ended() == 2
            last = part.log[-1]
            assert last.startswith(f"port {port} on 127.0.0.1 is taken. Mend:")
            assert words[-2] in last
        busy.close()
        await busy.wait_closed()
