"""The data files beside this module, read as frozen facts: GPUs, models and number formats."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from diplex_core.words import Tokens

_HERE: Final = Path(__file__).parent


class NotInCatalogue(ValueError):
    """No data file describes it. The message lists those that there are."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One package. `memory_bytes` is what the runtime reports for the whole of it."""

    name: str
    dies: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Model:
    """What KV cache, weights and work are counted from, and the longest prompt plus output in tokens."""

    name: str
    layers: int
    kv_heads: int
    head_dim: int
    parameters: int
    context: Tokens


@cache
def gpu(name: str) -> Gpu:
    """Raises NotInCatalogue for a GPU without a file in profiles/gpus."""
    return Gpu(**read("profiles/gpus", name))


@cache
def model(name: str) -> Model:
    """Raises NotInCatalogue for a model without a file in profiles/models."""
    return Model(**read("profiles/models", name))


@cache
def bytes_per_element(number_format: str) -> float:
    """Bytes that one element takes, its share of the block scales included.

    Raises:
        NotInCatalogue: no such format.
    """
    return _size(number_format, read("profiles", "formats")["bytes_per_element"])


@cache
def bytes_per_parameter(weights: str) -> float:
    """Bytes that one parameter takes in weights of this format, or of this mix of formats.

    Raises:
        NotInCatalogue: no such format.
    """
    formats = read("profiles", "formats")
    return _size(weights, {**formats["bytes_per_element"], **formats["bytes_per_parameter"]})


def names(folder: str) -> tuple[str, ...]:
    """What there is a file for in a folder such as profiles/models."""
    return tuple(sorted(path.stem for path in (_HERE / folder).glob("*.toml")))


def read(folder: str, name: str) -> dict[str, Any]:
    """One data file as TOML reads it.

    Raises:
        NotInCatalogue: there is no such file.
    """
    files = {path.stem: path for path in (_HERE / folder).glob("*.toml")}
    if name not in files:
        kind = folder.rpartition("/")[2].removesuffix("s")
        raise NotInCatalogue(f"unknown {kind} '{name}'; known: {', '.join(sorted(files))}")
    with files[name].open("rb") as file:
        return tomllib.load(file)


def _size(number_format: str, known: Mapping[str, float]) -> float:
    if number_format not in known:
        raise NotInCatalogue(f"unknown number format '{number_format}'; known: {', '.join(sorted(known))}")
    return known[number_format]
