"""A load as one picture: each tier's waits against its target, and what the fleet did meanwhile."""

from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diplex_cli.replay import panels
from diplex_cli.replay.session import Replayed
from diplex_core.report import Outcome

_MOST_IN_A_LEGEND: Final = 8


def draw(done: Replayed, file: Path) -> None:
    """Write the picture; its kind goes by the file's ending."""
    figure = Figure(figsize=(13, 9), layout="constrained")
    figure.suptitle(_title(done), fontsize=11)
    grid = figure.subplots(2, 2)
    completed = {name: _completed(done, name) for name in done.tiers}
    panels.against_prompts(
        grid[0][0],
        {name: [(one.prompt_tokens, one.ttft or 0.0) for one in seen] for name, seen in completed.items()},
        {name: len(seen) for name, seen in completed.items()},
        done.tiers,
        done.model,
    )
    panels.cumulative(
        grid[0][1],
        {name: sorted(one.ttft or 0.0 for one in seen) for name, seen in completed.items()},
        {name: sum(one.tier == name for one in done.outcomes) for name in done.tiers},
    )
    _blocks(grid[1][0], done)
    panels.requests(
        grid[1][1],
        [(one.at, one.running, one.waiting) for one in done.samples],
        [one.arrived for one in done.outcomes if one.completed],
        [one.arrived for one in done.outcomes if not one.completed],
    )
    panels.dress(grid.flat)
    figure.savefig(file, dpi=110)


def _title(done: Replayed) -> str:
    run = done.report.run
    parts = [
        f"{run['trace']}, {run['requests_sent']:,} requests",
        f"speed {run['speed']:g}",
        done.model,
        panels.engines(done.report),
    ]
    return " · ".join([*parts, "INTERRUPTED"] if run["interrupted"] else parts)


def _blocks(panel: Axes, done: Replayed) -> None:
    """KV blocks in use on each worker, as a share of its pool."""
    panel.set(title="KV blocks in use", xlabel="seconds", ylabel="% of the pool")
    workers = done.report.workers
    for name, colour in panels.colours(list(workers)[:_MOST_IN_A_LEGEND]).items():
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


def _completed(done: Replayed, tier: str) -> list[Outcome]:
    return [one for one in done.outcomes if one.tier == tier and one.completed]
