"""Tokenizers for engines that take token ids and send token ids: the one way in which a worker has one."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diplex.v1 import generation_pb2 as pb

if TYPE_CHECKING:
    from diplex.tokens.tokenizer import Tokenizer
    from diplex_workers.engines.grpc_server import Load


def reader_for(model: str) -> "Load":
    """How a model's tokenizer is loaded, from its file, its folder, or a family's name."""

    def load(at: str | Path) -> "_Reader":
        try:
            from diplex.tokens.sources import given
            from diplex.tokens.tokenizer import Tokenizer
        except ImportError as error:
            raise ValueError(f"{error}. Mend: pip install 'diplex[tokenizers]'") from error
        return _Reader(Tokenizer(given(model, at)))

    return load


class _Reader:
    def __init__(self, tokenizer: "Tokenizer") -> None:
        self._tokenizer = tokenizer

    def ids_of(self, prompt: pb.Prompt) -> Sequence[int]:
        from diplex.tokens.template import Unrenderable

        try:
            return self._tokenizer.ids_of(prompt)
        except Unrenderable as error:
            raise ValueError(str(error)) from error

    def writer(self) -> Callable[[Sequence[int]], str]:
        return self._tokenizer.writer()
