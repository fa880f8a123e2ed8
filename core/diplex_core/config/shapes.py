"""Shapes of single values: one declaration checks a value and writes its JSON Schema.

A shape's `check` returns the value as the next step wants it and notes what is wrong; a value that is
wrong becomes `None`, so that one run finds every fault. `sections` has the shapes made of these.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from diplex_core.config.faults import Fault, Path, unknown

Faults: TypeAlias = list[Fault]
Schema: TypeAlias = dict[str, Any]


class Shape(Protocol):
    """What a value must look like."""

    def check(self, value: object, path: Path, faults: Faults) -> Any: ...

    def schema(self) -> Schema: ...


@dataclass(frozen=True, slots=True)
class Text:
    """Text that is not empty; `pattern` must match the whole of it."""

    pattern: str = ""
    example: str = ""

    def check(self, value: object, path: Path, faults: Faults) -> str | None:
        if isinstance(value, str) and re.fullmatch(self.pattern or r"(?s).*\S.*", value):
            return value
        wanted = f"text like {self.example}" if self.example else "text"
        faults.append(Fault(path, f"{shown(value)} is not {wanted}", mend=self._mend(value, path)))
        return None

    def _mend(self, value: object, path: Path) -> str:
        if self.example:
            return f"{path[-1]}: {self.example}"
        return f'{path[-1]}: "{value}"' if isinstance(value, int | float) else ""

    def schema(self) -> Schema:
        return {"type": "string", **({"pattern": f"^{self.pattern}$"} if self.pattern else {"minLength": 1})}


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number between two bounds, both included."""

    least: int = 0
    most: int | None = None

    def check(self, value: object, path: Path, faults: Faults) -> int | None:
        if isinstance(value, int) and not isinstance(value, bool):
            if value >= self.least and (self.most is None or value <= self.most):
                return value
            bounds = f"at least {self.least}" if self.most is None else f"{self.least} to {self.most}"
            faults.append(Fault(path, f"{value} is out of bounds", mend=f"a whole number, {bounds}"))
        else:
            faults.append(Fault(path, f"{shown(value)} is not a whole number"))
        return None

    def schema(self) -> Schema:
        most = {} if self.most is None else {"maximum": self.most}
        return {"type": "integer", "minimum": self.least, **most}


@dataclass(frozen=True, slots=True)
class Real:
    """A number, not below zero; `positive`: above it. Or between two bounds, both included."""

    positive: bool = False
    least: float = 0
    most: float | None = None

    def check(self, value: object, path: Path, faults: Faults) -> float | None:
        if not isinstance(value, int | float) or isinstance(value, bool) or value != value:
            faults.append(Fault(path, f"{shown(value)} is not a number"))
        elif value < self.least or (self.positive and value == 0) or value > self._most:
            bounds = "above 0" if self.most is None else f"from {self.least:g} to {self.most:g}"
            faults.append(Fault(path, f"{value} is out of bounds", mend=f"a number {bounds}"))
        else:
            return float(value)
        return None

    @property
    def _most(self) -> float:
        return sys.float_info.max if self.most is None else self.most

    def schema(self) -> Schema:
        most = {} if self.most is None else {"maximum": self.most}
        return {"type": "number", "exclusiveMinimum" if self.positive else "minimum": self.least, **most}


@dataclass(frozen=True, slots=True)
class Flag:
    """true or false."""

    def check(self, value: object, path: Path, faults: Faults) -> bool | None:
        if isinstance(value, bool):
            return value
        faults.append(Fault(path, f"{shown(value)} is neither true nor false"))
        return None

    def schema(self) -> Schema:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of a few words; `what` names them in the singular, article included."""

    words: tuple[str, ...]
    what: str

    def check(self, value: object, path: Path, faults: Faults) -> str | None:
        if isinstance(value, str) and value in self.words:
            return value
        fault = unknown(path, self.what, value, self.words)
        faults.append(Fault(path, fault.reason, fault.mend, self.words))
        return None

    def schema(self) -> Schema:
        return {"enum": list(self.words)}


def shown(value: object) -> str:
    """A value as a message quotes it: short, and in the file's words."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
