"""A rendered chat, tokenised piece by piece: what was tokenised before need not be again.

A chat's next turn repeats all earlier ones, and tokenising is nearly all that counting it costs. A tokenizer
cuts a text at its control tokens before it does anything else, so the pieces between them can be read one by
one, and kept: measured in docs/guide/tokens.md.
"""

import re
import threading
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

from tokenizers import Tokenizer

MOST_BYTES: Final = 32 * 2**20
"""Memory for pieces, texts and ids together; the one that was used least lately goes first."""
_MINDS_THE_START: Final = (b'"Metaspace"', b'"Prepend"')


class Pieces:
    """Reads texts with one tokenizer. Any thread may use it."""

    def __init__(self, tokenizer: Tokenizer, most_bytes: int = MOST_BYTES) -> None:
        self._tokenizer = tokenizer
        self._most = most_bytes
        self._size = 0
        self._kept: OrderedDict[str, array[int]] = OrderedDict()
        self._lock = threading.Lock()
        self._ids = {text: array("I", (number,)) for number, text in _cuts(tokenizer).items()}
        # Where one begins another the longer one counts, as in the tokenizer.
        words = sorted(self._ids, key=len, reverse=True)
        self._cut = re.compile(f"({'|'.join(map(re.escape, words))})") if words else None

    def ids_of(self, text: str) -> Sequence[int]:
        """The text's token ids, with nothing added before or behind."""
        if self._cut is None:
            return _read(self._tokenizer, [text])[0]
        pieces = [piece for piece in self._cut.split(text) if piece]
        known = self._known(pieces)
        new = list(dict.fromkeys(piece for piece in pieces if piece not in known))
        if new:
            read = dict(zip(new, _read(self._tokenizer, new), strict=True))
            known |= read
            self._keep(read)
        ids = array("I")
        for piece in pieces:
            ids.extend(known[piece])
        return ids

    def _known(self, pieces: Sequence[str]) -> dict[str, "array[int]"]:
        known: dict[str, array[int]] = {}
        with self._lock:
            for piece in pieces:
                found = self._ids.get(piece) or self._kept.get(piece)
                if found is not None:
                    known[piece] = found
                    if piece in self._kept:
                        self._kept.move_to_end(piece)
        return known

    def _keep(self, read: dict[str, "array[int]"]) -> None:
        with self._lock:
            for piece, ids in read.items():
                if piece not in self._kept and _size(piece, ids) <= self._most:
                    self._kept[piece] = ids
                    self._size += _size(piece, ids)
            while self._size > self._most:
                self._size -= _size(*self._kept.popitem(last=False))


def _cuts(tokenizer: Tokenizer) -> dict[int, str]:
    """The control tokens at which this tokenizer cuts a text, whatever stands around them; none where it may
    read a piece differently for being a text's first."""
    parts = (part for part in (tokenizer.normalizer, tokenizer.pre_tokenizer) if part is not None)
    if any(word in part.__getstate__() for part in parts for word in _MINDS_THE_START):
        return {}
    return {
        number: token.content
        for number, token in tokenizer.get_added_tokens_decoder().items()
        if not (token.normalized or token.lstrip or token.rstrip or token.single_word)
    }


def _read(tokenizer: Tokenizer, texts: Sequence[str]) -> list["array[int]"]:
    # Not `encode`: that keeps Python's interpreter to itself until it is done (tokenizers 0.23; measured,
    # docs/guide/tokens.md), and every stream of the process with it.
    read: list[Any] = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return [array("I", encoding.ids) for encoding in read]


def _size(text: str, ids: "array[int]") -> int:
    return len(text) + ids.itemsize * len(ids)
