"""diplex as it is measured: simulated workers on the core of the load, router and shim on the other.

The simulated engine takes 26 ms for a step of 200 sequences by the chapter's figures, less with fewer.
`time_scale` turns that into the pace that is wanted at the number of streams that will run.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import machine

from diplex_core.model.steps import step_times
from diplex_core.words import Pattern

MODEL = "m"
WEIGHTS, CACHE, PROFILE = "mxfp4-mixed", "mxfp8", "qwen2.5-72b"
FULL_SPEED = 1e6


@dataclass(frozen=True)
class Fleet:
    """A fleet that serves.

    Attributes:
        parts: process ids by part: `rest`, `router`, and `workers` together.
    """

    rest_port: int
    router: str
    workers: tuple[str, ...]
    parts: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def cpu(self) -> dict[str, float]:
        return {part: sum(map(machine.cpu_seconds, pids)) for part, pids in self.parts.items()}

    def resident(self) -> dict[str, int]:
        return {part: sum(map(machine.resident, pids)) for part, pids in self.parts.items()}


def time_scale(pace: float, streams: float) -> float:
    """With which so many streams get a token each every `pace` seconds; 0: as fast as they can."""
    if not pace:
        return FULL_SPEED
    times = step_times(
        Pattern.A, gpu="b200", profile=PROFILE, weights=WEIGHTS, kv_cache=CACHE, calibration="chapter"
    )
    return times.decode_step(max(1, round(streams)), 300.0) / pace


def configuration(
    workers: int, scale: float, slots: int, more: dict[str, Any] | None = None
) -> dict[str, Any]:
    """YAML, as the object that it is."""
    package = {
        "gpu": "b200",
        "pattern": "A",
        "model": MODEL,
        "slots": slots,
        "kv_blocks": 2_000_000,
        "prefill_budget": 1_000_000,
        "open": True,
        "engine": {"kind": "sim", "calibration": "chapter", "time_scale": scale},
    }
    return {
        "models": {MODEL: {"profile": PROFILE, "weights": WEIGHTS, "kv_cache": CACHE}},
        "packages": {f"pkg{number}": package for number in range(workers)},
        "tiers": {"standard": {"patterns": ["A"], "max_output_tokens": 1_000_000}},
        **(more or {}),
    }


@contextmanager
def serving(
    *,
    workers: int = 1,
    pace: float = 0.02,
    streams: int = 200,
    slots: int | None = None,
    more: dict[str, Any] | None = None,
    words: Sequence[str] = (),
) -> Iterator[Fleet]:
    """`diplex up` with simulated workers.

    Args:
        streams: that will run at once, on all workers together.
        more: further sections of the configuration.
        words: further words of the command line.
    """
    load_core, own_core = machine.cores()
    config = configuration(workers, time_scale(pace, streams / workers), slots or max(64, 2 * streams), more)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "fleet.yaml")
        file.write_text(json.dumps(config))
        any_port = [
            word for part in ("router", "metrics", "rest", "worker") for word in (f"--{part}-port", "0")
        ]
        command = [sys.executable, "-m", "diplex_cli", "up", "--config", str(file), "--json"]
        command += ["--log-level", "warning", *any_port, *words]
        with machine.running("diplex", command, own_core) as up:
            said = json.loads(up.line(within=60))
            pids: dict[str, int] = said["pids"]
            workers_pids = tuple(pid for name, pid in pids.items() if name in said["workers"])
            machine.pin(workers_pids, load_core)
            rest = tuple(pid for name, pid in pids.items() if name.startswith("rest"))
            yield Fleet(
                rest_port=int(said["rest"].rpartition(":")[2]) if said["rest"] else 0,
                router=said["router"],
                workers=tuple(said["workers"].values()),
                parts={"rest": rest, "router": (pids["router"],), "workers": workers_pids},
            )
