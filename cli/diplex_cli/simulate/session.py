"""A load against a simulated fleet, from its first arrival to the report."""

import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import repeat
from types import FrameType
from typing import Any, Final, assert_never

from diplex_cli import plugins
from diplex_cli.failures import UsageError
from diplex_cli.replay import options
from diplex_cli.replay.mix import deal
from diplex_cli.simulate.fleet import Fleet
from diplex_cli.simulate.mix import mix_of
from diplex_cli.simulate.progress import Progress
from diplex_cli.simulate.seen import Seen
from diplex_cli.simulate.streams import SYNTHETIC, Request, Stream
from diplex_core.placement.place import Placement
from diplex_core.report import Collector, Outcome, Report, report_of
from diplex_core.sim.arrivals import Arrival
from diplex_core.sim.capacity import capacity_of
from diplex_core.sim.faults import Cut, Drain, Fault, Kill, Slow
from diplex_core.sim.simulation import Simulation
from diplex_core.words import Blocks, Seconds, Tier, Tokens

_MOST_NAMED: Final = 4


@dataclass(frozen=True, slots=True)
class Settings:
    """How a stream is simulated. Empty `shares`: all of it to the default tier. `load`: a share of what the
    fleet can take, instead of the stream's own rate; `config`: as people know it. `max_tokens`: what each
    request asks for at most; `None`: its answer's own length."""

    config: str
    model: str = ""
    shares: Mapping[str, float] = field(default_factory=dict)
    api_keys: tuple[str, ...] = ()
    speed: float = 1.0
    load: float | None = None
    seed: int = 0
    clamp_input: Tokens | None = None
    clamp_output: Tokens | None = None
    max_tokens: Tokens | None = None
    timeout: Seconds | None = None
    retry: bool = False
    message: Seconds = 0.0
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class Simulated:
    """A report, and what a plot needs beside it. `timelines`: blocks in use of each pool over time."""

    report: Report
    collected: Collector
    seen: Seen
    timelines: Mapping[str, Sequence[tuple[Seconds, Blocks]]]
    tiers: Mapping[str, Tier]
    model: str
    faults: Sequence[Fault]

    @property
    def fine(self) -> bool:
        return not self.report.failed and not self.report.ledger.wrong


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests a second, and what the fleet was estimated to take; `None`: nobody asked, or nobody knows."""

    rate: float | None
    capacity: float | None


def simulate(stream: Stream, fleet: Fleet, settings: Settings) -> Simulated:
    """Run it to its end.

    Ctrl-C lets nothing more arrive and waits for what runs; a second one ends the program.

    Raises:
        UsageError: nothing of the fleet serves such requests, or nobody says how many come a second.
    """
    model, tiers = fleet.model(settings.model), fleet.tiers(settings.shares)
    block_tokens = fleet.block_tokens(model)
    rate = _rate(stream, fleet, settings, model, tiers, block_tokens)
    collected, seen = Collector(tiers), Seen(tiers)
    simulation = Simulation(
        fleet.rules,
        fleet.workers,
        seed=settings.seed,
        message=settings.message,
        faults=settings.faults,
        retry=settings.retry,
        timeout=settings.timeout,
        placement=Placement(book=plugins.book()),
    )
    load = _Load(stream, settings, model, tiers, block_tokens, rate.rate)
    progress = Progress(stream.count)

    def heard(one: Outcome) -> None:
        collected.add(one)
        seen.hear(one)
        progress.hear(one)

    def passed(now: Seconds, over: int) -> None:
        waiting = len(simulation.admission.waiting)
        seen.look(now, load.sent - over - waiting, waiting)
        progress.show(now)

    with _interrupted_by(load), progress:
        simulation.run(load, heard, passed)
    workers, ledger = simulation.figures()
    report = report_of(
        collected,
        tiers,
        {
            name: figures
            for name, figures in workers.items()
            if model in simulation.workers[name].facts.models or figures.requests
        },
        ledger,
        model=model,
        duration=simulation.ended,
        run=_run(stream, fleet, settings, load, model, rate, seen),
        notes=_notes(stream, fleet, settings, load, model, rate, block_tokens),
    )
    timelines = {name: line for name, line in simulation.timelines().items() if name in report.workers}
    return Simulated(report, collected, seen, timelines, tiers, model, settings.faults)


class _Load:
    """The stream's requests as they arrive, dealt to tiers and keys, until they end or it is stopped."""

    def __init__(
        self,
        stream: Stream,
        settings: Settings,
        model: str,
        tiers: Mapping[str, Tier],
        block_tokens: Tokens,
        rate: float | None,
    ) -> None:
        self.sent = 0
        self.last: Seconds = 0.0
        self.stopped = False
        most = settings.clamp_input, settings.clamp_output
        self._requests = clamped(stream.requests(block_tokens, rate), *most, block_tokens)
        self._tiers = deal(settings.shares or dict.fromkeys(tiers, 1.0), stream.count, settings.seed)
        self._keys = _keys(settings, stream.count)
        self._model = model
        self._max_tokens = settings.max_tokens or 0

    def __iter__(self) -> Iterator[Arrival]:
        model = self._model
        for request, tier, key in zip(self._requests, self._tiers, self._keys, strict=False):
            if self.stopped:
                return
            at, prompt, output, hashes = request
            yield Arrival(at, prompt, output, tier, model, key, hashes, max_tokens=self._max_tokens)
            # The simulation looks one ahead: it has arrived when the next one is asked for.
            self.sent += 1
            self.last = at


def clamped(
    requests: Iterable[Request], most_in: Tokens | None, most_out: Tokens | None, block_tokens: Tokens
) -> Iterator[Request]:
    """The same with prompts and answers of one token at least, and of so many at most. The last token of a
    prompt is in none of its shared blocks."""
    for at, prompt, output, hashes in requests:
        if most_in is not None and prompt > most_in:
            prompt = most_in
            hashes = hashes[: (prompt - 1) // block_tokens] if block_tokens else ()
        yield Request(
            at, max(1, prompt), max(1, output if most_out is None else min(output, most_out)), hashes
        )


def _rate(
    stream: Stream,
    fleet: Fleet,
    settings: Settings,
    model: str,
    tiers: Mapping[str, Tier],
    block_tokens: Tokens,
) -> Rate:
    """What comes in a second: the share of the fleet's capacity that was asked for, or the stream's rate."""
    capacity = None
    if serving := fleet.serving(model, tiers):
        like = stream.requests(block_tokens, 1.0)
        mix = mix_of(clamped(like, settings.clamp_input, settings.clamp_output, block_tokens), block_tokens)
        capacity = capacity_of(serving, mix)
    if settings.load is not None:
        if capacity is None:
            names = ", ".join(tiers)
            raise UsageError(
                f"--load: no simulated worker serves {model} in {names}. Mend: --tiers, or --speed"
            )
        return Rate(settings.load * capacity, capacity)
    if stream.rate is None and stream.format == SYNTHETIC:
        raise UsageError(f"{stream.name}: nobody says how many come a second. Mend: rate=10, or --load 0.9")
    return Rate(stream.rate * settings.speed if stream.rate else None, capacity)


def _keys(settings: Settings, count: int) -> Iterator[str]:
    keys = settings.api_keys
    if len(keys) < 2:
        return repeat(keys[0] if keys else "")
    # Another draw than the tiers', so that no tenant gets one tier alone.
    return deal({key: 1 / len(keys) for key in keys}, count, settings.seed + 1)


@contextmanager
def _interrupted_by(load: _Load) -> Iterator[None]:
    """The first Ctrl-C ends the load, the second one everything."""

    def told(number: int, frame: FrameType | None) -> None:
        if load.stopped:
            raise KeyboardInterrupt
        load.stopped = True

    before = signal.signal(signal.SIGINT, told)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _run(
    stream: Stream, fleet: Fleet, settings: Settings, load: _Load, model: str, rate: Rate, seen: Seen
) -> dict[str, Any]:
    """What was run, for programs: `replay`'s own keys, and those of a simulation."""
    return {
        "command": "simulate",
        "trace": stream.name,
        "format": stream.format,
        "requests_in_trace": stream.total,
        "requests_planned": stream.count,
        "requests_sent": load.sent,
        "interrupted": load.stopped,
        "cut": 0,
        "speed": settings.speed,
        "tiers": dict(settings.shares),
        "model": model,
        "url": None,
        "seed": settings.seed,
        "clamp_input": settings.clamp_input,
        "clamp_output": settings.clamp_output,
        "max_tokens": settings.max_tokens,
        "timeout_s": settings.timeout,
        "retry": settings.retry,
        "lag_ms": {"p50": 0.0, "p95": 0.0, "p99": 0.0},
        "config": settings.config,
        "packages": fleet.packages,
        "workers": len(fleet.workers),
        "left_out": dict(fleet.left_out),
        "load": settings.load,
        "requests_per_s": _rounded(rate.rate),
        "capacity_requests_per_s": _rounded(rate.capacity),
        "message_ms": settings.message * 1000,
        "faults": [_fault(fault) for fault in settings.faults],
        "waiting_peak": seen.most_waiting,
    }


def _fault(fault: Fault) -> dict[str, Any]:
    said = asdict(fault)
    return {"kind": type(fault).__name__.lower(), **{name.rstrip("_"): value for name, value in said.items()}}


def _notes(
    stream: Stream,
    fleet: Fleet,
    settings: Settings,
    load: _Load,
    model: str,
    rate: Rate,
    block_tokens: Tokens,
) -> list[str]:
    """What was run and what a reader must know of it, for people."""
    said = [
        f"{stream.name} ({stream.format}): {stream.about}, in {load.last:,.1f} s"
        + (f" ({rate.rate:,.4g}/s)" if rate.rate else "")
        + f", seed {settings.seed}; {model} on {fleet.packages:,} packages, {settings.config}"
    ]
    if settings.load is not None and rate.capacity is not None:
        said.append(
            f"load {settings.load:.4g} of {rate.capacity:,.4g} requests/s, which these workers can take by "
            "their step times, promises not looked at"
        )
    elif settings.speed != 1.0:
        said.append(f"speed {settings.speed:g}")
    clamps = options.clamped(settings.clamp_input, settings.clamp_output)
    if clamps:
        said.append("NOT THE STREAM'S OWN LENGTHS: " + clamps)
    if settings.max_tokens is not None:
        said.append(options.capped(settings.max_tokens))
    if fleet.left_out:
        said.append("left out: " + _few([f"{name} ({why})" for name, why in fleet.left_out.items()]))
    if fleet.time_scales:
        scales = ", ".join(f"{scale:g}" for scale in fleet.time_scales)
        said.append(
            f"SIMULATED TIME IS SCALED ({scales}): durations are those of a router's clock, not the engine's"
        )
    if not block_tokens:
        said.append("no prompt shares a prefix: the workers' KV blocks differ in size")
    if settings.message:
        said.append(f"each message between client, router and worker takes {settings.message * 1000:g} ms")
    if settings.faults:
        said.append("faults: " + _few([_told(fault) for fault in settings.faults]))
    if load.stopped:
        said.append(f"INTERRUPTED: {load.sent:,} requests arrived")
    return said


def _told(fault: Fault) -> str:
    match fault:
        case Kill():
            back = f", back after {fault.back_after:g} s" if fault.back_after is not None else ""
            return f"{fault.worker} killed at {fault.at:g} s{back}"
        case Cut():
            return f"{fault.worker} cut off at {fault.at:g} s for {fault.for_:g} s"
        case Slow():
            return f"{fault.worker} {fault.factor:g} times as slow at {fault.at:g} s for {fault.for_:g} s"
        case Drain():
            return f"{fault.worker} drained at {fault.at:g} s"
        case _:
            assert_never(fault)


def _few(items: Sequence[str]) -> str:
    more = len(items) - _MOST_NAMED
    return "; ".join([*items[:_MOST_NAMED], *([f"and {more:,} more"] if more > 0 else [])])


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
