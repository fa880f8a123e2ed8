"""Looks a listed name up in the package that is installed, without running anything of it."""

import ast
import inspect
from enum import Enum
from functools import cache
from importlib import import_module
from typing import Any

from diplex_workers.engines.names import Name
from diplex_workers.engines.trtllm_interface import arguments_of


class Finding(Enum):
    """What became of a name. UNSEEN: it is made where no looking reaches (C++, HTTP, other programs)."""

    THERE = "there"
    MISSING = "missing"
    UNSEEN = "unseen"


def look_up(name: Name) -> Finding:
    """Whether the installed package has this name."""
    if not name.module:
        return Finding.UNSEEN
    try:
        module = import_module(name.module)
    except ImportError:
        return Finding.MISSING
    if name.kind in ("metric", "endpoint", "label"):
        return _found(_written_in(module, name))
    owner: Any = module
    for part in name.of.split(".") if name.of else []:
        if (owner := getattr(owner, part, None)) is None:
            return Finding.MISSING
    match name.kind:
        case "argument":
            return _found(name.name in arguments_of(owner))
        case "field":
            return _found(name.name in _fields_of(owner))
        case "flag":
            return _found(name.name in _flags_of(owner))
        case _:
            return _found(hasattr(owner, name.name))


def _found(there: bool) -> Finding:
    return Finding.THERE if there else Finding.MISSING


def _fields_of(kind: Any) -> set[str]:
    """What instances have: declared, inherited, or set by the class's own methods."""
    names = {*dir(kind), *arguments_of(kind)}
    for one in getattr(kind, "__mro__", ()):
        names |= inspect.get_annotations(one).keys() | _set_in(one)
    return names


def _set_in(kind: type) -> set[str]:
    """Attributes that a class's methods give `self`."""
    try:
        tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(kind)))
    except (OSError, TypeError, SyntaxError):
        return set()
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def _flags_of(command: Any) -> set[str]:
    """The options of a command made with click."""
    return {
        option for parameter in getattr(command, "params", ()) for option in getattr(parameter, "opts", ())
    }


def _written_in(module: Any, name: Name) -> bool:
    """Whether a module's strings have the word: metrics are written there without their prefix."""
    word = name.name.removeprefix(f"{name.engine}_")
    return any(word == one or word == one.removeprefix(f"{name.engine}_") for one in _strings_of(module))


@cache
def _strings_of(module: Any) -> frozenset[str]:
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError, SyntaxError):
        return frozenset()
    return frozenset(
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
