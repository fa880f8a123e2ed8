"""What a .gguf file says of its weights: read for the vocabulary, which tells whose tokenizer it is.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (version 2 and 3, little-endian)
"""

import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Final

from diplex.wire.vocabulary import tokenizer_hash

_TOKENS: Final = "tokenizer.ggml.tokens"
_KINDS: Final = "tokenizer.ggml.token_type"
_UNUSED: Final = 5  # stands where weights have a row and the tokenizer no token
_VERSIONS: Final = (2, 3)
_STRING: Final = 8
_ARRAY: Final = 9
# GGUF's numbers for the other types, and struct's letters.
_PLAIN: Final[Mapping[int, str]] = MappingProxyType(
    {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
)


def vocabulary_hash(file: Path) -> str:
    """The tokenizer's name, as `diplex.wire.vocabulary` makes it; "": the file does not say."""
    try:
        said = metadata(file)
    except ValueError:
        return ""
    tokens = said.get(_TOKENS, ())
    kinds = said.get(_KINDS) or [0] * len(tokens)
    used = [
        (number, token)
        for number, (token, kind) in enumerate(zip(tokens, kinds, strict=False))
        if kind != _UNUSED
    ]
    return tokenizer_hash(used) if used else ""


def metadata(file: Path) -> dict[str, Any]:
    """All that the file says of its weights, by key.

    Raises:
        ValueError: it is no such file.
    """
    try:
        with file.open("rb") as gguf:
            if gguf.read(4) != b"GGUF" or _number(gguf, "I") not in _VERSIONS:
                raise ValueError(f"{file} is no GGUF of versions {_VERSIONS}")
            _number(gguf, "Q")  # how many tensors
            pairs = _number(gguf, "Q")
            return {_text(gguf): _value(gguf, _number(gguf, "I")) for _ in range(pairs)}
    # What a broken file says of its lengths may be anything.
    except (OSError, struct.error, KeyError, UnicodeDecodeError, OverflowError, MemoryError) as error:
        raise ValueError(f"{file} is no GGUF that can be read: {error!r}") from error


def _value(gguf: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _text(gguf)
    if kind != _ARRAY:
        return _number(gguf, _PLAIN[kind])
    kind, length = _number(gguf, "I"), _number(gguf, "Q")
    if kind in (_STRING, _ARRAY):
        return [_value(gguf, kind) for _ in range(length)]
    form = f"<{length}{_PLAIN[kind]}"
    return struct.unpack(form, gguf.read(struct.calcsize(form)))


def _text(gguf: BinaryIO) -> str:
    return gguf.read(_number(gguf, "Q")).decode()


def _number(gguf: BinaryIO, letter: str) -> Any:
    return struct.unpack(f"<{letter}", gguf.read(struct.calcsize(f"<{letter}")))[0]
