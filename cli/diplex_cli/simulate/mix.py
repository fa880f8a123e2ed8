"""What a stream of requests is like, by its beginning."""

from collections.abc import Iterable
from itertools import islice
from typing import Final

from diplex_cli.simulate.streams import Request
from diplex_core.sim.capacity import Mix
from diplex_core.words import BlockHash, Tokens

LOOKED_AT: Final = 2000
"""Requests from the beginning of a stream that stand for all of it."""


def mix_of(requests: Iterable[Request], block_tokens: Tokens) -> Mix:
    """What a stream is like, by its beginning. What prompts share is read once, as if every worker had it."""
    seen: set[BlockHash] = set()
    read, prompts, outputs = [], [], []
    for request in islice(requests, LOOKED_AT):
        known = 0
        for block in request.hashes:
            if block not in seen:
                break
            known += 1
        seen.update(request.hashes)
        read.append(request.prompt - known * block_tokens)
        prompts.append(request.prompt)
        outputs.append(request.output)
    return Mix(read, prompts, outputs)
