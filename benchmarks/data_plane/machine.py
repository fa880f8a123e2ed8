"""Processes of a measurement: started on one core, watched through /proc, ended with their `with` block."""

import json
import os
import platform
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


_FREE = sorted(os.sched_getaffinity(0))


def cores() -> tuple[int, int]:
    """The core of load and upstream, and the core of what is measured. One core: both are it."""
    return _FREE[0], _FREE[-1]


class Running:
    """One started program with everything that it started itself."""

    def __init__(self, name: str, process: subprocess.Popen[str], log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    def lives(self) -> bool:
        return self.process.poll() is None

    def line(self, within: float | None = None) -> str:
        """The next line that it prints.

        Raises:
            RuntimeError: it ended, or said nothing in time; the message ends in the last words of its log.
        """
        assert self.process.stdout
        if within is not None and not select.select([self.process.stdout], [], [], within)[0]:
            raise RuntimeError(f"{self.name} is not ready within {within:g} s: {self.last_words()}")
        text = self.process.stdout.readline().strip()
        if not text:
            raise RuntimeError(f"{self.name} ended before it was ready: {self.last_words()}")
        return text

    def last_words(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return " / ".join(lines[-3:]) or "it said nothing"

    def ask(self, **what: Any) -> dict[str, Any]:
        """Say one line of JSON, and return the line of JSON that comes back."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.line())
        if "error" in answer:
            raise RuntimeError(f"{self.name}: {answer['error']}")
        return answer


@contextmanager
def running(
    name: str,
    words: Sequence[str],
    core: int,
    environment: Mapping[str, str] | None = None,
    *,
    speaks: bool = True,
) -> Iterator[Running]:
    """A program whose every thread is kept on one core; what it says goes into a log beside.

    Args:
        speaks: whether its output is read, line by line, instead.
    """
    folder = Path(tempfile.mkdtemp(prefix="data-plane-"))
    log = folder / f"{name}.log"
    with log.open("w") as errors:
        process = _started(words, core, environment, subprocess.PIPE if speaks else errors, errors)
    try:
        yield Running(name, process, log)
    finally:
        _ended(process)
        shutil.rmtree(folder, ignore_errors=True)


def _started(
    words: Sequence[str],
    core: int,
    environment: Mapping[str, str] | None,
    output: int | IO[str],
    errors: IO[str],
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=errors,
        text=True,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )


def _ended(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def pin(pids: Sequence[int], core: int) -> None:
    """Keep every thread of these processes, and of all that they started, on one core."""
    for pid in pids:
        for each in family(pid):
            for thread in Path(f"/proc/{each}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {core})


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended meanwhile
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, look = [], [pid]
    while look:
        one = look.pop()
        found.append(one)
        look += parents.get(one, [])
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time that a process and its living descendants have had."""
    total = 0
    for one in family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def resident(pid: int) -> int:
    """Bytes of memory that a process and its descendants hold; pages that they share count in each."""
    return sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) * PAGE for one in family(pid))


def free_ports(count: int) -> list[int]:
    """So many ports that nobody listens on just now."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def answers(port: int, path: str, within: float, lives: Callable[[], bool] = lambda: True) -> bool:
    """Whether an HTTP server answers 200 to a GET, asked again and again while it lives and time is left."""
    until = time.monotonic() + within
    while time.monotonic() < until and lives():
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as connection:
                connection.settimeout(2)
                connection.sendall(
                    f"GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n".encode()
                )
                if b" 200 " in connection.recv(64):
                    return True
        except OSError:
            pass
        time.sleep(0.1)
    return False


def description() -> dict[str, Any]:
    """What all figures were taken on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )
    load, measured = cores()
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "core_of_load_and_upstream": load,
        "core_of_what_is_measured": measured,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "load_average_before": os.getloadavg()[0],
    }
