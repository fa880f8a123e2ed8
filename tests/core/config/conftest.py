"""A small configuration as a plain tree, to be made wrong in one place at a time."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from diplex_core.config import Config, ConfigErrors, build
from diplex_core.config.build import KeyFiles
from diplex_core.placement.book import OWN, Book

SMALL: dict[str, Any] = {
    "models": {"big": {"profile": "qwen2.5-72b", "weights": "mxfp4-mixed", "kv_cache": "mxfp8"}},
    "packages": {
        "pkg0": {"pattern": "A", "model": "big", "engine": {"kind": "sim", "calibration": "chapter"}}
    },
    "tiers": {"standard": {"patterns": ["A", "C"]}},
}


def changed(tree: dict[str, Any], path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """A copy of the tree with one value put in its place; sections on the way are made."""
    tree = copy.deepcopy(tree)
    here: Any = tree
    for key in path[:-1]:
        here = here[key] if isinstance(key, int) else here.setdefault(key, {})
    here[path[-1]] = value
    return tree


@pytest.fixture
def built() -> Callable[..., Config]:
    """`built((path, value), …)`: the small configuration with these values put in."""

    def build_it(
        *changes: tuple[tuple[str | int, ...], Any],
        environment: dict[str, str] | None = None,
        key_files: KeyFiles | None = None,
        book: Book = OWN,
    ) -> Config:
        tree = SMALL
        for path, value in changes:
            tree = changed(tree, path, value)
        return build(tree, environment, key_files, book)

    return build_it


@pytest.fixture
def faults(built: Callable[..., Config]) -> Callable[..., list[str]]:
    """The same, for configurations that are wrong: each fault as people read it, its lines joined."""

    def faults_of(*changes: Any, **keys: Any) -> list[str]:
        with pytest.raises(ConfigErrors) as caught:
            built(*changes, **keys)
        return [" ".join(" ".join(fault.lines()).split()) for fault in caught.value.faults]

    return faults_of
