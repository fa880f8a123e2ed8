"""Shapes of configuration values: one declaration checks a value and writes its JSON Schema.

A shape's `check` returns the value as the next step wants it (a missing key filled with its default)
and notes what is wrong; a value that is wrong becomes `None`, so that one run finds every fault.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from diplex_core.config.faults import Fault, Path, nearest, unknown

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
    """A number, not below zero; `positive`: above it."""

    positive: bool = False

    def check(self, value: object, path: Path, faults: Faults) -> float | None:
        if not isinstance(value, int | float) or isinstance(value, bool) or value != value:
            faults.append(Fault(path, f"{shown(value)} is not a number"))
        elif value < 0 or (self.positive and value == 0) or value == float("inf"):
            faults.append(Fault(path, f"{value} is out of bounds", mend="a number above 0"))
        else:
            return float(value)
        return None

    def schema(self) -> Schema:
        return {"type": "number", "exclusiveMinimum" if self.positive else "minimum": 0}


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


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of at least one item, none of them twice; its faults carry an example of the whole list."""

    item: Shape
    example: str = ""

    def check(self, value: object, path: Path, faults: Faults) -> list[Any] | None:
        if not isinstance(value, list) or not value:
            reason = "is empty" if value == [] else f"{shown(value)} is not a list"
            faults.append(Fault(path, reason, mend=self._mend(path)))
            return None
        mine: Faults = []
        items = [self.item.check(item, (*path, at), mine) for at, item in enumerate(value)]
        seen: list[Any] = []
        for at, item in enumerate(items):
            if item is not None and item in seen:
                mine.append(Fault((*path, at), f"{item!r} is in the list already"))
            seen.append(item)
        # A fault of one word in a list of words is best mended by seeing the whole list.
        for fault in mine:
            small = len(fault.path) == len(path) + 1 and self.example
            faults.append(Fault(fault.path, fault.reason, self._mend(path), fault.known) if small else fault)
        return items

    def _mend(self, path: Path) -> str:
        return f"{path[-1]}: {self.example}" if self.example else ""

    def schema(self) -> Schema:
        return {"type": "array", "items": self.item.schema(), "minItems": 1, "uniqueItems": True}


@dataclass(frozen=True, slots=True)
class Named:
    """Entries under names of the user's choice, each of one shape; `what` says what they are."""

    entry: Shape
    what: str
    name: str = r"[A-Za-z0-9][A-Za-z0-9._-]*"

    def check(self, value: object, path: Path, faults: Faults) -> dict[str, Any] | None:
        if not isinstance(value, Mapping) or not value:
            faults.append(Fault(path, f"names no {self.what}"))
            return None
        return {name: self._entry(name, item, path, faults) for name, item in value.items()}

    def _entry(self, name: object, item: object, path: Path, faults: Faults) -> Any:
        if not isinstance(name, str) or not re.fullmatch(self.name, name):
            mend = f'"{name}":' if not isinstance(name, str) else "letters, digits, '.', '_' and '-'"
            faults.append(Fault((*path, str(name)), f"{name!r} is no name for a {self.what}", mend=mend))
        return self.entry.check(item, (*path, str(name)), faults)

    def schema(self) -> Schema:
        return {
            "type": "object",
            "minProperties": 1,
            "propertyNames": {"pattern": f"^{self.name}$"},
            "additionalProperties": self.entry.schema(),
        }


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a section: what it means, what it holds, and what holds where it is left out."""

    doc: str
    shape: Shape
    default: Any = None
    required: bool = False
    example: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping with keys of ours. Left empty it is all defaults."""

    keys: Mapping[str, Key]
    what: str

    def check(self, value: object, path: Path, faults: Faults) -> dict[str, Any] | None:
        value = {} if value is None else value
        if not isinstance(value, Mapping):
            keys = ", ".join(self.keys)
            faults.append(Fault(path, f"{shown(value)} is not {self.what}", mend=f"a mapping of {keys}"))
            return None
        for name in value:
            if name not in self.keys:
                faults.append(self._unknown(name, path))
        return {name: self._one(name, key, value, path, faults) for name, key in self.keys.items()}

    def _one(self, name: str, key: Key, value: Mapping[str, Any], path: Path, faults: Faults) -> Any:
        if name in value:
            return key.shape.check(value[name], (*path, name), faults)
        if key.required:
            mend = f"{name}: {key.example}" if key.example else ""
            faults.append(Fault((*path, name), "is missing", mend=mend))
        # A section that is left out says the same as one that is empty.
        return key.shape.check({}, (*path, name), faults) if key.default == {} else key.default

    def _unknown(self, name: object, path: Path) -> Fault:
        near = nearest(str(name), self.keys)
        reason = f"is no key of {self.what}"
        known = () if near else tuple(self.keys)
        return Fault((*path, str(name)), reason, mend=near, known=known)

    def schema(self) -> Schema:
        keys = {name: {"description": key.doc, **key.shape.schema()} for name, key in self.keys.items()}
        for name, key in self.keys.items():
            if isinstance(key.default, str | int | float):
                keys[name]["default"] = key.default
        required = [name for name, key in self.keys.items() if key.required]
        return {
            "type": "object" if required else ["object", "null"],
            "properties": keys,
            "additionalProperties": False,
            **({"required": required} if required else {}),
        }


@dataclass(frozen=True, slots=True)
class ByKind:
    """A section whose key `kind` says which other keys it has."""

    kinds: Mapping[str, Section]
    what: str

    def check(self, value: object, path: Path, faults: Faults) -> dict[str, Any] | None:
        kind = value.get("kind") if isinstance(value, Mapping) else None
        if not isinstance(value, Mapping) or "kind" not in value:
            known = ", ".join(self.kinds)
            faults.append(Fault((*path, "kind"), f"is missing: one of {known}", mend="{kind: …}"))
        elif kind not in self.kinds:
            faults.append(unknown((*path, "kind"), self.what, kind, self.kinds))
        else:
            rest = {name: item for name, item in value.items() if name != "kind"}
            checked = self.kinds[str(kind)].check(rest, path, faults)
            return None if checked is None else {"kind": kind, **checked}
        return None

    def schema(self) -> Schema:
        return {"oneOf": [self._schema_of(kind, section) for kind, section in self.kinds.items()]}

    def _schema_of(self, kind: str, section: Section) -> Schema:
        schema = section.schema()
        properties = {"kind": {"const": kind}, **schema["properties"]}
        required = ["kind", *schema.get("required", [])]
        return {**schema, "type": "object", "properties": properties, "required": required}


@dataclass(frozen=True, slots=True)
class NumberOr:
    """A number, or a section where a number is too little; the number becomes that section's `key`."""

    section: Section
    key: str

    def check(self, value: object, path: Path, faults: Faults) -> dict[str, Any] | None:
        if isinstance(value, Mapping):
            return self.section.check(value, path, faults)
        number = Real(positive=True).check(value, path, faults)
        return None if number is None else self.section.check({self.key: number}, path, faults)

    def schema(self) -> Schema:
        return {"oneOf": [Real(positive=True).schema(), {**self.section.schema(), "type": "object"}]}


def shown(value: object) -> str:
    """A value as a message quotes it: short, and in the file's words."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
