"""What a prompt comes to before a worker has read it: its tokens and, where known, its blocks' hashes.

Here is what needs no tokenizer, alike for SDK, shim and router: token ids, simulated models, and the upper
bound for all others. `diplex.tokens` counts the rest exactly.
"""

from dataclasses import dataclass

from diplex.v1 import generation_pb2 as pb
from diplex.wire import simulated
from diplex.wire.blocks import block_hashes
from diplex.wire.counting import bound_tokens


@dataclass(frozen=True, slots=True)
class PromptCount:
    """A prompt's tokens; not `exact`: at most so many. `hash_block_tokens` is the size of the hashed blocks,
    0 where there are no hashes."""

    tokens: int
    exact: bool
    block_hashes: tuple[int, ...] = ()
    hash_block_tokens: int = 0


def count_without_tokenizer(prompt: pb.Prompt, model: pb.Model) -> PromptCount:
    """The count of ids, and of what a simulated model reads; else the bound.

    Raises:
        Problem: INVALID_ARGUMENT for an empty prompt, or a chat that is no JSON array of messages.
    """
    size = model.block_tokens
    if model.tokenizer_hash == simulated.TOKENIZER_HASH:
        hashes = simulated.hash_simulated(prompt, size, model.name)
        return PromptCount(simulated.count_simulated(prompt), True, hashes, size if hashes else 0)
    tokens = bound_tokens(prompt, model.bound)
    if prompt.WhichOneof("content") == "ids":
        hashes = block_hashes(prompt.ids.ids, size, model.name)
        return PromptCount(tokens, True, hashes, size if hashes else 0)
    return PromptCount(tokens, False)
