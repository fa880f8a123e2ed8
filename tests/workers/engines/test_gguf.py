"""A .gguf file's own words."""

import struct
from pathlib import Path

import pytest

from diplex.wire.vocabulary import tokenizer_hash
from diplex_workers.launch.gguf import metadata, vocabulary_hash


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def gguf(*pairs: bytes, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, 0, len(pairs)) + b"".join(pairs)


def texts(key: str, *values: str) -> bytes:
    return text(key) + struct.pack("<IIQ", 9, 8, len(values)) + b"".join(map(text, values))


def numbers(key: str, *values: int) -> bytes:
    return text(key) + struct.pack(f"<IIQ{len(values)}i", 9, 5, len(values), *values)


TOKENS = texts("tokenizer.ggml.tokens", "<|end|>", "Ġa", "[PAD2]")
KINDS = numbers("tokenizer.ggml.token_type", 3, 1, 5)


@pytest.fixture
def written(tmp_path: Path):
    def write(content: bytes) -> Path:
        file = tmp_path / "model.gguf"
        file.write_bytes(content)
        return file

    return write


def test_every_kind_of_value_is_read(written):
    pairs = [
        text("u32") + struct.pack("<II", 4, 7),
        text("f64") + struct.pack("<Id", 12, 0.5),
        text("yes") + struct.pack("<I?", 7, True),
        text("name") + struct.pack("<I", 8) + text("é"),
        texts("words", "a", "b"),
        numbers("counts", 1, -1),
    ]
    assert metadata(written(gguf(*pairs))) == {
        "u32": 7,
        "f64": 0.5,
        "yes": True,
        "name": "é",
        "words": ["a", "b"],
        "counts": (1, -1),
    }


def test_tokens_that_only_fill_rows_are_not_part_of_a_vocabulary(written):
    assert vocabulary_hash(written(gguf(TOKENS, KINDS))) == tokenizer_hash([(0, "<|end|>"), (1, "Ġa")])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GGML and more",
        gguf(TOKENS, version=1),
        gguf(TOKENS, KINDS)[:-1],
        gguf(text("huge") + struct.pack("<IQ", 8, 2**62)),
        gguf(text("odd") + struct.pack("<II", 99, 0)),
        gguf(),
    ],
    ids=[
        "empty",
        "another file",
        "an old version",
        "cut off",
        "a length that lies",
        "an unknown type",
        "no tokens",
    ],
)
def test_a_file_that_does_not_say_has_no_name(written, content: bytes):
    assert vocabulary_hash(written(content)) == ""
