"""A flame graph from sampled stacks: one SVG without script, small enough to lie in a repository."""

from collections import Counter
from collections.abc import Iterable
from html import escape

WIDTH, ROW, LEAST = 1200.0, 17, 0.004
"""Pixels of the whole, of a row; a frame with a smaller share of all samples than the last is not drawn."""

Counts = Counter[tuple[str, ...]]


def read(text: str) -> Counts:
    """Stacks, outermost first, from lines of `a;b;c 12`."""
    counts: Counts = Counter()
    for line in text.splitlines():
        stack, _, number = line.rpartition(" ")
        if stack:
            counts[tuple(stack.split(";"))] += int(number)
    return counts


def own_time(counts: Counts) -> list[tuple[str, float]]:
    """Functions by the percentage of samples in which they ran themselves, greatest first."""
    own: Counter[str] = Counter()
    for stack, number in counts.items():
        own[_function(stack[-1])] += number
    total = sum(own.values()) or 1
    return [(name, round(100 * number / total, 1)) for name, number in own.most_common()]


def _function(frame: str) -> str:
    """A frame without its line number: `write (diplex_rest/sink.py)`."""
    name, _, place = frame.partition(" (")
    parts = place.rstrip(")").rsplit(":", 1)[0].split("/")
    return f"{name} ({'/'.join(parts[-2:])})" if place else name


def draw(counts: Counts, title: str) -> str:
    """The whole picture."""
    total = sum(counts.values()) or 1
    boxes: list[tuple[int, float, float, str]] = []
    _lay(((tuple(map(_function, stack)), number) for stack, number in counts.items()), 0, 0.0, total, boxes)
    depth = 1 + max((box[0] for box in boxes), default=0)
    height = ROW * (depth + 2)
    rows = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {height}" font-family="monospace" '
        f'font-size="11"><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="6" y="14" font-size="13">{escape(title)} ({total} samples while it ran)</text>'
    ]
    for level, left, share, name in boxes:
        x, width = left / total * WIDTH, share / total * WIDTH
        y = height - ROW * (level + 1)
        shown = escape(name[: int(width / 6.7)]) if width > 30 else ""
        rows.append(
            f"<g><title>{escape(name)}, {100 * share / total:.1f} %</title>"
            f'<rect x="{x:.1f}" y="{y}" width="{max(0.4, width - 0.5):.1f}" height="{ROW - 1}" '
            f'fill="{_colour(name)}"/>'
            + (f'<text x="{x + 3:.1f}" y="{y + 12}">{shown}</text>' if shown else "")
            + "</g>"
        )
    return "\n".join([*rows, "</svg>"]) + "\n"


def _lay(
    stacks: Iterable[tuple[tuple[str, ...], int]],
    level: int,
    left: float,
    total: float,
    boxes: list[tuple[int, float, float, str]],
) -> None:
    """Place each function above its caller, in the order of names, as wide as its share."""
    above: dict[str, list[tuple[tuple[str, ...], int]]] = {}
    for stack, number in stacks:
        if stack:
            above.setdefault(stack[0], []).append((stack[1:], number))
    for name in sorted(above):
        share = sum(number for _, number in above[name])
        if share >= LEAST * total:
            boxes.append((level, left, share, name))
            _lay(above[name], level + 1, left, total, boxes)
        left += share


def _colour(name: str) -> str:
    """By where the code lives, so that ours stands out."""
    for word, colour in (
        ("diplex", "#f4a261"),
        ("grpc", "#8ecae6"),
        ("uvicorn", "#b5e48c"),
        ("asyncio", "#ddd"),
    ):
        if word in name:
            return colour
    return "#ffe8a3"
