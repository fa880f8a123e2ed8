"""Hashes of KV blocks that prompts share: equal for equal prefixes, and all different otherwise.

Whoever asks a router says its prompt's leading blocks as chained hashes of 64 bits. A simulated prompt has no
tokens, so its hashes are made from what a trace says of them: the id of a piece of prompt that names all that
comes before it, too.
"""

from collections.abc import Sequence
from typing import Final

from diplex_core.words import BlockHash, Blocks, Tokens

_BITS: Final = (1 << 64) - 1


def block_hash(whose: int, block: int, salt: int = 0) -> BlockHash:
    """The hash of a prefix's block, by the number of whatever names the prefix up to there.

    Source: the finalizer of SplitMix64 (G. Steele, D. Lea, C. Flood, OOPSLA 2014), which maps no two numbers
        to one; three of them are folded in one after the other.
    """
    return _mixed(_mixed(_mixed(salt & _BITS) ^ (whose & _BITS)) ^ block)


def prefix_hashes(prefix: int, tokens: Tokens, block_tokens: Tokens, seed: int) -> tuple[BlockHash, ...]:
    """The whole blocks of a prefix that goes by a number of its own."""
    return tuple(block_hash(prefix, block, seed) for block in range(tokens // block_tokens))


def piece_hashes(
    pieces: Sequence[int], piece_tokens: Tokens, prompt: Tokens, block_tokens: Tokens, salt: int
) -> tuple[BlockHash, ...]:
    """The leading KV blocks of a prompt whose pieces a trace names; each piece's id names those before it.

    A KV block is what the piece that holds its last token is, whatever the two sizes are. The prompt's last
    token belongs to no block: an engine has to read it to answer.
    """
    blocks: Blocks = min(len(pieces) * piece_tokens, prompt - 1) // block_tokens
    return tuple(
        block_hash(pieces[((block + 1) * block_tokens - 1) // piece_tokens], block, salt)
        for block in range(blocks)
    )


def _mixed(number: int) -> int:
    number = (number + 0x9E3779B97F4A7C15) & _BITS
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _BITS
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _BITS
    return number ^ (number >> 31)
