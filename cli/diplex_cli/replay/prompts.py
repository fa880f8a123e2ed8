"""Prompts of an exact length, made of token ids, that share prefixes where the trace says so.

A block's ids are a function of its hash id alone, so that two prompts with the same leading hash ids really
begin alike; what no hash id names is a function of seed and row. Ids are drawn from 1,024 to 16,383, ordinary
tokens of every vocabulary of 30,000 and more: each takes two bytes in the protocol, so that a prompt of
120,000 tokens is made from a hash's bytes in about two milliseconds, and not one integer at a time.
"""

from collections.abc import Iterator
from hashlib import shake_128
from typing import Final

from diplex.v1 import generation_pb2 as pb
from diplex_cli.replay.traces import Row
from diplex_core.words import Tokens

LEAST_ID: Final = 1024
MOST_ID: Final = 16383

# A varint of two bytes: seven low bits with a flag that more follows, then the seven bits above.
_LOW: Final = bytes(0x80 | byte & 0x7F for byte in range(256))
_HIGH: Final = bytes(LEAST_ID // 128 + byte % ((MOST_ID + 1 - LEAST_ID) // 128) for byte in range(256))
_IDS_FIELD: Final = bytes([pb.TokenIds.IDS_FIELD_NUMBER << 3 | 2])


def prompt_of(row: Row, tokens: Tokens, block_tokens: Tokens, seed: int) -> pb.TokenIds:
    """The first so many tokens of a row's prompt.

    Args:
        block_tokens: tokens that each of the row's hash ids stands for.
    """
    packed = b"".join(_pieces(row, tokens, block_tokens, seed))
    return pb.TokenIds.FromString(_IDS_FIELD + _varint(len(packed)) + packed)


def _pieces(row: Row, tokens: Tokens, block_tokens: Tokens, seed: int) -> Iterator[bytes]:
    left = tokens
    if block_tokens:
        for hash_id in row.hash_ids:
            if left <= 0:
                return
            yield _ids(b"block %d" % hash_id, min(left, block_tokens))
            left -= block_tokens
    if left > 0:
        yield _ids(b"row %d of %d" % (row.number, seed), left)


def _ids(key: bytes, count: Tokens) -> bytes:
    """So many ids, as the protocol packs them; fewer of them are the beginning of more."""
    drawn = shake_128(key).digest(2 * count)
    packed = bytearray(2 * count)
    packed[0::2] = drawn[0::2].translate(_LOW)
    packed[1::2] = drawn[1::2].translate(_HIGH)
    return bytes(packed)


def _varint(number: int) -> bytes:
    packed = bytearray()
    while number > 0x7F:
        packed.append(number & 0x7F | 0x80)
        number >>= 7
    packed.append(number)
    return bytes(packed)
