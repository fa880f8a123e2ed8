"""The names that diplex takes from other programs, each with the version and source where it was read.

names.toml is the list; this reads it, and `python -m diplex_workers.engines.names` prints docs/engines.md.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

KINDS: Final = (
    *("class", "method", "argument", "field", "metric", "label"),
    *("flag", "env", "endpoint", "command", "value"),
)
_FILE: Final = Path(__file__).with_name("names.toml")

_PAGE: Final = """\
# Names of other programs

Every class, argument, field, metric, flag and endpoint of another program that diplex relies on, with the
version and the public source in which it was read. Most of these programs cannot run where diplex is tested:
this list is what holds the code to the truth.

- `workers/diplex_workers/engines/names.toml` is the list, and this page is made from it (`make engines`).
- `tests/house/test_engine_names.py` reads the engine adapters, launchers, recipes and checks, and fails on a
  name that the list lacks.
- `diplex doctor --engine trtllm`, where TensorRT-LLM is installed, looks each name up in that package
  ([doctor](guide/doctor.md)).

*newer* marks what only newer versions have: where it is missing, diplex does without.
"""


@dataclass(frozen=True, slots=True)
class Name:
    """One name of another program.

    Attributes:
        engine: the program, by its key in the list.
        of: what it belongs to (a class, a method, an endpoint, a command); "": the program itself.
        module: where the class, or the class that `of` begins with, is imported from; "": it cannot be.
        newer: older versions lack it, and diplex does without.
        version, url: where it was read.
    """

    engine: str
    kind: str
    name: str
    version: str
    url: str
    of: str = ""
    module: str = ""
    newer: bool = False


@dataclass(frozen=True, slots=True)
class Listed:
    """The whole list: programs by key, names in the file's order, and by file words that are no names."""

    engines: Mapping[str, str]
    names: tuple[Name, ...]
    ours: Mapping[str, frozenset[str]]

    def of(self, *engines: str) -> tuple[Name, ...]:
        return tuple(name for name in self.names if name.engine in engines)


@cache
def listed() -> Listed:
    return read(_FILE.read_text())


def read(text: str) -> Listed:
    """The list in names.toml.

    Raises:
        ValueError: a group that lacks what each needs, names an unknown program, kind or source, or says a
            name twice.
    """
    tree = tomllib.loads(text)
    names = tuple(
        name for number, group in enumerate(tree["names"], 1) for name in _group(group, number, tree)
    )
    seen: set[tuple[str, str, str, str]] = set()
    for one in names:
        if (key := (one.engine, one.kind, one.of, one.name)) in seen:
            raise ValueError(
                f"names.toml: {one.engine} {one.kind} {one.of or '-'} {one.name} stands there twice"
            )
        seen.add(key)
    return Listed(tree["engines"], names, {file: frozenset(words) for file, words in tree["ours"].items()})


def _group(group: Mapping[str, Any], number: int, tree: Mapping[str, Any]) -> Iterator[Name]:
    where = f"names.toml: group {number}"
    for key, known in (("engine", tree["engines"]), ("kind", KINDS), ("source", tree["sources"])):
        if group.get(key) not in known:
            raise ValueError(f"{where}: {key} is {group.get(key)!r}. Mend: one of {', '.join(known)}")
    if unknown := group.keys() - {"engine", "kind", "source", "names", "of", "module", "newer"}:
        raise ValueError(f"{where}: {', '.join(sorted(unknown))} is no key of a group")
    source = tree["sources"][group["source"]]
    for name in group["names"]:
        yield Name(
            engine=group["engine"],
            kind=group["kind"],
            name=name,
            version=source["version"],
            url=source["url"],
            of=group.get("of", ""),
            module=group.get("module", ""),
            newer=group.get("newer", False),
        )


def page(names: Listed) -> str:
    """docs/engines.md, whole."""
    parts = [_PAGE]
    for engine, title in names.engines.items():
        rows = [
            f"| {_what(group[0])} | {', '.join(f'`{one.name}`' for one in group)} | {_where(group[0])} |"
            for group in _groups(names.of(engine))
        ]
        if rows:
            parts.append(
                "\n".join([f"## {title}", "", "| what | names | read in |", "| --- | --- | --- |", *rows])
            )
    return "\n".join(part if part.endswith("\n") else part + "\n" for part in parts)


def _groups(names: tuple[Name, ...]) -> Iterator[list[Name]]:
    """Neighbours that share everything but the name itself."""
    group: list[Name] = []
    for one in names:
        if group and _but_its_name(group[-1]) != _but_its_name(one):
            yield group
            group = []
        group.append(one)
    if group:
        yield group


def _but_its_name(one: Name) -> tuple[object, ...]:
    return one.engine, one.kind, one.of, one.module, one.newer, one.version, one.url


def _what(one: Name) -> str:
    kind = f"{one.kind}, newer" if one.newer else one.kind
    return f"{kind} of `{one.of}`" if one.of else kind


def _where(one: Name) -> str:
    return f"[{one.version}]({one.url})"


if __name__ == "__main__":
    print(page(listed()), end="")
