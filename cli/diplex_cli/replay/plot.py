"""A load as one picture: each tier's waits against its target, and what the fleet did meanwhile."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from diplex_cli.replay.session import Replayed
from diplex_core.report import Outcome

# Told apart by colour-blind readers too (Okabe and Ito, 2008).
_COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
_GRID: Final = {"color": "#dddddd", "linewidth": 0.6}
_MISSED: Final = "#D00000"
_MOST_IN_A_LEGEND: Final = 8


def draw(done: Replayed, file: Path) -> None:
    """Write the picture; its kind goes by the file's ending."""
    figure = Figure(figsize=(13, 9), layout="constrained")
    figure.suptitle(_title(done), fontsize=11)
    panels = figure.subplots(2, 2)
    _against_prompts(panels[0][0], done)
    _cumulative(panels[0][1], done)
    _blocks(panels[1][0], done)
    _requests(panels[1][1], done)
    for panel in panels.flat:
        for axis in (panel.xaxis, panel.yaxis):
            if axis.get_scale() == "log":
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        panel.grid(**_GRID)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)


def _title(done: Replayed) -> str:
    report = done.report
    run = report.run
    if report.simulated:
        engines = f"SIMULATED, calibration {', '.join(report.calibrations)}"
        if report.simulated < len(report.workers):
            engines = f"{report.simulated} of {len(report.workers)} engines {engines}"
    else:
        engines = "real engines"
    parts = [
        f"{run['trace']}, {run['requests_sent']:,} requests",
        f"speed {run['speed']:g}",
        done.model,
        engines,
    ]
    return " · ".join([*parts, "INTERRUPTED"] if run["interrupted"] else parts)


def _colours(names: Sequence[str]) -> dict[str, str]:
    return {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(names)}


def _against_prompts(panel: Axes, done: Replayed) -> None:
    """Each request's TTFT over the length of its prompt, and the target that it had."""
    panel.set(title="TTFT by length of prompt", xlabel="prompt tokens", ylabel="TTFT, ms", yscale="log")
    longest = max((one.prompt_tokens for one in done.outcomes), default=1)
    for name, colour in _colours(list(done.tiers)).items():
        seen = [one for one in _completed(done, name) if one.ttft]
        panel.scatter(
            [one.prompt_tokens for one in seen],
            [1000 * (one.ttft or 0) for one in seen],
            s=9, color=colour, alpha=0.55, linewidths=0, label=f"{name} ({len(seen):,})",
        )  # fmt: skip
        target = done.tiers[name].promise_for(done.model).ttft_p95
        if target is not None:
            ends = [longest * step / 50 for step in range(51)]
            panel.plot(ends, [1000 * target.at(int(end)) for end in ends], color=colour, linestyle="--",
                       linewidth=1.2, label=f"{name}: target")  # fmt: skip
    panel.legend(fontsize=8, framealpha=0.9)


def _cumulative(panel: Axes, done: Replayed) -> None:
    """Which share of those that arrived had their first token after how long: what never came, never ends
    at 100 %."""
    panel.set(title="First token seen, of all that arrived", xlabel="TTFT, ms", ylabel="share of requests, %",
              xscale="log", ylim=(0, 102))  # fmt: skip
    for name, colour in _colours(list(done.tiers)).items():
        arrived = sum(one.tier == name for one in done.outcomes)
        waits = sorted(1000 * one.ttft for one in _completed(done, name) if one.ttft)
        shares = [100 * rank / arrived for rank in range(1, len(waits) + 1)]
        label = f"{name} ({len(waits):,} of {arrived:,})"
        panel.step(waits, shares, where="post", color=colour, label=label)
    panel.axhline(95, color="#888888", linestyle=":", linewidth=1)
    panel.annotate("95 %", (0.005, 95), xycoords=("axes fraction", "data"), fontsize=8, va="bottom")
    panel.legend(fontsize=8, loc="lower right")


def _blocks(panel: Axes, done: Replayed) -> None:
    """KV blocks in use on each worker, as a share of its pool."""
    panel.set(title="KV blocks in use", xlabel="seconds", ylabel="% of the pool")
    workers = done.report.workers
    for name, colour in _colours(list(workers)[:_MOST_IN_A_LEGEND]).items():
        worker = workers[name]
        seen = [(one.at, one.blocks[name]) for one in done.samples if name in one.blocks]
        if worker.pool.capacity:
            panel.step(
                [at for at, _ in seen], [100 * blocks / worker.pool.capacity for _, blocks in seen],
                where="post", color=colour, linewidth=1.1, label=f"{name}, pattern {worker.pattern}",
            )  # fmt: skip
    panel.set_ylim(bottom=0)
    panel.set_xlim(left=0)
    panel.legend(fontsize=8)


def _requests(panel: Axes, done: Replayed) -> None:
    """Requests that run and wait; below them, when they came, and which came to nothing."""
    panel.set(title="Requests", xlabel="seconds", ylabel="at the router")
    at = [one.at for one in done.samples]
    panel.step(at, [one.running for one in done.samples], where="post", color="#0072B2", label="running")
    panel.step(at, [one.waiting for one in done.samples], where="post", color="#E69F00", label="waiting")
    panel.set_xlim(left=0)
    top = max([1, *(max(one.running, one.waiting) for one in done.samples)])
    panel.set_ylim(-0.14 * top, 1.05 * top)
    fine = [one.arrived for one in done.outcomes if one.completed]
    not_fine = [one.arrived for one in done.outcomes if not one.completed]
    panel.plot(fine, [-0.05 * top] * len(fine), "|", color="#555555", markersize=6, alpha=0.6)
    panel.plot(not_fine, [-0.10 * top] * len(not_fine), "|", color=_MISSED, markersize=6)
    handles, _ = panel.get_legend_handles_labels()
    marks = [("arrived, completed", "#555555"), ("arrived, rejected or failed", _MISSED)]
    handles += [Line2D([], [], marker="|", linestyle="", color=colour, label=what) for what, colour in marks]
    panel.legend(handles=handles, fontsize=8)


def _completed(done: Replayed, tier: str) -> list[Outcome]:
    return [one for one in done.outcomes if one.tier == tier and one.completed]
