"""A whole fleet as users start it: `diplex up` in a process group of its own, from an empty folder.

`fleet(config)` starts one on free ports and waits for its readiness line; the test's end ends it, and a test
that fails shows what the fleet logged.
"""

import asyncio
import json
import os
import selectors
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import pytest

from diplex.v1 import router_pb2, router_pb2_grpc, worker_pb2, worker_pb2_grpc
from diplex.wire.serving import channel

ROOT = Path(__file__).parents[2]
READY_WITHIN = 90.0  # seconds; two cores that do nothing else need about five
END_WITHIN = 15.0
ANY_PORTS = [word for part in ("router", "rest", "metrics", "worker") for word in (f"--{part}-port", "0")]

SIMULATED = """\
models:
  qwen2.5-72b-instruct: {profile: qwen2.5-72b, weights: mxfp4-mixed, kv_cache: mxfp8}
default_model: qwen2.5-72b-instruct
packages:
  pkg0: {gpu: b200, pattern: C, model: qwen2.5-72b-instruct, engine: {kind: sim, calibration: chapter}}
  pkg1: {gpu: b200, pattern: A, model: qwen2.5-72b-instruct, engine: {kind: sim, calibration: chapter}}
tiers:
  standard: {patterns: [A, C], max_output_tokens: 8192, priority: 50}
  bulk: {patterns: [A, B], max_output_tokens: 8192, priority: 0}
default_tier: standard
"""

Seen = TypeVar("Seen")
LOGS = pytest.StashKey[list[Path]]()


async def until(
    look: Callable[[], Awaitable[Seen | None]], what: str, *, within: float, every: float = 0.02
) -> Seen:
    """Look again and again until there is something to see: the one way in which these tests poll."""
    deadline = time.monotonic() + within
    while not (seen := await look()):
        assert time.monotonic() < deadline, f"not within {within:g} s: {what}"
        await asyncio.sleep(every)
    return seen


@dataclass(slots=True)
class Fleet:
    """A running `diplex up`: where its parts listen, and how they are doing."""

    process: subprocess.Popen[str]
    said: dict[str, Any]
    log: Path
    folder: Path

    @property
    def router(self) -> str:
        """host:port of the router's gRPC service."""
        return str(self.said["router"])

    @property
    def rest(self) -> str:
        """http://host:port of the REST shim."""
        return str(self.said["rest"])

    @property
    def workers(self) -> dict[str, str]:
        """host:port of each worker's gRPC service, by its name."""
        return dict(self.said["workers"])

    def pid_of(self, *words: str) -> int:
        """The child of `up` whose command line has these words, such as "worker", "pkg0"."""
        (pid,) = [pid for pid in descendants(self.process.pid) if set(words) <= set(command_line(pid))]
        return pid

    def kill(self, *words: str) -> int:
        """SIGKILL to that child; its pid."""
        pid = self.pid_of(*words)
        os.kill(pid, signal.SIGKILL)
        return pid

    def age_of(self, *words: str) -> float:
        """Seconds since that child was started."""
        # The name in parentheses may hold spaces; starttime is the 22nd field, the 20th behind it (proc(5)).
        stat = Path(f"/proc/{self.pid_of(*words)}/stat").read_text().rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(stat[19]) / os.sysconf("SC_CLK_TCK")

    async def state(self) -> router_pb2.Fleet:
        async with channel(self.router) as to_router:
            stub = router_pb2_grpc.RouterStub(to_router)
            return (await stub.GetFleet(router_pb2.RouterGetFleetRequest(), timeout=5)).fleet

    async def pool_of(self, worker: str) -> worker_pb2.WorkerGetInfoResponse:
        """What the worker itself says that it holds."""
        async with channel(self.workers[worker]) as to_worker:
            stub = worker_pb2_grpc.WorkerStub(to_worker)
            return await stub.GetInfo(worker_pb2.WorkerGetInfoRequest(), timeout=5)

    async def until(self, look: Callable[[], Awaitable[Seen | None]], what: str, *, within: float) -> Seen:
        """Look again and again until there is something to see."""
        return await until(look, what, within=within)

    async def settled(self, *, within: float = 5.0) -> router_pb2.Fleet:
        """The router's account once every lease is closed and nothing is held, there and on the workers."""

        async def look() -> router_pb2.Fleet | None:
            state = await self.state()
            accounts = [axis for worker in state.workers for axis in (worker.blocks, worker.slots)]
            idle = state.leases.opened == state.leases.closed
            idle = idle and not any(axis.reserved or axis.pinned or axis.reclaiming for axis in accounts)
            for worker in self.workers if idle else ():
                pool = await self.pool_of(worker)
                idle = idle and not (pool.used_blocks or pool.used_slots or pool.sequences)
            return state if idle else None

        return await until(look, "every lease closed, blocks and slots zero everywhere", within=within)

    def end(self) -> None:
        """As Ctrl-C in a terminal does it, to the whole group; by force where that did not help."""
        everything = [self.process.pid, *descendants(self.process.pid)]
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        try:
            self.process.wait(END_WITHIN)
        except subprocess.TimeoutExpired:
            for pid in everything:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()
            raise
        finally:
            if self.process.stdout:
                self.process.stdout.close()


def descendants(pid: int) -> list[int]:
    """Every process below this one, nearest first."""
    below: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            below += [child, *descendants(child)]
    return below


def command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


def first_line(process: subprocess.Popen[str], within: float) -> str:
    """The process's first line of output, or what it said until it ended or the time was over."""
    assert process.stdout
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        return process.stdout.readline() if selector.select(within) else ""


@pytest.fixture
def fleet(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Fleet]]:
    """Start a fleet for one test: `fleet(yaml)`, `fleet(None)` for the embedded default."""
    yield from fleets(tmp_path, request.node)


@pytest.fixture(scope="module")
def shared_fleet(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Fleet]]:
    """The same, for all tests of a module: those that leave a fleet as they found it."""
    yield from fleets(tmp_path_factory.mktemp("shared"), request.node)


def fleets(home: Path, node: pytest.Item | pytest.Collector) -> Iterator[Callable[..., Fleet]]:
    """What starts fleets below a folder, and ends them all in the end.

    `program` is another `diplex` than this environment's; `make=True` has `make up` start it.
    """
    running: list[Fleet] = []
    logs = node.stash.setdefault(LOGS, [])

    def start(
        config: str | None = SIMULATED,
        *options: str,
        program: Sequence[str] = (sys.executable, "-m", "diplex_cli.main"),
        env: Mapping[str, str] = MappingProxyType({}),
        make: bool = False,
    ) -> Fleet:
        folder = home / f"fleet{len(running)}"
        folder.mkdir()
        log = folder / "log"
        logs.append(log)
        words = ["--json", *ANY_PORTS, *options]
        if config is not None:
            (folder / "fleet.yaml").write_text(config)
            words += ["--config", "fleet.yaml"]
        by_make = ["make", "--silent", "-C", str(ROOT), "up", f"ARGS={shlex.join(words)}"]
        command = by_make if make else [*program, "up", *words]
        with log.open("w") as errors:
            process = subprocess.Popen(
                command,
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
                env={**os.environ, **env},
            )
        line = first_line(process, READY_WITHIN)
        started = Fleet(process, json.loads(line) if line else {}, log, folder)
        running.append(started)
        assert line, f"no readiness line within {READY_WITHIN:g} s; its log:\n{log.read_text()}"
        return started

    yield start
    for one in running:
        one.end()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.failed:
        for log in (log for node in item.listchain() for log in node.stash.get(LOGS, [])):
            if log.exists():
                report.sections.append((f"log of {log.parent.name}", log.read_text()[-20_000:]))
    return report
