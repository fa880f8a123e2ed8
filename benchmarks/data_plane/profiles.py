"""Where the time goes: py-spy beside a measurement, one flame graph for each of diplex's processes.

py-spy samples a process 200 times a second from outside; what runs in C below a Python function (gRPC,
protobuf, the loop) counts as that function's own time. Sampling slows what it looks at, so a profiled run
gives no figures.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import flame
import peers

PY_SPY = peers.Peer("py-spy", "0.4.3", "py-spy")
_WAITING = ("Thread.run", "_worker (concurrent", "_worker (futures")
"""Functions in which gRPC's and the executors' threads wait; py-spy takes some of that for work."""
_folder: Path | None = None
_scenario = ""


def into(folder: Path) -> None:
    """Profile from now on; the pictures go there."""
    global _folder
    peers.install(PY_SPY)
    folder.mkdir(parents=True, exist_ok=True)
    _folder = folder


def begin(scenario: str) -> None:
    """What comes next belongs to this scenario."""
    global _scenario
    _scenario = scenario


@contextmanager
def watching(target: Any) -> Iterator[None]:
    """Sample all processes of a target meanwhile, where profiles are wanted and it is diplex."""
    parts: Mapping[str, tuple[int, ...]] = getattr(target, "parts", {})
    with ExitStack() as stack:
        for part, pids in parts.items():
            stack.enter_context(recording(part, pids[0]))
        yield


@contextmanager
def recording(part: str, pid: int) -> Iterator[None]:
    """Sample one process meanwhile, where profiles are wanted."""
    if _folder is None:
        yield
        return
    stacks = _folder / f"{_scenario}-{part}-{pid}.txt"
    words = [str(PY_SPY.program), "record", "--pid", str(pid), "--format", "raw", "--rate", "200"]
    words += ["--output", str(stacks)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as sampler:
        try:
            yield
        finally:
            sampler.send_signal(signal.SIGINT)  # then it writes what it has
            _, said = sampler.communicate(timeout=30)
    if not stacks.exists():
        print(f"no profile of {part}: {said.strip()[-200:]}", file=sys.stderr)
        return
    counts = flame.read(stacks.read_text())
    stacks.unlink()
    for stack in [stack for stack in counts if stack[-1].startswith(_WAITING)]:
        del counts[stack]
    title = f"{_scenario}: {part}"
    picture = _folder / f"data-plane-{_scenario}-{part}.svg".replace("_", "-")
    picture.write_text(flame.draw(counts, title))
    own = flame.own_time(counts)
    print(title + "".join(f"\n  {share:5.1f} %  {name}" for name, share in own[:25]), flush=True)
