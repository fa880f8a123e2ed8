"""One line of the checklist."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

Status: TypeAlias = Literal["pass", "warn", "fail", "skip"]


@dataclass(frozen=True, slots=True)
class Check:
    """What was expected, what was seen, and what to do about it.

    Attributes:
        id: its name in `--json`; never renamed.
        title: its number in the chapter's list, and what it is about.
        mend: the next thing to do; "": nothing. Of a skipped one, what would let it be checked.
    """

    id: str
    title: str
    status: Status
    expected: str
    seen: str
    mend: str = ""


def fields(checks: Iterable[Check]) -> dict[str, object]:
    """What `--json` prints."""
    return {"checks": [asdict(check) for check in checks]}


def healthy(checks: Iterable[Check]) -> bool:
    return all(check.status != "fail" for check in checks)
