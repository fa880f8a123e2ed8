"""The whole page as text, at most 100 columns wide."""

from collections.abc import Iterator
from typing import Final

from diplex_cli.plan.claims import claims
from diplex_cli.plan.figures import short
from diplex_cli.plan.lines import folded, rule
from diplex_cli.plan.memory import memory
from diplex_cli.plan.opening import title, verdict
from diplex_cli.plan.speed import interference, patterns, performance
from diplex_core.plan.page import Page

_LABEL: Final = 16
_CELL: Final = 9


def text(page: Page) -> str:
    """What is planned and whether it fits; memory, what else would fit, speed, patterns, a prompt beside the
    streams, and what must be known to decide."""
    parts = [
        [*_opening(page), "", *memory(page)],
        list(_inverse(page)),
        list(performance(page)),
        list(patterns(page)),
        list(interference(page)),
        list(_remarks(page)),
        list(claims(page.claims)) if page.claims else [],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _opening(page: Page) -> Iterator[str]:
    yield from folded(title(page))
    yield from folded(verdict(page), hang="  ")


def _inverse(page: Page) -> Iterator[str]:
    """Two rows for each table, as wide as they need be."""
    yield rule("WHAT ELSE FITS · one sequence holds its prompt and its output")
    answers = (
        ("context", [short(one) for one in page.inverse.batches], "most sequences", page.inverse.batches),
        (
            "sequences",
            [f"{one:,}" for one in page.inverse.contexts],
            "longest context",
            page.inverse.contexts,
        ),
    )
    for asked, heads, answered, table in answers:
        yield f"{asked:{_LABEL}}" + "".join(f"{head:>{_CELL}}" for head in heads)
        yield f"{answered:{_LABEL}}" + "".join(
            f"{most:>{_CELL},}" if most else f"{'none':>{_CELL}}" for most in table.values()
        )


def _remarks(page: Page) -> Iterator[str]:
    yield rule("BEFORE YOU DECIDE")
    for remark in page.remarks:
        yield from folded(remark, indent="· ", hang="  ")
