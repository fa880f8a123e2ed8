"""The checklist for people, 100 columns wide."""

from collections import Counter
from collections.abc import Sequence
from textwrap import wrap
from typing import Final

from diplex_cli.doctor.check import Check

_WIDTH: Final = 100
_INDENT: Final = " " * 9


def text(checks: Sequence[Check]) -> str:
    """Every check: a line with what was seen, and below it what was expected and the mend."""
    lines = [line for check in checks for line in _lines(check)]
    count = Counter(check.status for check in checks)
    told = ", ".join(
        f"{count[status]} {status}" for status in ("pass", "warn", "fail", "skip") if count[status]
    )
    return "\n".join([*lines, "", told])


def _lines(check: Check) -> list[str]:
    head = wrap(
        f"{check.title}: {check.seen}",
        _WIDTH,
        break_on_hyphens=False,
        initial_indent=f"  {check.status}   ",
        subsequent_indent=_INDENT,
    )
    told = [("expected", check.expected), ("mend", check.mend)]
    return head + [
        line
        for word, said in told
        if said
        for line in wrap(
            f"{word}: {said}",
            _WIDTH,
            break_on_hyphens=False,
            initial_indent=_INDENT,
            subsequent_indent=_INDENT + "  ",
        )
    ]
