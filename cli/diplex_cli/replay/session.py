"""A trace against a running router, from the first look at the fleet to the report."""

import asyncio
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from diplex import AsyncClient
from diplex.v1 import router_pb2
from diplex_cli.failures import UsageError
from diplex_cli.replay import options, progress
from diplex_cli.replay.load import Load
from diplex_cli.replay.mix import dealt
from diplex_cli.replay.prompts import prompt_of
from diplex_cli.replay.ticket import Planned
from diplex_cli.replay.traces import Row, Trace
from diplex_cli.replay.watch import Sample, Watch, tier_of
from diplex_core.report import Outcome, Report, Spread, report_of
from diplex_core.words import Seconds, Tier, Tokens

_PATIENCE: Final[Seconds] = 10.0
_LAG_WORTH_SAYING: Final[Seconds] = 0.005


@dataclass(frozen=True, slots=True)
class Settings:
    """How a trace is replayed. Empty `shares`: all of it to the router's default tier. `max_tokens`: what
    each request asks for at most; `None`: its answer's own length."""

    url: str
    model: str
    shares: Mapping[str, float]
    api_keys: tuple[str, ...]
    speed: float
    limit: int | None
    seed: int
    clamp_input: Tokens | None
    clamp_output: Tokens | None
    timeout: Seconds
    retry: bool
    max_tokens: Tokens | None = None


@dataclass(frozen=True, slots=True)
class Replayed:
    """A report, and what a plot needs beside it. `samples` count from the beginning of the run."""

    report: Report
    outcomes: Sequence[Outcome]
    samples: Sequence[Sample]
    tiers: Mapping[str, Tier]
    model: str

    @property
    def fine(self) -> bool:
        return not self.report.failed and not self.report.ledger.wrong


async def replay(trace: Trace, settings: Settings) -> Replayed:
    """Send the trace and report.

    Ctrl-C sends nothing more and waits for what runs; a second one cuts it short. Both end in a report.

    Raises:
        UsageError: the router knows no such tier or model; nothing was sent.
        Unavailable: no router answers.
    """
    api_key = settings.api_keys[0] if settings.api_keys else None
    async with AsyncClient(settings.url, api_key=api_key, patience=_PATIENCE) as client:
        before = await client.fleet()
        await client.wait_ready()
        before = await client.fleet() if not before.ready else before
        model = _model(before, settings.model)
        tiers = _tiers(before, settings.shares)
        planned = plan(trace, settings, tiers)
        load = Load(client, planned, tiers, model=model, timeout=settings.timeout, retry=settings.retry)
        watch = Watch(client, before, model)
        with _interrupted_by(load):
            async with asyncio.TaskGroup() as tasks:
                beside = [tasks.create_task(watch.run()), tasks.create_task(progress.show(load.tally))]
                await load.run()
                for task in beside:
                    task.cancel()
        await watch.settle()
    began, ended = load.began, load.ended
    report = report_of(
        load.outcomes,
        tiers,
        watch.workers(load.outcomes, began, ended),
        watch.ledger(),
        model=model,
        duration=ended - began,
        run=_run(trace, settings, load, model),
        notes=_notes(trace, settings, load, watch, model),
    )
    samples = [Sample(one.at - began, one.blocks, one.waiting, one.running) for one in watch.samples]
    return Replayed(report, load.outcomes, samples, tiers, model)


def plan(trace: Trace, settings: Settings, tiers: Mapping[str, Tier]) -> list[Planned]:
    """What is to be sent, and when."""
    shares = settings.shares or dict.fromkeys(tiers, 1.0)
    names = dealt(shares, len(trace.rows), settings.seed)
    keys = _keys(settings, len(trace.rows))
    return [
        _planned(trace, row, settings, tier, key)
        for row, tier, key in zip(trace.rows, names, keys, strict=True)
    ]


def _planned(trace: Trace, row: Row, settings: Settings, tier: str, key: str | None) -> Planned:
    tokens = _clamped(row.input_tokens, settings.clamp_input)
    answer = _clamped(row.output_tokens, settings.clamp_output)
    return Planned(
        request_id=f"{trace.name.partition('.')[0]}-{row.number}",
        due=row.arrival / settings.speed,
        tier=tier,
        prompt=partial(prompt_of, row, tokens, trace.block_tokens, settings.seed),
        prompt_tokens=tokens,
        max_tokens=settings.max_tokens or answer,
        least=min(answer, settings.max_tokens) if settings.max_tokens is not None else None,
        api_key=key,
    )


def _clamped(tokens: Tokens, most: Tokens | None) -> Tokens:
    """At least one: a request without a prompt, or without an answer, is none."""
    return max(1, tokens if most is None else min(tokens, most))


def _keys(settings: Settings, count: int) -> Sequence[str | None]:
    keys = settings.api_keys
    if len(keys) < 2:
        return [None] * count
    # Another draw than the tiers', so that no tenant gets one tier alone.
    return dealt({key: 1 / len(keys) for key in keys}, count, settings.seed + 1)


def _model(fleet: router_pb2.Fleet, asked: str) -> str:
    name = asked or fleet.default_model
    served = sorted({model.name for worker in fleet.workers for model in worker.info.models})
    if name not in served:
        known = ", ".join(served) or "none; diplex up"
        raise UsageError(f"--model: no worker of {fleet.router} serves '{name}'. Mend: one of {known}")
    return name


def _tiers(fleet: router_pb2.Fleet, shares: Mapping[str, float]) -> dict[str, Tier]:
    """Those that are asked for, in the router's order."""
    asked = shares or {fleet.default_tier: 1.0}
    known = {tier.name: tier_of(tier) for tier in fleet.tiers}
    if unknown := [name for name in asked if name not in known]:
        raise UsageError(f"--tiers: the router has no tier '{unknown[0]}'. Mend: one of {', '.join(known)}")
    return {name: tier for name, tier in known.items() if name in asked}


@contextmanager
def _interrupted_by(load: Load) -> Iterator[None]:
    """Ctrl-C, once and twice."""
    loop = asyncio.get_running_loop()

    def told() -> None:
        end: Callable[[], None] = load.abandon if load.stopped else load.stop
        end()

    loop.add_signal_handler(signal.SIGINT, told)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def _run(trace: Trace, settings: Settings, load: Load, model: str) -> dict[str, Any]:
    """What was run, for programs."""
    lag = Spread.of(load.lags)
    return {
        "command": "replay",
        "trace": trace.name,
        "format": trace.format,
        "requests_in_trace": trace.total,
        "requests_planned": len(trace.rows),
        "requests_sent": load.tally.sent,
        "interrupted": load.stopped,
        "cut": load.cut,
        "speed": settings.speed,
        "tiers": dict(settings.shares),
        "model": model,
        "url": settings.url,
        "seed": settings.seed,
        "clamp_input": settings.clamp_input,
        "clamp_output": settings.clamp_output,
        "max_tokens": settings.max_tokens,
        "timeout_s": settings.timeout,
        "retry": settings.retry,
        "lag_ms": {
            name: None if value is None else round(value * 1000, 3)
            for name, value in (("p50", lag.p50), ("p95", lag.p95), ("p99", lag.p99))
        },
    }


def _notes(trace: Trace, settings: Settings, load: Load, watch: Watch, model: str) -> list[str]:
    """What was run and what a reader must know of it, for people."""
    which = f"the first {len(trace.rows):,} of " if len(trace.rows) < trace.total else ""
    span = trace.rows[-1].arrival / settings.speed
    said = [
        f"{trace.name} ({trace.format}): {which}{trace.total:,} requests in {span:,.1f} s, "
        f"speed {settings.speed:g}, seed {settings.seed}; {model} at {settings.url}"
    ]
    clamps = options.clamped(settings.clamp_input, settings.clamp_output)
    if clamps:
        said.append("NOT THE TRACE'S OWN LENGTHS: " + clamps)
    if settings.max_tokens is not None:
        said.append(options.capped(settings.max_tokens))
    if watch.time_scales:
        scales = ", ".join(f"{name} {scale:g}" for name, scale in watch.time_scales.items())
        said.append(
            f"SIMULATED TIME IS SCALED ({scales}): durations are those of this clock, not the engine's"
        )
    if load.stopped:
        said.append(
            f"INTERRUPTED: {load.tally.sent:,} requests were sent"
            + (f", {load.cut:,} of them cut short and left out" if load.cut else "")
        )
    if watch.restarted:
        said.append("the router was restarted meanwhile: its books count from then")
    lag = Spread.of(load.lags).p95
    if lag is not None and lag >= _LAG_WORTH_SAYING:
        said.append(
            f"5 % of the requests were sent more than {lag * 1000:,.0f} ms late: this machine is busy; "
            "durations count from when they were due"
        )
    return said
