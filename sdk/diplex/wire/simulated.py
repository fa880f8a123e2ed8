"""The tokenizer of simulated engines: four bytes are a token. So here the bound is the count, for everybody.

Workers tell it as `Model.tokenizer_hash` "sim". Its token ids are the prompt's own bytes, four at a time, the
lowest first: so a simulated fleet's prompts have block hashes, and share prefixes, like any.
"""

from typing import Final

from diplex.v1 import generation_pb2 as pb
from diplex.wire.blocks import block_hashes, hashes_of_bytes
from diplex.wire.counting import bound_tokens

TOKENIZER_HASH: Final = "sim"
FIGURES: Final = pb.CountBound(bytes_per_token=4, tokens_per_message=4, tokens_per_chat=3)


def count_simulated(prompt: pb.Prompt) -> int:
    """The prompt's tokens, exactly.

    Raises:
        Problem: INVALID_ARGUMENT for an empty prompt, or a chat that is no JSON array of messages.
    """
    return bound_tokens(prompt, FIGURES)


def hash_simulated(prompt: pb.Prompt, block_tokens: int, model: str) -> tuple[int, ...]:
    """The hashes of the prompt's whole blocks, as far as they are filled with what was written.

    A chat is read as its tools, then its messages, in the JSON that carries them; the tokens that stand for
    its template come behind, and their blocks have no hash: two chats share all up to where they differ.
    """
    match prompt.WhichOneof("content"):
        case "ids":
            return block_hashes(prompt.ids.ids, block_tokens, model)
        case "text":
            return hashes_of_bytes(prompt.text.encode(), block_tokens, model)
        case "chat":
            return hashes_of_bytes(prompt.chat.tools + prompt.chat.messages, block_tokens, model)
    return ()
