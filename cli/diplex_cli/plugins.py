"""Placement rules that other packages bring: found by their entry points, handed in to whoever places.

A package is installed beside diplex and names its rules in its pyproject.toml; docs/guide/plugins.md has one.
All are loaded when the first configuration is read. One that cannot be is no matter until a tier names it.
"""

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, Final

from diplex_core.placement.book import OWN, Book, Kind, Unusable

GROUPS: Final[Mapping[Kind, str]] = MappingProxyType(
    {"filter": "diplex.filters", "scorer": "diplex.scorers", "picker": "diplex.pickers"}
)
_TAKES: Final[Mapping[Kind, str]] = MappingProxyType(
    {"filter": "(wish, pool)", "scorer": "(wish, pool)", "picker": "(wish, candidates)"}
)

log = logging.getLogger(__name__)


@cache
def book() -> Book:
    """Every rule that a configuration of this process may name."""
    found: dict[Kind, dict[str, Any]] = {kind: {} for kind in GROUPS}
    unusable: dict[tuple[Kind, str], Unusable] = {}
    for kind, group in GROUPS.items():
        for name, points in _by_name(entry_points(group=group)).items():
            try:
                found[kind][name] = _loaded(kind, name, points)
            except _Unusable as why:
                unusable[kind, name] = why.words
    return OWN.with_rules(found["filter"], found["scorer"], found["picker"], unusable, log.warning)


class _Unusable(Exception):
    def __init__(self, reason: str, mend: str) -> None:
        super().__init__(reason)
        self.words = Unusable(reason, mend)


def _by_name(points: Iterable[EntryPoint]) -> dict[str, list[EntryPoint]]:
    named: dict[str, list[EntryPoint]] = {}
    for point in points:
        if point not in named.setdefault(point.name, []):
            named[point.name].append(point)
    return named


def _loaded(kind: Kind, name: str, points: list[EntryPoint]) -> Callable[..., Any]:
    """The rule itself.

    Raises:
        _Unusable: it cannot be used under this name.
    """
    first = points[0]
    if len(points) > 1:
        raise _Unusable(f"{' and '.join(map(_whose, points))} both bring it", "uninstall one of them")
    if name in OWN.named(kind):
        raise _Unusable(f"{_whose(first)} brings it, and diplex has one", "another name, in the package")
    try:
        rule = first.load()
    except Exception as error:  # whatever the code of another package raises
        reason = f"{first.value} of {_whose(first)} cannot be loaded: {type(error).__name__}: {error}"
        raise _Unusable(
            reason, f"install what it needs, or: pip install --upgrade {_package(first)}"
        ) from error
    if not callable(rule) or not _takes_two(rule):
        raise _Unusable(
            f"{first.value} of {_whose(first)} is not a function of {_TAKES[kind]}", "make it one"
        )
    return rule  # type: ignore[no-any-return]


def _takes_two(rule: Callable[..., Any]) -> bool:
    try:
        inspect.signature(rule).bind(None, None)
    except (TypeError, ValueError):
        return False
    return True


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "its package"


def _whose(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unknown package"
