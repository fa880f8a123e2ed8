"""How many tokens a prompt may turn into at most, learned from the prompts that were counted.

    bound = ceil(bytes / bytes_per_token) + messages * tokens_per_message + tokens_per_chat

A client without a tokenizer is charged by this bound, and refused when it was too low; so it follows the
fewest bytes per token seen at once, and climbs back slowly while prompts turn out cheaper.
"""

import json
from collections.abc import Mapping
from typing import Final

from diplex.v1 import generation_pb2 as pb
from diplex.wire.counting import bound_tokens
from diplex_core.words import Tokens

START: Final = {"bytes_per_token": 3.0, "tokens_per_message": 8.0, "tokens_per_chat": 16.0}

# Shorter prompts say little about bytes per token.
_TELLING: Final[Tokens] = 64
_CLIMB: Final = 0.02  # of the way to a cheaper prompt, for each that comes
_MARGIN: Final = 0.9  # climb no nearer than this to what was just seen
_FEWEST_BYTES: Final = 0.25  # no tokenizer makes four tokens of a byte


class LearnedBound:
    """One model's three figures, learned here or, where the worker sees no exact counts, by the engine."""

    def __init__(self) -> None:
        self.figures = pb.CountBound(**START)
        self._learned = False

    def follow(self, figures: pb.CountBound | None) -> None:
        """Take over what the engine says of itself, for as long as nothing was learned here."""
        if figures is not None and not self._learned:
            self.figures.CopyFrom(figures)

    def learn(self, prompt: pb.Prompt, tokens: Tokens) -> None:
        """Take in an exact count."""
        match prompt.WhichOneof("content"):
            case "text":
                size, fixed = len(prompt.text.encode()), 0.0
            case "chat":
                size = len(prompt.chat.messages) + len(prompt.chat.tools)
                messages = len(json.loads(prompt.chat.messages))
                fixed = messages * self.figures.tokens_per_message + self.figures.tokens_per_chat
            case _:
                return
        self._learned = True
        excess = tokens - bound_tokens(prompt, self.figures)
        own = tokens - fixed
        if own < _TELLING:
            # A short text that was charged too little is asked for again; that is cheaper than to charge
            # all the long ones for it.
            self.figures.tokens_per_chat += max(0, excess) if fixed else 0
        elif excess > 0:
            self.figures.bytes_per_token = max(_FEWEST_BYTES, size / own)
        else:
            better = _MARGIN * size / own - self.figures.bytes_per_token
            self.figures.bytes_per_token += _CLIMB * max(0.0, better)


def bounds_of(engine: object) -> Mapping[str, pb.CountBound]:
    """What an engine itself says of each model: its optional attribute `bounds`."""
    bounds: Mapping[str, pb.CountBound] = getattr(engine, "bounds", {})
    return bounds
