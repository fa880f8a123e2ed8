"""The report as people read it, at most 100 columns wide."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap
from typing import Final

from diplex_core.report.report import Report, TierFigures, WorkerFigures

WIDTH: Final = 100
NONE: Final = "-"
_LONGEST_NAME: Final = 18
_MOST_WORKERS: Final = 24
_LEAST_ROOM: Final = 20
_BELOW: Final = 4
_GLUE: Final = "\u00a0"  # a space at which no line is folded


def text(report: Report) -> str:
    """What was run and whether any of it was simulated, then tiers, workers, tenants and the ledger."""
    parts = [
        _opening(report),
        _counts(report.tiers),
        _latencies(report),
        _workers(report.workers),
        _tenants(report),
        _totals(report),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _opening(report: Report) -> list[str]:
    return [line for said in (_engines(report), *report.notes) for line in _folded(said)]


def _engines(report: Report) -> str:
    """Before any figure: whether a simulation made it, and by which calibration."""
    workers = len(report.workers)
    if not report.simulated:
        return f"real engines ({', '.join(sorted({w.engine for w in report.workers.values()})) or 'none'})"
    calibrations = ", ".join(report.calibrations)
    if report.simulated == workers:
        return f"SIMULATED: every engine is, calibration {calibrations}; no GPU made these figures"
    return f"PARTLY SIMULATED: {report.simulated} of {workers} engines are, calibration {calibrations}"


def _counts(tiers: Mapping[str, TierFigures]) -> list[str]:
    rows: list[tuple[str, ...]] = [
        ("tier", "requests", "completed", "rejected", "degraded", "failed", "attained", "goodput", "output")
    ]
    for name, tier in tiers.items():
        rows.append(
            (
                name,
                *(
                    f"{count:,}"
                    for count in (tier.requests, tier.completed, tier.rejected, tier.degraded, tier.failed)
                ),
                percent(tier.attainment),
                _number(tier.goodput, 2, "/s"),
                f"{tier.output_tokens:,} tok",
            )
        )
    lines = table(rows)
    retries = [
        f"{name}: {tier.retry_given:,} refusals named a time to retry; {tier.retry_obeyed:,} were sent again "
        f"then, {tier.retry_succeeded:,} completed"
        for name, tier in tiers.items()
        if tier.retry_given
    ]
    return lines + [line for said in retries for line in _folded(said)]


def _latencies(report: Report) -> list[str]:
    rows: list[tuple[str, ...]] = [
        ("", "TTFT", "", "", "TPOT", "", "gap", "E2E", "queue", "targets (p95)"),
        ("ms", "p50", "p95", "p99", "p50", "p95", "p95", "p95", "p95", ""),
    ]
    for name, tier in report.tiers.items():
        rows.append(
            (
                name,
                *(_ms(value) for value in (tier.ttft.p50, tier.ttft.p95, tier.ttft.p99)),
                *(_ms(value) for value in (tier.tpot.p50, tier.tpot.p95)),
                _ms(tier.longest_gap.p95),
                _ms(tier.e2e.p95),
                _ms(tier.queue.p95),
                report.targets.get(name, "") or "none",
            )
        )
    return table(rows, left=(0, 9))


def _workers(workers: Mapping[str, WorkerFigures]) -> list[str]:
    if len(workers) > _MOST_WORKERS:
        return _kinds(workers)
    rows = [
        ("", "", "", "KV blocks", "", "", "", "", ""),
        ("worker", "pattern", "engine", "capacity", "mean", "peak", "end", "requests", "by tier"),
    ]
    for name, worker in workers.items():
        pool = worker.pool
        rows.append(
            (
                name,
                worker.pattern,
                _engine(worker),
                f"{pool.capacity:,}",
                _number(pool.mean, 0),
                f"{pool.peak:,}" + (f" {pool.peak / pool.capacity:.0%}" if pool.capacity else ""),
                f"{pool.end:,}",
                f"{worker.requests:,}",
                _by_tier(worker.requests_by_tier),
            )
        )
    return table(rows, left=(0, 1, 2, 8))


def _kinds(workers: Mapping[str, WorkerFigures]) -> list[str]:
    """A fleet too large for a row a worker: a row for those that are alike. Each one's figures are in the
    JSON."""
    alike: dict[tuple[str, str, int], list[WorkerFigures]] = {}
    for worker in workers.values():
        alike.setdefault((worker.pattern, _engine(worker), worker.pool.capacity), []).append(worker)
    rows: list[tuple[str, ...]] = [
        ("", "", "", "KV blocks", "of one", "", "", "requests", ""),
        ("workers", "pattern", "engine", "capacity", "mean", "peak", "end", "of one", "by tier"),
    ]
    for (pattern, engine, capacity), group in alike.items():
        means = [one.pool.mean for one in group if one.pool.mean is not None]
        peak = max(one.pool.peak for one in group)
        served: Counter[str] = Counter()
        for one in group:
            served.update(one.requests_by_tier)
        counts = [one.requests for one in group]
        rows.append(
            (
                f"{len(group):,}",
                pattern,
                engine,
                f"{capacity:,}",
                _number(sum(means) / len(means) if means else None, 0),
                f"{peak:,}" + (f" {peak / capacity:.0%}" if capacity else ""),
                f"{max(one.pool.end for one in group):,}",
                f"{min(counts):,} to {max(counts):,}",
                _by_tier(dict(sorted(served.items()))),
            )
        )
    return table(rows, left=(0, 1, 2, 8))


def _engine(worker: WorkerFigures) -> str:
    return f"{worker.engine} ({worker.calibration or 'unnamed'})" if worker.simulated else worker.engine


def _by_tier(requests: Mapping[str, int]) -> str:
    return ", ".join(f"{tier}{_GLUE}{count:,}" for tier, count in requests.items())


def _tenants(report: Report) -> list[str]:
    if len(report.tenants) < 2:
        return []
    rows = [("tenant", "requests", "output")]
    rows += [
        (name, f"{requests:,}", f"{tokens:,} tok") for name, (requests, tokens) in report.tenants.items()
    ]
    return [*table(rows), f"fairness (Jain) {_number(report.fairness, 3)}"]


def _totals(report: Report) -> list[str]:
    ledger = report.ledger
    saved = report.cached_tokens / report.prompt_tokens if report.prompt_tokens else None
    said = [
        f"total   {report.duration:,.1f} s · {_number(report.output_rate, 1)} output tok/s · "
        f"goodput {_number(report.goodput, 2, '/s')}",
        f"prefix  {report.prompt_tokens:,} prompt tokens · {report.cached_tokens:,} of them "
        f"({percent(saved)}) were resident and not read again",
        f"ledger  leases opened {ledger.leases_opened:,}, closed {ledger.leases_closed:,} · "
        f"blocks held at the end {ledger.blocks_reserved_end:,} · preempted {ledger.preempted:,} · "
        f"refused by a worker {ledger.refused_by_worker:,} · most drift {ledger.drift_max:,} blocks · "
        f"over capacity {ledger.over_capacity:,}",
    ]
    said += [f"ledger  NOT AS IT MUST BE: {wrong}" for wrong in ledger.wrong]
    said += [
        f"{count:,} {problem}" + (f"; the first: {detail}" if (detail := report.details[problem]) else "")
        for problem, count in report.problems.items()
    ]
    return [line for one in said for line in _folded(one, indent=8)]


def table(rows: Sequence[tuple[str, ...]], left: Iterable[int] = (0,)) -> list[str]:
    """Columns two spaces apart; those in `left` begin at the left, others end at the right.

    A last column that begins at the left is folded to what is left of the width; where that is next to
    nothing, it goes below its row.
    """
    begins_left = set(left)
    rows = [(cut(row[0], _LONGEST_NAME), *row[1:]) for row in rows]
    last = len(rows[0]) - 1
    widths = [max(len(row[number]) for row in rows) for number in range(last + 1)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if number in begins_left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        if last not in begins_left:
            lines.append("  ".join(cells).rstrip())
            continue
        start = "  ".join(cells[:last]) + "  "
        if WIDTH - len(start) < min(_LEAST_ROOM, widths[last]):
            lines.append(start.rstrip())
            start = " " * _BELOW
            if not row[last]:
                continue
        for piece in wrap(row[last], WIDTH - len(start)) or [""]:
            lines.append((start + piece).replace(_GLUE, " ").rstrip())
            start = " " * len(start)
    return lines


def cut(name: str, most: int) -> str:
    """A name that is too long for its column, with its end kept: that is where names differ."""
    return name if len(name) <= most else "…" + name[-(most - 1) :]


def percent(share: float | None) -> str:
    """Rounded down where it would else seem whole: 99.96 % is not all of them."""
    if share is None:
        return NONE
    shown = f"{share * 100:.1f}"
    return f"{'99.9' if share < 1 and shown == '100.0' else shown} %"


def _ms(seconds: float | None) -> str:
    """Milliseconds, three digits of which matter."""
    if seconds is None:
        return NONE
    value = seconds * 1000
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _number(value: float | None, digits: int, unit: str = "") -> str:
    return NONE if value is None else f"{value:,.{digits}f}{unit and ' ' + unit}"


def _folded(line: str, indent: int = 2) -> list[str]:
    return wrap(line, WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
