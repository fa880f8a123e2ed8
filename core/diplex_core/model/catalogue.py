"""The data files beside this module, read as frozen facts: GPUs, models and number formats."""

import tomllib
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
    """The shape that a KV cache is counted from, and the longest prompt plus output in tokens."""

    name: str
    layers: int
    kv_heads: int
    head_dim: int
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
    known: dict[str, float] = read("profiles", "formats")["bytes_per_element"]
    if number_format not in known:
        raise NotInCatalogue(f"unknown number format '{number_format}'; known: {', '.join(sorted(known))}")
    return known[number_format]


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
