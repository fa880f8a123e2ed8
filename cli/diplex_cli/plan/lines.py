"""What the page is drawn of: rules, boxes, bars and columns, none wider than a terminal of 100 columns."""

import re
from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import Final

WIDTH: Final = 100
NONE: Final = "-"
_INSIDE: Final = WIDTH - 4
_GLUE: Final = "\u00a0"  # a space at which no line is folded
# A space between a figure and its unit, or on either side of a multiplication.
_IN_A_FIGURE: Final = re.compile(r"(?<=[\d×]) (?=GB|GiB|TB/s|tok/s|tokens|bytes|×|\d)")
_LEFT_HALF, _RIGHT_HALF, _BOTH, _SLIVER, _EMPTY = "▌", "▐", "█", "▏", "·"


def rule(title: str) -> str:
    """A heading: a line over the whole width that begins with its title."""
    return f"── {title} ".ljust(WIDTH, "─")


def box(title: str, rows: Iterable[str]) -> list[str]:
    """Rows in a frame; a row that is empty becomes a line across."""
    inside = [f"│ {row:{_INSIDE}} │" if row else f"├{'─' * (WIDTH - 2)}┤" for row in rows]
    top = f"┌─ {title} ".ljust(WIDTH - 1, "─") + "┐"
    return [top, *inside, f"└{'─' * (WIDTH - 2)}┘"]


def bar(start: float, size: float, whole: float, cells: int) -> str:
    """A piece of a whole, drawn where it lies, to half a cell.

    Pieces that follow each other in what they measure do so in what is drawn, and the last one ends where the
    whole does. What is too small to be seen is a sliver.

    >>> bar(0, 5, 10, 4), bar(5, 2.5, 10, 4), bar(6.25, 2.5, 10, 4), bar(9.9, 0.1, 10, 4)
    ('██', '  █', '  ▐▌', '   ▏')
    """
    halves = 2 * cells
    first, last = round(start * halves / whole), min(halves, round((start + size) * halves / whole))
    if first >= last:
        return " " * min(cells - 1, first // 2) + _SLIVER if size else ""
    drawn = [
        {(True, True): _BOTH, (True, False): _LEFT_HALF, (False, True): _RIGHT_HALF}[
            first <= 2 * cell < last, first <= 2 * cell + 1 < last
        ]
        for cell in range(first // 2, (last + 1) // 2)
    ]
    return " " * (first // 2) + "".join(drawn)


def level(share: float, cells: int) -> str:
    """A share of 0 to 1 as a bar on a dotted ground.

    >>> level(0.5, 6), level(0.0, 4), level(1.2, 4)
    ('███···', '····', '████')
    """
    drawn = bar(0, min(1.0, max(0.0, share)), 1.0, cells)
    return drawn.ljust(cells, _EMPTY)


def hundredths(parts: Sequence[int], unit: float) -> list[float]:
    """Sizes in a unit, to two decimals that add up: their sum is the rounded sum of the parts.

    Each is rounded down; the hundredths that lack then go to those that were cut most (the method of largest
    remainders).

    >>> hundredths([333, 333, 334], 100)
    [3.33, 3.33, 3.34]
    >>> hundredths([1, 1, 1], 150)
    [0.01, 0.01, 0.0]
    """
    step = unit / 100
    down = [int(part / step) for part in parts]
    lacking = round(sum(parts) / step) - sum(down)
    cut_most = sorted(range(len(parts)), key=lambda at: down[at] - parts[at] / step)
    for at in cut_most[:lacking]:
        down[at] += 1
    return [number / 100 for number in down]


def columns(rows: Sequence[Sequence[str]], *, left: Iterable[int] = (0,), gap: int = 2) -> list[str]:
    """Cells under each other: those of the columns in `left` begin at the left, others end at the right.

    A last column that begins at the left is folded to what is left of the width.
    """
    begins_left, last = set(left), len(rows[0]) - 1
    widths = [max(len(row[at]) for row in rows) for at in range(last + 1)]
    lines = []
    for row in rows:
        cells = [f"{cell:{'<' if at in begins_left else '>'}{widths[at]}}" for at, cell in enumerate(row)]
        if last not in begins_left:
            lines.append((" " * gap).join(cells).rstrip())
            continue
        start = "".join(cell + " " * gap for cell in cells[:last])
        for piece in wrap(row[last], WIDTH - len(start)) or [""]:
            lines.append((start + piece).rstrip())
            start = " " * len(start)
    return lines


def folded(words: str, indent: str = "", hang: str | None = None) -> list[str]:
    """A sentence in as many lines as it needs; a figure keeps its unit."""
    lines = wrap(
        _IN_A_FIGURE.sub(_GLUE, words),
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent if hang is None else hang,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_GLUE, " ") for line in lines]
