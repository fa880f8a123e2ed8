"""The plan as one picture: what a stream gets against what all get together, and the memory of each die."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from diplex_cli.plan.figures import GB, GIB, counted, short
from diplex_cli.plan.memory import CALLED, device
from diplex_cli.plan.opening import title
from diplex_core.model.memory import WEIGHTS
from diplex_core.plan.frontier import Curve
from diplex_core.plan.page import Column, Page
from diplex_core.plan.prediction import Prediction
from diplex_core.words import Pattern

# Told apart by colour-blind readers too (Okabe and Ito, 2008), and by their marks. C's limit is A's where
# both dies serve one device: so A's line is the broad one, and C's lies on it.
_LOOKS: Final = {
    Pattern.A: ("#0072B2", "o", 5.0),
    Pattern.B: ("#E69F00", "s", 1.8),
    Pattern.C: ("#009E73", "^", 1.8),
    Pattern.D: ("#CC79A7", "D", 1.8),
    Pattern.A_EAGLE: ("#D55E00", "v", 1.8),
}
_AROUND: Final = ("#6b6b6b", "#8f8f8f", "#b0b0b0", "#cccccc")
_WEIGHTS: Final = ("#173f5f", "#20639b", "#4a8cc2", "#86b6de", "#b9d6ee", "#dceaf6", "#8561a8")
_ASKED, _FREE, _BEYOND = "#2a9d76", "#d3efe4", "#D00000"
_QUIET: Final = "#444444"
_LEADER: Final = {"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.7, "relpos": (0, 0.5)}
_WIDTH: Final = 0.24
# Shares of the tallest column: between two labels, and of what does not fit as much as is drawn.
_APART: Final = 0.034
_SHOWN_BEYOND: Final = 0.2
_REPEATABLE: Final[dict[Any, Any]] = {"svg.hashsalt": "diplex plan", "svg.fonttype": "path"}


@dataclass(frozen=True, slots=True)
class _Piece:
    """What lies in a column: its label, bytes and colour."""

    label: str
    size: int
    colour: str


def draw(page: Page, file: Path) -> None:
    """Write the picture; its kind goes by the file's ending."""
    with rc_context(_REPEATABLE):
        figure = Figure(figsize=(15 if len(page.columns) == 1 else 18, 8), layout="constrained")
        figure.suptitle(f"{title(page)}\n{counted(page.batch, 'sequence')} × {page.context:,} tokens "
                        f"{'fit' if page.fits else 'DO NOT FIT'}", fontsize=12)  # fmt: skip
        left, right = figure.subplots(1, 2, width_ratios=(1.5, 1.0 if len(page.columns) == 1 else 1.8))
        _frontier(left, page)
        _memory(right, page)
        figure.savefig(file, dpi=110, metadata={"Date": None} if file.suffix.lower() == ".svg" else None)


def _frontier(panel: Axes, page: Page) -> None:
    """Each pattern's line over the batch: dashed and open as the chapter has it, solid as the limit is."""
    panel.set(
        title=f"Frontier at {short(page.context)} context: one stream against all together, by batch",
        xlabel="tok/s a stream",
        ylabel="tok/s together",
        xscale="log",
        yscale="log",
    )
    for curve in page.curves:
        colour, mark, width = _LOOKS[curve.pattern]
        panel.plot(
            *_xy(_points(curve, "limit")), color=colour, marker=mark, markersize=5 + width, linewidth=width,
            alpha=0.6 if width > 2 else 1.0,
        )  # fmt: skip
        panel.plot(
            *_xy(_points(curve, "chapter")), color=colour, marker=mark, markersize=6, linewidth=1.1,
            linestyle="--", markerfacecolor="white",
        )  # fmt: skip
    _name_batches(panel, page)
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(FuncFormatter(_plainly))
        axis.set_minor_formatter(FuncFormatter(lambda value, _: _plainly(value) if _told(value) else ""))
    panel.grid(which="both", color="#dddddd", linewidth=0.6)
    _plain(panel)
    panel.legend(handles=list(_legend(page)), fontsize=9, loc="best")


def _name_batches(panel: Axes, page: Page) -> None:
    """The batch beside each point of the limit of what is planned, and a ring around the load asked for."""
    for curve in page.curves:
        if curve.pattern is page.deployment.pattern:
            for point in curve.points:
                at = point.predictions.limit
                panel.annotate(
                    f"{point.batch:,}", (at.tok_s_stream, at.tok_s_aggregate), xytext=(8, 6),
                    textcoords="offset points", fontsize=8, color=_QUIET,
                )  # fmt: skip
    three = page.predictions
    for one in (three.chapter, three.limit) if three else ():
        if one is not None:
            panel.plot(one.tok_s_stream, one.tok_s_aggregate, "o", markersize=17, markerfacecolor="none",
                       markeredgecolor="black", markeredgewidth=1.2)  # fmt: skip


def _legend(page: Page) -> Iterator[Line2D]:
    for curve in page.curves:
        colour, mark, width = _LOOKS[curve.pattern]
        yield Line2D([], [], color=colour, marker=mark, linewidth=width, label=f"pattern {curve.pattern}")
    yield Line2D([], [], color=_QUIET, linewidth=1.8, marker="o", label="limit: no engine can do better")
    if any(_points(curve, "chapter") for curve in page.curves):
        yield Line2D(
            [], [], color=_QUIET, linewidth=1.1, linestyle="--", marker="o", markerfacecolor="white",
            label=f"{page.calibration or 'chapter'}: claimed, not measured",
        )  # fmt: skip
    if page.predictions is not None:
        yield Line2D(
            [], [], linestyle="", marker="o", markersize=12, markerfacecolor="none", markeredgecolor="black",
            label=f"batch {page.at:,}, pattern {page.deployment.pattern}",
        )  # fmt: skip


def _points(curve: Curve, column: str) -> list[Prediction]:
    found = (getattr(point.predictions, column) for point in curve.points)
    return [one for one in found if one is not None]


def _xy(points: list[Prediction]) -> tuple[list[float], list[float]]:
    return [one.tok_s_stream for one in points], [one.tok_s_aggregate for one in points]


def _memory(panel: Axes, page: Page) -> None:
    """A bar for each device, GB at the left and GiB at the right; what does not fit stands above it."""
    panel.set(title="Memory", ylabel="GB")
    tallest = max(column.memory for column in page.columns) * (1 if page.fits else 1 + _SHOWN_BEYOND)
    for at, column in enumerate(page.columns):
        pieces, bottom, labels = list(_pieces(page, column)), 0, []
        for piece in pieces:
            panel.bar(at, piece.size / GB, bottom=bottom / GB, width=_WIDTH, color=piece.colour,
                      edgecolor="white", linewidth=0.5)  # fmt: skip
            labels.append((bottom + piece.size / 2, _sized(piece.label, piece.size)))
            bottom += piece.size
        if not page.fits:
            panel.bar(at, tallest / GB - bottom / GB, bottom=bottom / GB, width=_WIDTH, color="white",
                      edgecolor=_BEYOND, hatch="//")  # fmt: skip
            labels.append(((bottom + tallest) / 2, f"too many: {(column.asked - column.pool) / GB:,.1f} GB"))
        _label(panel, at, labels, _APART * tallest)
        panel.plot([at - 0.15, at + 0.15], [column.memory / GB] * 2, color="black", linewidth=1.6)
    panel.set_xticks(
        range(len(page.columns)), [_sized(_device(page, one), one.memory) for one in page.columns]
    )
    panel.set_xlim(-0.25, len(page.columns) - 0.2)
    panel.set_ylim(-0.01 * tallest / GB, 1.02 * tallest / GB)
    panel.secondary_yaxis("right", functions=(_gib_of_gb, _gb_of_gib)).set_ylabel("GiB")
    _plain(panel)


def _pieces(page: Page, column: Column) -> Iterator[_Piece]:
    """From below."""
    around, weights = iter(_AROUND), iter(_WEIGHTS)
    for group in column.groups:
        if group.bytes:
            colour = next(weights) if group.name in WEIGHTS else next(around)
            yield _Piece(CALLED.get(group.name, group.name), group.bytes, colour)
    if not page.fits:
        yield _Piece("KV pool", column.pool, _ASKED)
        return
    each = ceil(page.batch / page.deployment.engines)
    yield _Piece(f"KV, {each:,} × {short(page.context)}", column.asked, _ASKED)
    yield _Piece("KV, free", column.pool - column.asked, _FREE)


def _label(panel: Axes, at: float, labels: list[tuple[float, str]], apart: float) -> None:
    """Words beside the pieces, each as near to its own as its neighbours let it be."""
    lowest = 0.0
    for middle, words in labels:
        place = max(middle, lowest)
        lowest = place + apart
        panel.annotate(
            words, (at + _WIDTH / 2, middle / GB), xytext=(at + _WIDTH / 2 + 0.06, place / GB), va="center",
            fontsize=8.5, color=_QUIET, arrowprops=_LEADER,
        )  # fmt: skip


def _sized(words: str, size: int) -> str:
    return f"{words}: {size / GB:,.1f} GB, {size / GIB:,.1f} GiB"


def _device(page: Page, column: Column) -> str:
    return page.deployment.gpu.title if column.die is None else device(page, column)


def _plainly(value: float, _: object = None) -> str:
    return f"{value:,.10g}"


def _told(value: float) -> bool:
    """Of the values between powers of ten, those that have room for their figure."""
    return f"{value:e}"[0] in "235"


def _plain(panel: Axes) -> None:
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _gib_of_gb(gb: Any) -> Any:
    """For numbers and arrays alike."""
    return gb * GB / GIB


def _gb_of_gib(gib: Any) -> Any:
    return gib * GIB / GB
