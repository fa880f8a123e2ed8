"""Requests as a trace or a synthetic load brings them to a simulated fleet."""

from dataclasses import dataclass

from diplex_core.words import BlockHash, Seconds, Tokens


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request: when it comes, how much it reads and writes, and in whose name.

    Attributes:
        at: seconds from the beginning of the run.
        output_tokens: its answer's whole length; it ends there and not before, unless a cap cuts it.
        max_tokens: the most that its client asks for, which is all that a router hears of its length; 0: it
            knows the length.
        tier, model: "": the rules' default ones; `api_key` "": no key.
        block_hashes: chained hashes of its leading whole KV blocks, as far as others may share them.
        request_id: "": its number in the run.
    """

    at: Seconds
    prompt_tokens: Tokens
    output_tokens: Tokens
    tier: str = ""
    model: str = ""
    api_key: str = ""
    block_hashes: tuple[BlockHash, ...] = ()
    request_id: str = ""
    max_tokens: Tokens = 0
