"""Who is measured, side by side, and what one measurement is: ramp, window, figures."""

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import fleet
import machine
import peers
import profiles

HERE = Path(__file__).parent
Figures = dict[str, float]


class Target(Protocol):
    """Something that serves OpenAI's HTTP, and whose processes are watched."""

    def cpu(self) -> dict[str, float]: ...

    def resident(self) -> dict[str, int]: ...


class Direct:
    """Nothing between: the simulated OpenAI worker itself."""

    def __init__(self, pids: Sequence[int]) -> None:
        self.pids = pids

    def cpu(self) -> dict[str, float]:
        return {"upstream": sum(map(machine.cpu_seconds, self.pids))}

    def resident(self) -> dict[str, int]:
        return {"upstream": sum(map(machine.resident, self.pids))}


@contextmanager
def load() -> Iterator[machine.Running]:
    """The load generator."""
    with machine.running("load", [sys.executable, str(HERE / "load.py")], machine.cores()[0]) as process:
        process.line()
        yield process


@contextmanager
def upstreams(count: int, pace: float) -> Iterator[tuple[list[int], list[int]]]:
    """So many simulated OpenAI workers: their ports and process ids."""
    with ExitStack() as stack:
        ports, pids = machine.free_ports(count), []
        for port in ports:
            words = [sys.executable, str(HERE / "upstream.py"), "--port", str(port), "--pace", str(pace)]
            process = stack.enter_context(machine.running(f"upstream-{port}", words, machine.cores()[0]))
            process.line()
            pids.append(process.pid)
        yield ports, pids


@contextmanager
def everybody(
    *, workers: int, pace: float, streams: int, only: Sequence[str] = (), missing: dict[str, str]
) -> Iterator[dict[str, tuple[int, Target]]]:
    """All that serve, by name: port and processes. Idle while others are measured.

    Args:
        only: names; none: all.
        missing: filled with those that cannot run, and why.
    """
    with ExitStack() as stack:
        found: dict[str, tuple[int, Target]] = {}
        ports, pids = stack.enter_context(upstreams(workers, pace))
        if workers == 1:
            found["direct"] = ports[0], Direct(pids)
        serving = stack.enter_context(fleet.serving(workers=workers, pace=pace, streams=streams))
        found["diplex"] = serving.rest_port, serving
        for peer in peers.PEERS:
            if only and peer.name not in only:
                continue
            try:
                routing = stack.enter_context(peers.serving(peer, ports))
            except peers.CannotRun as error:
                missing[peer.name] = str(error)
                print(f"left out: {error}", file=sys.stderr, flush=True)
            else:
                found[peer.name] = routing.port, routing
        yield {name: one for name, one in found.items() if not only or name in only}


def window(
    loading: machine.Running, target: Target, seconds: float, group: str = "all"
) -> tuple[dict[str, Any], dict[str, float], dict[str, float]]:
    """What the load counted, and the CPU seconds of each part, within some seconds; and CPU of the load."""
    before = loading.ask(do="mark", group=group)
    cpu_before, load_before = target.cpu(), machine.cpu_seconds(loading.pid)
    with profiles.watching(target):
        time.sleep(seconds)
    after = loading.ask(do="mark", group=group)
    cpu_after, load_after = target.cpu(), machine.cpu_seconds(loading.pid)
    counted = {
        name: after[name] - before[name]
        for name in ("at", "tokens", "events", "reads", "bytes", "done", "begun")
    }
    counted |= {name: after[name] for name in ("gap_ms", "ttft_ms", "whole_ms", "failures", "open")}
    spent = {part: cpu_after[part] - cpu_before[part] for part in cpu_after}
    return counted, spent, {"load": load_after - load_before}


def interleaved(names: Sequence[str], rounds: int, one: Callable[[str], Figures]) -> dict[str, list[Figures]]:
    """Measure each in turn, round after round, so that whatever else the machine does meets all of them."""
    runs: dict[str, list[Figures]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names:
            try:
                runs[name].append(one(name))
            except RuntimeError as error:
                print(f"round {number + 1}, {name}: {error}", file=sys.stderr, flush=True)
        print(f"  round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return runs


def summary(runs: Mapping[str, Sequence[Figures]]) -> dict[str, dict[str, dict[str, float]]]:
    """Median, least and most of each figure of each."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, figures in runs.items():
        keys = list(dict.fromkeys(key for one in figures for key in one))
        found[name] = {}
        for key in keys:
            values = [one[key] for one in figures if key in one]
            found[name][key] = {
                "median": round(statistics.median(values), 4),
                "least": round(min(values), 4),
                "most": round(max(values), 4),
                "runs": len(values),
            }
    return found
