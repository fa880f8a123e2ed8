"""The routers beside diplex: installed from PyPI on demand, each into an environment of its own.

They are Rust programs that forward OpenAI's HTTP to workers. Each runs with its cheapest policy, round robin,
without retries and with every bound out of the way. They keep their own defaults otherwise.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import machine

_STARTS_WITHIN = 40.0
_TRIES = 3


@dataclass(frozen=True)
class Peer:
    """A router, its pinned version, and its command line after the script's name."""

    name: str
    version: str
    script: str
    words: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cache / "diplex" / "bench" / f"{self.name}-{self.version}"

    @property
    def program(self) -> Path:
        return self.folder / "bin" / self.script


PEERS = (
    Peer("vllm-router", "0.1.17", "vllm-router"),
    Peer("sglang-router", "0.3.2", "smg", ("launch",)),
    Peer("smg", "1.13.0", "smg", ("launch", "--disable-tokenizer-autoload")),
)


class CannotRun(RuntimeError):
    """A peer is left out; the message says why."""


def install(peer: Peer) -> None:
    """Have it, at its version.

    Raises:
        CannotRun: it cannot be had here.
    """
    if peer.program.exists():
        return
    uv = Path(sys.executable).with_name("uv")
    tool = str(uv) if uv.exists() else "uv"
    print(f"installing {peer.name} {peer.version} into {peer.folder}", file=sys.stderr, flush=True)
    for words in (
        ["venv", "--quiet", "--python", sys.executable, str(peer.folder)],
        [
            *("pip", "install", "--quiet", "--python", str(peer.folder / "bin" / "python")),
            f"{peer.name}=={peer.version}",
        ],
    ):
        try:
            done = subprocess.run([tool, *words], capture_output=True, text=True, timeout=300)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CannotRun(f"{peer.name} {peer.version} cannot be installed: {error}") from error
        if done.returncode:
            why = (done.stderr.strip().splitlines() or ["uv said nothing"])[-1]
            raise CannotRun(f"{peer.name} {peer.version} cannot be installed: {why}")


@dataclass(frozen=True)
class Routing:
    """A peer that serves."""

    port: int
    pid: int

    def cpu(self) -> dict[str, float]:
        return {"router": machine.cpu_seconds(self.pid)}

    def resident(self) -> dict[str, int]:
        return {"router": machine.resident(self.pid)}


@contextmanager
def serving(peer: Peer, upstream_ports: Sequence[int]) -> Iterator[Routing]:
    """It, in front of these upstreams.

    Raises:
        CannotRun: it is not up in time.
    """
    install(peer)
    with ExitStack() as stack:
        for _ in range(_TRIES):  # a port that was free may be somebody's by now
            port, prometheus = machine.free_ports(2)
            words = _command(peer, port, prometheus, upstream_ports)
            process = stack.enter_context(machine.running(peer.name, words, machine.cores()[1], speaks=False))
            if machine.answers(port, "/v1/models", _STARTS_WITHIN, process.lives):
                yield Routing(port, process.pid)
                return
        said = process.last_words().replace(str(Path.home()), "~")
        raise CannotRun(f"{peer.name} {peer.version} does not serve: {said}")


def _command(peer: Peer, port: int, prometheus: int, upstream_ports: Sequence[int]) -> list[str]:
    return [
        str(peer.program),
        *peer.words,
        *("--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(prometheus)),
        *("--policy", "round_robin", "--disable-retries", "--disable-circuit-breaker"),
        *("--max-concurrent-requests", "32768", "--log-level", "error"),
        *("--worker-urls", *(f"http://127.0.0.1:{one}" for one in upstream_ports)),
    ]
