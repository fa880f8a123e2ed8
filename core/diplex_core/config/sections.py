"""Shapes made of other shapes: lists, entries under names, and sections with keys of ours."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from diplex_core.config.faults import Fault, Path, nearest, unknown
from diplex_core.config.shapes import Faults, Real, Schema, Shape, shown


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of at least one item, or of none if it may be `empty`; none of them twice. Its faults carry an
    example of the whole list."""

    item: Shape
    example: str = ""
    empty: bool = False

    def check(self, value: object, path: Path, faults: Faults) -> list[Any] | None:
        if not isinstance(value, list) or not (value or self.empty):
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
        least = 0 if self.empty else 1
        return {"type": "array", "items": self.item.schema(), "minItems": least, "uniqueItems": True}


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a command: a list of texts, in which one may come twice."""

    example: str
    empty: bool = False

    def check(self, value: object, path: Path, faults: Faults) -> tuple[str, ...] | None:
        if isinstance(value, list) and (value or self.empty):
            if all(isinstance(word, str) and word for word in value):
                return tuple(value)
            wrong = next(at for at, word in enumerate(value) if not isinstance(word, str) or not word)
            faults.append(
                Fault((*path, wrong), f"{shown(value[wrong])} is no word", mend=f'"{value[wrong]}"')
            )
            return None
        reason = "is empty" if value == [] else f"{shown(value)} is not a list of words"
        faults.append(Fault(path, reason, mend=f"{path[-1]}: {self.example}"))
        return None

    def schema(self) -> Schema:
        return {
            "type": "array",
            "items": {"type": "string", "minLength": 1},
            "minItems": 0 if self.empty else 1,
        }


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
    """A mapping with keys of ours. Left empty it is all defaults. Of `either` it has exactly one."""

    keys: Mapping[str, Key]
    what: str
    either: tuple[str, ...] = ()

    def check(self, value: object, path: Path, faults: Faults) -> dict[str, Any] | None:
        value = {} if value is None else value
        if not isinstance(value, Mapping):
            keys = ", ".join(self.keys)
            faults.append(Fault(path, f"{shown(value)} is not {self.what}", mend=f"a mapping of {keys}"))
            return None
        for name in value:
            if name not in self.keys:
                faults.append(self._unknown(name, path))
        if self.either:
            faults += self._not_one(value, path)
        return {name: self._one(name, key, value, path, faults) for name, key in self.keys.items()}

    def _one(self, name: str, key: Key, value: Mapping[str, Any], path: Path, faults: Faults) -> Any:
        if name in value:
            return key.shape.check(value[name], (*path, name), faults)
        if key.required:
            mend = f"{name}: {key.example}" if key.example else ""
            faults.append(Fault((*path, name), "is missing", mend=mend))
        # A section that is left out says the same as one that is empty.
        return key.shape.check({}, (*path, name), faults) if key.default == {} else key.default

    def _not_one(self, value: Mapping[str, Any], path: Path) -> Iterator[Fault]:
        """What is wrong where not exactly one of `either` is there."""
        there = [name for name in self.either if name in value]
        if not there:
            first = self.either[0]
            mend = f"{first}: {self.keys[first].example}"
            yield Fault((*path, first), f"is missing: one of {', '.join(self.either)}", mend=mend)
        for name in there[1:]:
            yield Fault((*path, name), f"is there beside {there[0]}", mend=f"only one of {', '.join(there)}")

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
            "type": "object" if required or self.either else ["object", "null"],
            "properties": keys,
            "additionalProperties": False,
            **({"required": required} if required else {}),
            **({"oneOf": [{"required": [name]} for name in self.either]} if self.either else {}),
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
