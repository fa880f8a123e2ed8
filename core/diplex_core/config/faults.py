"""What is wrong with a configuration: which key, why, and what to write instead.

The core knows keys, not files: a path like ("tiers", "interactive", "patterns") names the place, and
whoever read the file adds its name and line.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeAlias

Path: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong, or without effect, at one key.

    `known` lists what would have been understood; `mend` is the text to write there.
    """

    path: Path
    reason: str
    mend: str = ""
    known: tuple[str, ...] = ()

    def lines(self, place: str = "") -> tuple[str, ...]:
        """The fault for people: a line with place, key and reason, then what is known and the mend."""
        # An item of a list is quoted in the reason; its number would only be counted by people.
        path = self.path[:-1] if self.path and isinstance(self.path[-1], int) else self.path
        where = ": ".join(part for part in (place, dotted(path)) if part)
        first = f"{where}: {self.reason}" if where else self.reason
        known = (f"  known: {', '.join(self.known)}",) if self.known else ()
        mend = (f"  mend:  {self.mend}",) if self.mend else ()
        return (first, *known, *mend)


class ConfigErrors(Exception):
    """A configuration that cannot be used: everything that is wrong with it, in the file's order."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(*(line for fault in faults for line in fault.lines()))
        self.faults = tuple(faults)

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


def dotted(path: Path) -> str:
    """A path as people write it.

    >>> dotted(("packages", "pkg2", "instances", 0, "die"))
    'packages.pkg2.instances[0].die'
    """
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def unknown(path: Path, what: str, word: object, known: Iterable[str]) -> Fault:
    """A word that is none of the known ones: with the nearest as mend, or else the whole list."""
    names = tuple(known)
    near = nearest(str(word), names)
    reason = f"{word!r} is not {what}"
    return Fault(path, reason, mend=near) if near else Fault(path, reason, known=names)


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, or "".

    >>> nearest("patern", ("pattern", "engine"))
    'pattern'
    """
    return next(iter(get_close_matches(word, list(known), n=1, cutoff=0.6)), "")
