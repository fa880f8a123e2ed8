"""A simulated load as one picture: `replay`'s panels, and below them every pool's KV blocks over time.

A dozen pools have a strip each; more of them a row of a heat map, and a band from the emptiest to the fullest
for each pattern. Faults are marked wherever time runs to the right.
"""

from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any, Final, assert_never

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from diplex_cli.replay import panels
from diplex_cli.simulate.session import Simulated
from diplex_core.report import WorkerFigures
from diplex_core.sim.faults import Cut, Drain, Fault, Kill, Slow
from diplex_core.words import Seconds

_MOST_STRIPS: Final = 12
_MOST_FAULTS_NAMED: Final = 24
_THICK: Final = 40
_MOMENTS: Final = 512
_FAULT: Final = "#B00020"
_MOMENT: Final[Any] = {"color": _FAULT, "linestyle": "--", "linewidth": 0.9}

Shares = NDArray[np.float64]


def draw(done: Simulated, file: Path) -> None:
    """Write the picture; its kind goes by the file's ending."""
    shares = _Shares(done)
    few = len(shares.names) <= _MOST_STRIPS
    lowest = max(2.4, 0.72 * len(shares.names) + 0.9) if few else 4.8
    figure = Figure(figsize=(13, 9 + lowest), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(9, lowest))
    above, below = parts
    above.suptitle(_title(done), fontsize=11)
    grid = above.subplots(2, 2)
    _waits(grid[0], done)
    _in_use(grid[1][0], shares)
    seen = done.seen
    panels.requests(grid[1][1], seen.looks.points, seen.fine.points, seen.not_fine.points)
    panels.dress(grid.flat)
    for panel in grid[1]:
        panel.set_xlim(0, shares.end)
        for fault in done.faults:
            panel.axvline(fault.at, **_MOMENT)
    if few:
        _strips(below, shares, done.faults)
    else:
        _heat(below, shares, done.faults)
    figure.savefig(file, dpi=110, metadata={"Date": None} if file.suffix.lower() == ".svg" else None)


class _Shares:
    """What share of each pool was in use, in percent: a row a worker, a column a moment.

    Workers of one pattern stand together, and among them the fullest first.
    """

    def __init__(self, done: Simulated) -> None:
        workers = {name: one for name, one in done.report.workers.items() if done.timelines.get(name)}
        self.end: Seconds = max(
            [1e-9, *(line[-1][0] for name, line in done.timelines.items() if name in workers)]
        )
        self.moments = np.linspace(0.0, self.end, _MOMENTS)
        rows = {name: self._row(done.timelines[name], worker) for name, worker in workers.items()}
        order = sorted(rows, key=lambda name: (workers[name].pattern, -float(rows[name].mean())))
        self.workers = {name: workers[name] for name in order}
        self.rows: Shares = np.array([rows[name] for name in order]).reshape(len(order), _MOMENTS)

    @property
    def names(self) -> list[str]:
        return list(self.workers)

    @property
    def patterns(self) -> dict[str, list[int]]:
        """Rows of each pattern."""
        found: dict[str, list[int]] = {}
        for row, worker in enumerate(self.workers.values()):
            found.setdefault(worker.pattern, []).append(row)
        return found

    @property
    def top(self) -> float:
        """The most that is shown: a little above the peak, or the whole pool where that is near."""
        most = float(self.rows.max()) if self.rows.size else 0.0
        return 100.0 if most > 60 else max(1.0, 1.1 * most)

    def _row(self, line: Sequence[tuple[Seconds, int]], worker: WorkerFigures) -> Shares:
        at = np.array([moment for moment, _ in line])
        blocks = np.array([held for _, held in line], dtype=np.float64)
        found: Shares = blocks[np.searchsorted(at, self.moments, side="right") - 1]
        return 100 * found / max(1, worker.pool.capacity)


def _title(done: Simulated) -> str:
    run = done.report.run
    rate = f"{run['requests_per_s']:,.4g}/s" if run["requests_per_s"] else "all at once"
    parts = [
        f"{run['trace']}, {run['requests_sent']:,} requests",
        f"load {run['load']:g} ({rate})" if run["load"] is not None else rate,
        f"{run['packages']:,} packages",
        done.model,
        panels.engines(done.report),
    ]
    return " · ".join([*parts, "INTERRUPTED"] if run["interrupted"] else parts)


def _waits(row: Sequence[Axes], done: Simulated) -> None:
    tallies = done.collected.tiers
    panels.against_prompts(
        row[0],
        {name: waits.points for name, waits in done.seen.waits.items()},
        {name: tally.completed for name, tally in tallies.items()},
        done.tiers,
        done.model,
    )
    panels.cumulative(
        row[1],
        {name: sorted(tally.ttft) for name, tally in tallies.items()},
        {name: tally.requests for name, tally in tallies.items()},
    )


def _in_use(panel: Axes, shares: _Shares) -> None:
    """Each pattern's pools: their median, and from the emptiest to the fullest."""
    panel.set(title="KV blocks in use", xlabel="seconds", ylabel="% of the pool", ylim=(0, shares.top))
    for (pattern, rows), colour in zip(shares.patterns.items(), panels.COLOURS, strict=False):
        own = shares.rows[rows]
        many = f"{len(rows):,} pools: median, least to most" if len(rows) > 1 else shares.names[rows[0]]
        panel.fill_between(shares.moments, own.min(axis=0), own.max(axis=0), step="post", color=colour,
                           alpha=0.22, linewidth=0)  # fmt: skip
        panel.step(shares.moments, np.median(own, axis=0), where="post", color=colour, linewidth=1.3,
                   label=f"pattern {pattern}, {many}")  # fmt: skip
    if shares.names:
        panel.legend(fontsize=8)


def _strips(below: SubFigure, shares: _Shares, faults: Sequence[Fault]) -> None:
    """A strip for each pool, all to one scale; shaded while something is wrong there."""
    below.suptitle(_above(shares, "KV blocks in use, pool by pool, % of the pool"), fontsize=10)
    if not shares.names:
        return
    strips: list[Axes] = list(np.atleast_1d(below.subplots(len(shares.names), 1, sharex=True)))
    colours = panels.colours(shares.patterns)
    for strip, row, (name, worker) in zip(strips, shares.rows, shares.workers.items(), strict=True):
        colour, pool = colours[worker.pattern], worker.pool
        strip.fill_between(shares.moments, row, step="post", color=colour, alpha=0.45, linewidth=0)
        strip.step(shares.moments, row, where="post", color=colour, linewidth=0.9)
        strip.set_ylim(0, shares.top)
        strip.set_yticks([0, float(f"{0.8 * shares.top:.1g}")])
        said = f"{name}, pattern {worker.pattern}\npeak {pool.peak:,}\nof {pool.capacity:,} blocks"
        strip.set_ylabel(said, rotation=0, ha="right", va="center", fontsize=7.5)
        strip.tick_params(labelsize=7)
        for fault in faults:
            if _hits(fault, name):
                strip.axvline(fault.at, **_MOMENT)
                strip.axvspan(fault.at, min(_until(fault), shares.end), color=_FAULT, alpha=0.1, linewidth=0)
                _name(strip, fault, fault.at, 0.96, "axes fraction")
    panels.dress(strips)
    strips[-1].set_xlim(0, shares.end)
    strips[-1].set_xlabel("seconds")


def _heat(below: SubFigure, shares: _Shares, faults: Sequence[Fault]) -> None:
    """A row for each pool, dark where it is full; framed while something is wrong there."""
    panel: Axes = below.subplots()
    rows = len(shares.names)
    panel.set_title(_above(shares, f"KV blocks in use, a row for each of {rows:,} pools"), fontsize=10)
    panel.set(xlabel="seconds")
    image = panel.imshow(
        shares.rows, aspect="auto", interpolation="nearest" if rows < 200 else "antialiased", cmap="YlGnBu",
        extent=(0.0, shares.end, rows, 0.0), vmin=0.0, vmax=shares.top,
    )  # fmt: skip
    below.colorbar(image, ax=panel, pad=0.01, label="% of the pool")
    ticks, labels = [], []
    for pattern, own in shares.patterns.items():
        if own[0]:
            panel.axhline(own[0], color="white", linewidth=2.5)
            panel.axhline(own[0], color="#444444", linewidth=0.8)
        ticks.append((own[0] + own[-1] + 1) / 2)
        labels.append(f"pattern {pattern}\n{len(own):,} pools,\nfullest on top")
    panel.set_yticks(ticks, labels)
    panel.tick_params(axis="y", length=0)
    panel.spines[:].set_visible(False)
    for fault in faults[:_MOST_FAULTS_NAMED]:
        for row, name in enumerate(shares.names):
            if _hits(fault, name):
                width = min(_until(fault), shares.end) - fault.at
                frame = Rectangle((fault.at, row), width, 1, fill=False, edgecolor=_FAULT, linewidth=1.3)
                panel.add_patch(frame)
                # A thin row has its name before it, not over it.
                _name(panel, fault, fault.at, row + 0.5, "data", before=rows > _THICK)


def _name(panel: Axes, fault: Fault, at: Seconds, height: float, unit: str, *, before: bool = False) -> None:
    """What went wrong, legible on any ground."""
    said = f"{type(fault).__name__.lower()} {fault.worker}"
    if isinstance(fault, Slow):
        said += f", {fault.factor:g} times"
    panel.annotate(
        said, (at, height), xytext=(-4 if before else 3, 0), xycoords=("data", unit),
        textcoords="offset points", fontsize=7.5, color=_FAULT, ha="right" if before else "left",
        va="top" if unit != "data" else "center",
        bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.6},
    )  # fmt: skip


def _above(shares: _Shares, what: str) -> str:
    calibrations = sorted({worker.calibration or "unnamed" for worker in shares.workers.values()})
    return f"{what} (simulated, calibration {', '.join(calibrations)})"


def _hits(fault: Fault, worker: str) -> bool:
    """Whether the fault names the worker, or its package."""
    return worker == fault.worker or worker.startswith(f"{fault.worker}.")


def _until(fault: Fault) -> Seconds:
    """When it is over."""
    match fault:
        case Kill():
            return fault.at + (inf if fault.back_after is None else fault.back_after)
        case Cut() | Slow():
            return fault.at + fault.for_
        case Drain():
            return inf
        case _:
            assert_never(fault)
