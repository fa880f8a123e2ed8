"""Panels of a load's picture, each from plain figures: whoever has these may draw them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from diplex_core.report import Report
from diplex_core.words import Seconds, Tier, Tokens

# Told apart by colour-blind readers too (Okabe and Ito, 2008).
COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
RUNNING: Final = COLOURS[0]
WAITING: Final = COLOURS[1]
_MISSED: Final = "#D00000"
_STEPS: Final = 2000
"""Steps of a curve beyond which nobody sees another one."""


def colours(names: Iterable[str]) -> dict[str, str]:
    return {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}


def engines(report: Report) -> str:
    """Whether they were simulated, and by which calibration: part of every title."""
    if not report.simulated:
        return "real engines"
    said = f"SIMULATED, calibration {', '.join(report.calibrations)}"
    if report.simulated < len(report.workers):
        return f"{report.simulated} of {len(report.workers)} engines {said}"
    return said


def dress(panels: Iterable[Axes]) -> None:
    """The same grid, frame and numbers for all."""
    for panel in panels:
        for axis in (panel.xaxis, panel.yaxis):
            if axis.get_scale() == "log":
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        panel.grid(color="#dddddd", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)


def against_prompts(
    panel: Axes,
    waits: Mapping[str, Sequence[tuple[Tokens, Seconds]]],
    completed: Mapping[str, int],
    tiers: Mapping[str, Tier],
    model: str,
) -> None:
    """Each request's TTFT over the length of its prompt, and the target that it had.

    Args:
        waits: of completed requests, by tier; not more than can be told apart. `completed`: how many all are.
    """
    panel.set(title="TTFT by length of prompt", xlabel="prompt tokens", ylabel="TTFT, ms", yscale="log")
    panel.xaxis.set_major_formatter("{x:,.0f}")
    longest = max((prompt for seen in waits.values() for prompt, _ in seen), default=1)
    for name, colour in colours(tiers).items():
        seen = [(prompt, ttft) for prompt, ttft in waits.get(name, ()) if ttft]
        shown = f"{len(seen):,} of " if len(seen) < completed[name] else ""
        panel.scatter(
            [prompt for prompt, _ in seen],
            [1000 * ttft for _, ttft in seen],
            s=9, color=colour, alpha=0.55, linewidths=0, label=f"{name} ({shown}{completed[name]:,})",
        )  # fmt: skip
        target = tiers[name].promise_for(model).ttft_p95
        if target is not None:
            ends = [longest * step / 50 for step in range(51)]
            panel.plot(ends, [1000 * target.at(int(end)) for end in ends], color=colour, linestyle="--",
                       linewidth=1.2, label=f"{name}: target")  # fmt: skip
    panel.legend(fontsize=8, framealpha=0.9)


def cumulative(panel: Axes, waits: Mapping[str, Sequence[Seconds]], arrived: Mapping[str, int]) -> None:
    """Which share of those that arrived had their first token after how long: what never came, never ends
    at 100 %.

    Args:
        waits: TTFT of each completed request, smallest first, by tier.
    """
    panel.set(title="First token seen, of all that arrived", xlabel="TTFT, ms", ylabel="share of requests, %",
              xscale="log", ylim=(0, 102))  # fmt: skip
    for name, colour in colours(waits).items():
        seen = [1000 * wait for wait in waits[name] if wait]
        ranks = _ranks(len(seen))
        shares = [100 * rank / arrived[name] for rank in ranks]
        label = f"{name} ({len(seen):,} of {arrived[name]:,})"
        panel.step([seen[rank - 1] for rank in ranks], shares, where="post", color=colour, label=label)
    panel.axhline(95, color="#888888", linestyle=":", linewidth=1)
    panel.annotate("95 %", (0.005, 95), xycoords=("axes fraction", "data"), fontsize=8, va="bottom")
    panel.legend(fontsize=8, loc="lower right")


def requests(
    panel: Axes,
    looks: Sequence[tuple[Seconds, int, int]],
    fine: Sequence[Seconds],
    not_fine: Sequence[Seconds],
) -> None:
    """Requests that run and wait; below them, when they came, and which came to nothing.

    Args:
        looks: at the router: when, and how many ran and waited.
        fine, not_fine: when those arrived that completed, and those that did not.
    """
    panel.set(title="Requests", xlabel="seconds", ylabel="at the router")
    at = [look[0] for look in looks]
    panel.step(at, [look[1] for look in looks], where="post", color=RUNNING, label="running")
    panel.step(at, [look[2] for look in looks], where="post", color=WAITING, label="waiting")
    panel.set_xlim(left=0)
    top = max([1, *(max(look[1], look[2]) for look in looks)])
    panel.set_ylim(-0.14 * top, 1.05 * top)
    # Below nought only the marks of arrivals stand.
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}" if value >= 0 else ""))
    panel.plot(fine, [-0.05 * top] * len(fine), "|", color="#555555", markersize=6, alpha=0.6)
    panel.plot(not_fine, [-0.10 * top] * len(not_fine), "|", color=_MISSED, markersize=6)
    handles, _ = panel.get_legend_handles_labels()
    marks = [("arrived, completed", "#555555"), ("arrived, rejected or failed", _MISSED)]
    handles += [Line2D([], [], marker="|", linestyle="", color=colour, label=what) for what, colour in marks]
    panel.legend(handles=handles, fontsize=8)


def _ranks(count: int) -> Sequence[int]:
    """From 1 to the last, as many as can be seen."""
    if count <= _STEPS:
        return range(1, count + 1)
    return [1 + step * (count - 1) // (_STEPS - 1) for step in range(_STEPS)]
