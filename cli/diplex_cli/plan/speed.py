"""Speed on the page: three columns that are never mixed, the patterns, and a prompt beside the streams."""

from collections.abc import Callable, Iterator
from typing import Final

from diplex_cli.plan.figures import BEYOND, beyond, counted, gauge, mark, milliseconds, rate, watts
from diplex_cli.plan.lines import NONE, columns, folded, rule
from diplex_core.plan.compare import MEANT_FOR, Compared
from diplex_core.plan.page import Page
from diplex_core.plan.prediction import Beside

# How each figure is called, its name in a prediction, and how it is written.
_FIGURES: Final[tuple[tuple[str, str, Callable[[float], str]], ...]] = (
    ("prefill, one prompt alone", "prefill", milliseconds),
    ("TTFT p50", "ttft_p50", milliseconds),
    ("TTFT p95", "ttft_p95", milliseconds),
    ("TPOT", "tpot", milliseconds),
    ("tok/s a stream", "tok_s_stream", rate),
    ("tok/s together", "tok_s_aggregate", rate),
    ("memory in use", "memory", gauge),
    ("bandwidth in use", "bandwidth", gauge),
    ("compute in use, peak", "compute", gauge),
    ("power, estimated", "power", watts),
)
# What patterns are compared by: its name in a prediction, how it is called and written, and how wide.
_COMPARED: Final[tuple[tuple[str, str, Callable[[float], str], int], ...]] = (
    ("ttft_p50", "TTFT p50", milliseconds, 8),
    ("tok_s_stream", "tok/s a stream", rate, 7),
    ("tok_s_aggregate", "tok/s together", rate, 7),
)
_MARK: Final = 7


def performance(page: Page) -> Iterator[str]:
    """The three columns for the load that was asked for, or for the most of it that fits."""
    if page.predictions is None:
        yield rule("SPEED")
        yield "Nothing to predict: not one sequence of this context fits."
        return
    yield rule(f"SPEED · {counted(page.at, 'sequence')} × {page.context:,} tokens · prompt {page.prompt:,}")
    if not page.fits:
        yield f"{page.batch:,} do not fit: these are the figures of the {page.at:,} that do."
    three = page.predictions
    rows = [("", "chapter", "", "measured", "limit")]
    for title, name, written in _FIGURES:
        chapter, measured, limit = (
            NONE if one is None else written(getattr(one, name))
            for one in (three.chapter, three.measured, three.limit)
        )
        rows.append((title, chapter, beyond(three.chapter, name), measured, limit))
    yield from columns(rows, left=(0, 2), gap=3)
    yield from _legend(page)


def _legend(page: Page) -> Iterator[str]:
    three = page.predictions
    if three is None:
        return
    if three.chapter is None:
        yield f"chapter: {NONE}, for it says nothing of such a deployment."
    elif page.calibration != "chapter":
        yield f"{page.calibration}: it says nothing of this deployment itself."
    if three.chapter is not None and three.chapter.beyond:
        yield f"{BEYOND} 1.20×: 1.2 times better than the limit. No engine can do that; it is a claim."
    yield "limit: every byte and operation at the chip's full rate; a prompt has the engine to itself."
    if three.measured is None:
        yield f"measured: {NONE}, for there is no calibration by measurements yet."


def patterns(page: Page) -> Iterator[str]:
    """All patterns for the same load, and what each is for."""
    yield rule(f"PATTERNS · at most {counted(page.batch, 'sequence')} × {page.context:,} tokens")
    able = [row for row in page.compared if row.predictions is not None]
    if able:
        yield from _heads()
        yield from map(_pattern, able)
        yield ""
    for row in page.compared:
        yield from _meant(row)


def _heads() -> Iterator[str]:
    first = (f"{f'{title} ':─<{2 * width + _MARK + 2}}" for _, title, _, width in _COMPARED)
    yield f"{'':8}{'most':>5}{'shown':>7}" + "".join(f"   {title}" for title in first)
    second = (f"{'chapter':>{width}} {'':{_MARK}} {'limit':>{width}}" for *_, width in _COMPARED)
    yield f"{'':8}{'fit':>5}{'at':>7}" + "".join(f"   {names}" for names in second)


def _pattern(row: Compared) -> str:
    """How many fit, how many are shown, and each figure in two columns with the mark between them."""
    line, three = f"{row.pattern:8}{row.most:>5,}{row.at:>7,}", row.predictions
    said, bound = (three.chapter, three.limit) if three else (None, None)
    for name, _, written, width in _COMPARED:
        chapter, limit = (NONE if one is None else written(getattr(one, name)) for one in (said, bound))
        line += f"   {chapter:>{width}} {beyond(said, name):{_MARK}} {limit:>{width}}"
    return line


def _meant(row: Compared) -> Iterator[str]:
    why = MEANT_FOR[row.pattern]
    if row.impossible:
        why = f"Cannot be deployed so: {row.impossible}"
    elif not row.most:
        why = f"Not one sequence of this context fits. {why}"
    elif not row.fits:
        why = f"Fits {row.most:,} of them. {why}"
    yield from folded(f"{row.pattern:8}{why}", hang=" " * 8)


def interference(page: Page) -> Iterator[str]:
    """How long the step takes beside a piece of a prompt, against the step alone."""
    yield rule(f"A PROMPT BESIDE {counted(page.at, 'STREAM').upper()} · one step of them with a piece of it")
    if not page.beside:
        yield "Nothing runs beside it: not one sequence of this context fits."
        return
    rows = [("prompt tokens", "chapter", "", "", "measured", "limit", "")]
    yield from columns([*rows, *(_step(one, page.beside[0]) for one in page.beside)], left=(0, 3))
    yield from folded(
        "Every stream beside the prompt waits so long for its next token. A small prefill budget keeps the "
        "step short, and the prompt takes more of them."
    )


def _step(one: Beside, alone: Beside) -> tuple[str, ...]:
    """One step in each column, and how many times as long as the step alone it is."""

    def time(column: str) -> tuple[str, str]:
        step, without = getattr(one, column), getattr(alone, column)
        if step is None or without is None:
            return NONE, ""
        return milliseconds(step), f"{step / without:.1f}×" if one.chunk else ""

    sooner = one.limit / one.chapter if one.chapter else 0.0
    return (
        f"{one.chunk:>13,}" if one.chunk else f"{'none':>13}",
        *time("chapter"),
        mark(sooner) if sooner > 1.005 else "",
        time("measured")[0],
        *time("limit"),
    )
