"""How a claim grows: when its worker asks for more, and for how much.

A request with `reserve: expected` holds its prompt and the output that such requests mostly come to. The few
that come to more ask in time, for an eighth more of what they hold: so the longest answer asks as often as
the logarithm of its length has steps, and what it holds too much is an eighth at most. Router, worker and
simulator go by these same few lines.
"""

from typing import Final

from diplex_core.words import Blocks, Tokens, blocks_needed

LEAD: Final[Tokens] = 64
"""So many tokens before its limit a sequence asks for more: mostly the answer comes before it has to wait."""
_LEAST: Final[Blocks] = 4
_SHARE: Final = 8


def limit(blocks: Blocks, block_tokens: Tokens, *, cached: Tokens = 0, draft: Tokens = 0) -> Tokens:
    """Prompt and output tokens, together, that a claim of one sequence has room for.

    Args:
        blocks: that it holds for itself.
        cached: leading prompt tokens that lie in resident blocks beside them.
        draft: tokens that speculation may write ahead of the accepted output.

    >>> limit(4, 32, cached=64, draft=5)
    187
    """
    return cached + blocks * block_tokens - draft


def next_size(
    blocks: Blocks,
    prompt: Tokens,
    max_tokens: Tokens,
    block_tokens: Tokens,
    *,
    cached: Tokens = 0,
    draft: Tokens = 0,
) -> Blocks:
    """The whole size that a claim asks for next; its own size where it holds all that it may come to need.

    Args:
        blocks: that it holds for itself.
        prompt: tokens of its prompt, output of earlier attempts included.
        max_tokens: most output tokens that this attempt may produce.
        cached, draft: as in `limit`.

    >>> next_size(64, 1000, 4000, 32)
    72
    >>> next_size(155, 1000, 4000, 32)
    157
    """
    most = blocks_needed(prompt, max_tokens, block_tokens, cached=cached, draft=draft)
    return max(blocks, min(most, blocks + max(_LEAST, blocks // _SHARE)))
