"""Where the time goes: py-spy beside a measurement, one flame graph for each of diplex's processes.

py-spy samples a process a hundred times a second from outside; what runs in C below a Python function (gRPC,
protobuf, the loop) counts as that function's own time. Sampling slows what it looks at, so a profiled run
gives no figures.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flame
import peers

PY_SPY = peers.Peer("py-spy", "0.4.3", "py-spy")
_folder: Path | None = None
_scenario = ""


def into(folder: Path) -> None:
    """Profile from now on; pictures and `hot.json` go there."""
    global _folder
    peers.install(PY_SPY)
    folder.mkdir(parents=True, exist_ok=True)
    _folder = folder


def begin(scenario: str) -> None:
    """What comes next belongs to this scenario."""
    global _scenario
    _scenario = scenario


@contextmanager
def watching(target: Any, seconds: float) -> Iterator[None]:
    """Sample all processes of a target for so long, where profiles are wanted and it is diplex."""
    parts: dict[str, tuple[int, ...]] = getattr(target, "parts", {})
    if _folder is None or not parts:
        yield
        return
    folder = _folder
    watchers = [
        threading.Thread(target=_record, args=(folder, part, pids[0], seconds))
        for part, pids in parts.items()
    ]
    for one in watchers:
        one.start()
    yield
    for one in watchers:
        one.join()


def _record(folder: Path, part: str, pid: int, seconds: float) -> None:
    stacks = folder / f"{_scenario}-{part}.txt"
    words = [
        *(str(PY_SPY.program), "record", "--pid", str(pid), "--duration", str(max(2, round(seconds)))),
        *("--format", "raw", "--output", str(stacks), "--rate", "200"),
    ]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode or not stacks.exists():
        print(f"no profile of {part}: {done.stderr.strip()[-200:]}", file=sys.stderr)
        return
    counts = flame.read(stacks.read_text())
    stacks.unlink()
    title = f"{_scenario}: {part}"
    picture = folder / f"{_scenario}-{part}.svg".replace("_", "-")
    picture.write_text(flame.draw(counts, title))
    own = flame.own_time(counts)
    file = folder / "hot.json"
    with _lock:
        hot = json.loads(file.read_text()) if file.exists() else {}
        hot[title] = own[:12]
        file.write_text(json.dumps(hot, indent=1) + "\n")
    print(title + "".join(f"\n  {share:5.1f} %  {name}" for name, share in own[:25]))


_lock = threading.Lock()
