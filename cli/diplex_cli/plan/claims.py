"""The chapter's memory table beside what it comes to, with each discrepancy named."""

from collections.abc import Iterator
from typing import Final

from diplex_cli.plan.figures import GB, short
from diplex_cli.plan.lines import NONE, columns, folded, hundredths, rule
from diplex_core.plan.claims import Claims, Corner

_CORNER_HEADS: Final = (
    ("corner cases", "KV", "", "in all", "", "fits", "", ""),
    ("(§1.1), GB", "chapter", "counted", "chapter", "counted", "chapter", "counted", ""),
)


def claims(said: Claims) -> Iterator[str]:
    """The box of §1, the corner cases of §1.1, and what does not go together."""
    yield rule("THE CHAPTER'S MEMORY (§1) BESIDE OURS, counted from the formats that it names")
    rows = [("GB", "chapter", "counted", "")]
    rows += _rows(said)
    yield from columns(rows, left=(0, 3))
    yield ""
    yield from columns([*_CORNER_HEADS, *map(_corner, said.corners)], left=(0, 7))
    for note in said.notes:
        yield from folded(note, indent="· ", hang="  ")


def _rows(said: Claims) -> Iterator[tuple[str, str, str, str]]:
    """What is counted adds up as it is written."""
    counted = [row for row in said.rows if not row.sums]
    written = dict(
        zip(
            (row.what for row in counted),
            hundredths([row.counted for row in counted], GB),
            strict=True,
        )
    )
    for row in said.rows:
        size = sum(written[what] for what in row.sums or (row.what,))
        title = f"{'= ' if row.sums else ''}{row.what}"
        yield title, f"{row.claimed / GB:,.1f}", f"{size:,.2f}", row.because


def _corner(corner: Corner) -> tuple[str, ...]:
    return (
        f"{corner.batch} × {short(corner.context)}",
        f"~{corner.claimed_kv / GB:.0f}",
        f"{corner.counted_kv / GB:.2f}",
        f"~{corner.claimed_total / GB:.0f}" if corner.claimed_total else NONE,
        f"{corner.counted_total / GB:.2f}",
        _verdict(corner.claimed_fits),
        _verdict(corner.fits),
        corner.because,
    )


def _verdict(fits: bool) -> str:
    return "yes" if fits else "no"
