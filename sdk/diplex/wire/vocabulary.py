"""A tokenizer's name: equal ones for equal vocabularies, wherever they were read from.

Workers tell it as `Model.tokenizer_hash`, so that no client counts with another model's tokenizer. It is
taken over the vocabulary, which a tokenizer.json and a .gguf spell alike, and over no rule or template: two
that number all their tokens alike and still read a prompt differently are told apart by the first worker that
counts it.
"""

from collections.abc import Iterable
from hashlib import sha256


def tokenizer_hash(tokens: Iterable[tuple[int, str]]) -> str:
    """The first 16 hexadecimal digits of SHA-256 over each token's id, a tab, its text and a zero byte.

    Args:
        tokens: id and text of every token in use, ids ascending.

    >>> tokenizer_hash([(0, "a"), (1, "b")]), tokenizer_hash([(0, "b"), (1, "a")])
    ('a5d02d01f060f8fc', '487090de1478907b')
    """
    digest = sha256()
    for number, text in tokens:
        digest.update(f"{number}\t{text}\0".encode())
    return digest.hexdigest()[:16]
