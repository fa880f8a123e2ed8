"""The report of a run: what `replay`, `bench` and `simulate` say, whoever made the outcomes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from diplex_core.report.collector import Collector, TierTally
from diplex_core.report.fairness import jain
from diplex_core.report.outcome import Ending, Outcome
from diplex_core.report.percentile import Spread
from diplex_core.words import Blocks, Seconds, Tier, Tokens

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Pool:
    """KV blocks in use on one worker: reserved, pinned, reclaiming and foreign ones together.

    `mean` is over time, `peak` the most, `end` after the last request had settled.
    """

    capacity: Blocks
    mean: float | None
    peak: Blocks
    end: Blocks


@dataclass(frozen=True, slots=True)
class WorkerFigures:
    """One worker, and this run's requests that it served. `calibration` is `None` on a real engine.
    `prefill_tokens`: of their prompts, those that were not resident and had to be read."""

    pattern: str
    engine: str
    simulated: bool
    calibration: str | None
    pool: Pool
    requests_by_tier: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    prefill_tokens: Tokens = 0

    @property
    def requests(self) -> int:
        return sum(self.requests_by_tier.values())


@dataclass(frozen=True, slots=True)
class LedgerFigures:
    """What the run left in the router's books; all but `drift_max` and the end count this run alone.

    Attributes:
        blocks_reserved_end: reserved, pinned and reclaiming blocks of all pools once everything had settled.
        drift_max: most blocks by which a worker's report differed from its account since the router began.
        over_capacity: moments in which a pool held more than it has.
    """

    leases_opened: int = 0
    leases_closed: int = 0
    blocks_reserved_end: Blocks = 0
    preempted: int = 0
    refused_by_worker: int = 0
    drift_max: Blocks = 0
    over_capacity: int = 0

    @property
    def wrong(self) -> tuple[str, ...]:
        """What is not as it must be, in words."""
        said = []
        if self.over_capacity:
            said.append(f"a pool held more than it has, {self.over_capacity} times")
        if self.leases_opened != self.leases_closed:
            said.append(f"{self.leases_opened} leases opened, {self.leases_closed} closed")
        if self.blocks_reserved_end:
            said.append(f"{self.blocks_reserved_end} blocks held at the end")
        return tuple(said)


@dataclass(frozen=True, slots=True)
class TierFigures:
    """What became of the requests that asked for one tier. Durations in seconds, over the completed ones,
    degraded ones included: that is what whoever asked for this tier got."""

    requests: int
    completed: int
    rejected: int
    degraded: int
    failed: int
    ttft: Spread
    tpot: Spread
    longest_gap: Spread
    e2e: Spread
    queue: Spread
    met: int
    attainment: float | None
    goodput: float | None
    output_tokens: Tokens
    retry_given: int
    retry_obeyed: int
    retry_succeeded: int


@dataclass(frozen=True, slots=True)
class Report:
    """The whole of it.

    Attributes:
        run: what was run, in its command's own words and figures; `notes`: what a reader must know of it.
        duration: seconds from the first arrival until the last request had ended.
        targets: each tier's promise for the model of the run, in words.
        problems: reasons of rejections and failures, most frequent first.
        details: the first of each in full.
    """

    run: Mapping[str, Any]
    notes: tuple[str, ...]
    duration: Seconds
    tiers: Mapping[str, TierFigures]
    targets: Mapping[str, str]
    tenants: Mapping[str, tuple[int, Tokens]]
    fairness: float | None
    output_tokens: Tokens
    prompt_tokens: Tokens
    cached_tokens: Tokens
    workers: Mapping[str, WorkerFigures]
    ledger: LedgerFigures
    problems: Mapping[str, int]
    details: Mapping[str, str]

    @property
    def met(self) -> int:
        return sum(tier.met for tier in self.tiers.values())

    @property
    def failed(self) -> int:
        return sum(tier.failed for tier in self.tiers.values())

    @property
    def goodput(self) -> float | None:
        return _rate(self.met, self.duration)

    @property
    def output_rate(self) -> float | None:
        return _rate(self.output_tokens, self.duration)

    @property
    def calibrations(self) -> tuple[str, ...]:
        """Of the simulated workers; empty: every engine was real."""
        return tuple(sorted({worker.calibration or "unnamed" for worker in self._simulated}))

    @property
    def simulated(self) -> int:
        """Workers whose engine is simulated."""
        return len(self._simulated)

    @property
    def _simulated(self) -> list[WorkerFigures]:
        return [worker for worker in self.workers.values() if worker.simulated]

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it: times in milliseconds, rates per second, shares 0 to 1; `None` where there
        is no figure."""
        return {
            "report": VERSION,
            "run": dict(self.run),
            "notes": list(self.notes),
            "simulated": bool(self.simulated),
            "duration_s": round(self.duration, 3),
            "tiers": {name: _tier_json(tier) for name, tier in self.tiers.items()},
            "tenants": {
                name: {"requests": requests, "output_tokens": tokens}
                for name, (requests, tokens) in self.tenants.items()
            },
            "fairness_jain": _rounded(self.fairness),
            "output_tokens_per_s": _rounded(self.output_rate),
            "goodput_rps": _rounded(self.goodput),
            "prefix": {"prompt_tokens": self.prompt_tokens, "prefill_tokens_saved": self.cached_tokens},
            "workers": {name: _worker_json(worker) for name, worker in self.workers.items()},
            "ledger": {
                "leases_opened": self.ledger.leases_opened,
                "leases_closed": self.ledger.leases_closed,
                "blocks_reserved_end": self.ledger.blocks_reserved_end,
                "preempted": self.ledger.preempted,
                "refused_by_worker": self.ledger.refused_by_worker,
                "drift_max": self.ledger.drift_max,
                "over_capacity": self.ledger.over_capacity,
            },
            "problems": dict(self.problems),
        }


def report_of(
    outcomes: Iterable[Outcome] | Collector,
    tiers: Mapping[str, Tier],
    workers: Mapping[str, WorkerFigures],
    ledger: LedgerFigures,
    *,
    model: str,
    duration: Seconds,
    weights: Mapping[str, float] = MappingProxyType({}),
    run: Mapping[str, Any] = MappingProxyType({}),
    notes: Iterable[str] = (),
) -> Report:
    """Count and measure.

    Args:
        outcomes: each request's, or a collector that has heard them all.
        tiers: those that were asked for, in the order in which they are shown.
        model: whose promises hold.
        duration: seconds from the first arrival until the last request had ended.
        weights: each tenant's share against the others'; 1 where none is said.
    """
    heard = outcomes if isinstance(outcomes, Collector) else Collector(tiers, outcomes)
    tenants = heard.tenants
    return Report(
        run=run,
        notes=tuple(notes),
        duration=duration,
        tiers={name: _figures(heard.tiers[name], duration) for name in tiers},
        targets={name: targets(tier, model) for name, tier in tiers.items()},
        tenants=tenants,
        fairness=jain(tokens / weights.get(name, 1.0) for name, (_, tokens) in tenants.items()),
        output_tokens=heard.output_tokens,
        prompt_tokens=heard.prompt_tokens,
        cached_tokens=heard.cached_tokens,
        workers=workers,
        ledger=ledger,
        problems=dict(heard.problems.most_common()),
        details=heard.details,
    )


def targets(tier: Tier, model: str) -> str:
    """What a tier promises for a model, in few words; "" for nothing."""
    promise = tier.promise_for(model)
    said = []
    if (ttft := promise.ttft_p95) is not None:
        per_1k = ttft.per_1k_prompt_tokens
        said.append(f"TTFT {ttft.base * 1000:g}" + (f" + {per_1k * 1000:g}/1k" if per_1k else "") + " ms")
    if promise.tpot_p95 is not None:
        said.append(f"TPOT {promise.tpot_p95 * 1000:g} ms")
    if tier.deadline is not None:
        said.append(f"E2E {tier.deadline:g} s")
    return ", ".join(said)


def _figures(tally: TierTally, duration: Seconds) -> TierFigures:
    return TierFigures(
        requests=tally.requests,
        completed=tally.completed,
        rejected=tally.ended[Ending.REJECTED],
        degraded=tally.degraded,
        failed=tally.ended[Ending.FAILED],
        ttft=Spread.of(tally.ttft),
        tpot=Spread.of(tally.tpot),
        longest_gap=Spread.of(tally.longest_gap),
        e2e=Spread.of(tally.e2e),
        queue=Spread.of(tally.queue),
        met=tally.met,
        attainment=tally.met / tally.requests if tally.requests else None,
        goodput=_rate(tally.met, duration),
        output_tokens=tally.output_tokens,
        retry_given=tally.retry_given,
        retry_obeyed=tally.retry_obeyed,
        retry_succeeded=tally.retry_succeeded,
    )


def _tier_json(tier: TierFigures) -> dict[str, Any]:
    return {
        "requests": tier.requests,
        "completed": tier.completed,
        "rejected": tier.rejected,
        "degraded": tier.degraded,
        "failed": tier.failed,
        "ttft_ms": _spread_json(tier.ttft),
        "tpot_ms": _spread_json(tier.tpot),
        "longest_gap_ms": _spread_json(tier.longest_gap),
        "e2e_ms": _spread_json(tier.e2e),
        "queue_ms": _spread_json(tier.queue),
        "slo_attainment": _rounded(tier.attainment, 6),
        "goodput_rps": _rounded(tier.goodput),
        "output_tokens": tier.output_tokens,
        "retry_after": {
            "given": tier.retry_given,
            "obeyed": tier.retry_obeyed,
            "succeeded": tier.retry_succeeded,
        },
    }


def _worker_json(worker: WorkerFigures) -> dict[str, Any]:
    return {
        "pattern": worker.pattern,
        "engine": worker.engine,
        "simulated": worker.simulated,
        "calibration": worker.calibration,
        "requests": worker.requests,
        "requests_by_tier": dict(worker.requests_by_tier),
        "prefill_tokens": worker.prefill_tokens,
        "kv_blocks": {
            "capacity": worker.pool.capacity,
            "mean": _rounded(worker.pool.mean),
            "peak": worker.pool.peak,
            "end": worker.pool.end,
        },
    }


def _spread_json(spread: Spread) -> dict[str, float | None]:
    """Milliseconds, to the microsecond."""
    return {
        name: None if value is None else round(value * 1000, 3)
        for name, value in (("p50", spread.p50), ("p95", spread.p95), ("p99", spread.p99))
    }


def _rate(count: float, duration: Seconds) -> float | None:
    return count / duration if duration > 0 else None


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(value, digits)
