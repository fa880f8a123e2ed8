"""One model's tokenizer, in memory."""

import json
from collections.abc import Callable, Sequence
from typing import Final

from tokenizers import Tokenizer as Loaded
from tokenizers.decoders import DecodeStream

from diplex.tokens.pieces import Pieces
from diplex.tokens.sources import Source
from diplex.tokens.template import ChatTemplate, Unrenderable
from diplex.v1 import generation_pb2 as pb
from diplex.wire.vocabulary import tokenizer_hash

_ADDED: Final = '"added_tokens":'


class Tokenizer:
    """Reads prompts as the model does. Any thread may use it.

    Loading it holds Python's interpreter for about half a second, and takes some hundred megabytes.

    Raises:
        ValueError: the file is none; the message says why.
    """

    def __init__(self, source: Source) -> None:
        try:
            text = source.file.read_text(encoding="utf-8")
            self._loaded = Loaded.from_str(_without(text, source.without) if source.without else text)
            self._template = ChatTemplate.beside(source.file) if source.with_template else None
        # `tokenizers` raises bare Exceptions.
        except Exception as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
        # What others set for training would cut or lengthen the count.
        self._loaded.no_truncation()
        self._loaded.no_padding()
        self._pieces = Pieces(self._loaded)
        self._adds_to_texts = bool(self._loaded.encode("", add_special_tokens=True).ids)

    def ids_of(self, prompt: pb.Prompt) -> Sequence[int]:
        """The prompt's token ids, a chat's template included.

        Raises:
            Unrenderable: a chat, and there is no template, or it does not take it.
        """
        match prompt.WhichOneof("content"):
            case "ids":
                return prompt.ids.ids
            case "text":
                return self._ids_of_text(prompt.text)
            case "chat":
                return self._pieces.ids_of(self._rendered(prompt.chat))
        raise Unrenderable("there is no prompt")

    def writer(self) -> Callable[[Sequence[int]], str]:
        """Of one answer: told its ids as they come, says the text that is whole by then."""
        stream = DecodeStream(skip_special_tokens=True)
        return lambda ids: "".join(stream.step(self._loaded, number) or "" for number in ids)

    def hash(self) -> str:
        """Its name, as workers tell it. Takes a quarter of a second."""
        vocabulary = self._loaded.get_vocab(with_added_tokens=True)
        return tokenizer_hash(sorted((number, token) for token, number in vocabulary.items()))

    def _ids_of_text(self, text: str) -> Sequence[int]:
        """With what the model wants before a text, such as its first token; a template writes that itself."""
        if not self._adds_to_texts:
            return self._pieces.ids_of(text)
        (encoding,) = self._loaded.encode_batch_fast([text], add_special_tokens=True)
        ids: Sequence[int] = encoding.ids
        return ids

    def _rendered(self, chat: pb.Chat) -> str:
        if self._template is None:
            raise Unrenderable("there is no chat template beside the tokenizer")
        try:
            messages = json.loads(chat.messages)
            tools = json.loads(chat.tools) if chat.tools else []
        except ValueError as error:
            raise Unrenderable(f"messages or tools are no JSON: {error}") from error
        return self._template.render(messages, tools)


def _without(text: str, tokens: frozenset[str]) -> str:
    """A tokenizer.json without some of its added tokens. Only their list is read: the whole takes 11 MB."""
    start = text.index("[", text.index(_ADDED))
    added, end = json.JSONDecoder().raw_decode(text, start)
    kept = [token for token in added if token["content"] not in tokens]
    return text[:start] + json.dumps(kept) + text[end:]
