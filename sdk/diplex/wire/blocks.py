"""Names for a prompt's KV blocks: chained hashes, so that equal names mean equal prefixes.

Client, router and worker name a block alike, without a word between them, in whatever language they are
written. The names are for finding what is resident; a tenant that keeps its own to itself gets them salted,
by router and worker (`diplex_core.words.salted`), never by a client.

    before(0)   = the first 8 bytes of SHA-256(the model's name, in UTF-8)
    before(i+1) = the first 8 bytes of SHA-256(before(i), then block i's ids, each a little-endian uint32)
    hash(i)     = before(i+1), read as a little-endian uint64

Only whole blocks have names. The model's name begins the chain because one engine may serve several, whose
blocks differ for the same ids. SHA-256 is in every language's reach and, of what Python's library has, the
fastest or as fast (docs/guide/tokens.md has the measurement).
"""

import sys
from array import array
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

_ID_BYTES: Final = 4
_HASH_BYTES: Final = 8


def block_hashes(ids: Iterable[int], block_tokens: int, model: str) -> tuple[int, ...]:
    """The hash of each whole block of `block_tokens` ids, from the first on.

    >>> few, more = block_hashes(range(5), 2, "m"), block_hashes(range(6), 2, "m")
    >>> len(few), len(more), few == more[:2]
    (2, 3, True)
    """
    written = array("I", ids)
    if sys.byteorder == "big":
        written.byteswap()
    return hashes_of_bytes(written.tobytes(), block_tokens, model)


def hashes_of_bytes(ids: bytes, block_tokens: int, model: str) -> tuple[int, ...]:
    """The same for ids that are written already: four bytes each, the lowest first."""
    size = block_tokens * _ID_BYTES
    if size <= 0:
        return ()
    before = _root(model)
    hashes = []
    for start in range(0, len(ids) - size + 1, size):
        before = sha256(before + ids[start : start + size]).digest()[:_HASH_BYTES]
        hashes.append(int.from_bytes(before, "little"))
    return tuple(hashes)


def root_of(model: str) -> int:
    """What a model's chains begin with."""
    return int.from_bytes(_root(model), "little")


def next_hash(before: int, ids: Iterable[int]) -> int:
    """The hash of a block behind the one with the hash `before`, or behind a chain's root.

    >>> next_hash(root_of("m"), [0, 1]) == block_hashes([0, 1], 2, "m")[0]
    True
    """
    written = array("I", ids)
    if sys.byteorder == "big":
        written.byteswap()
    digest = sha256(before.to_bytes(_HASH_BYTES, "little") + written.tobytes()).digest()
    return int.from_bytes(digest[:_HASH_BYTES], "little")


def _root(model: str) -> bytes:
    return sha256(model.encode()).digest()[:_HASH_BYTES]
