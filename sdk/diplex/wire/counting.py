"""What a prompt costs at most before anybody tokenised it.

Whoever holds the prompt asks the router for room, and often has no tokenizer. The worker learns how many
tokens bytes turn into, `ListModels` carries its three figures, and the bound is counted here alike by SDK,
shim, router and simulated engine. The worker's own count, later, is the one that is charged.
"""

import json
from math import ceil

import grpc

from diplex.v1 import generation_pb2 as pb
from diplex.wire.status import Problem


def bound_tokens(prompt: pb.Prompt, bound: pb.CountBound) -> int:
    """Most tokens that a prompt may turn into, chat template included; of token ids, how many they are.

    Args:
        bound: the model's figures; without `bytes_per_token` each byte counts as a token, which no
            byte-level tokenizer exceeds.
    Raises:
        Problem: INVALID_ARGUMENT for an empty prompt, or a chat that is no JSON array of messages.

    >>> figures = pb.CountBound(bytes_per_token=4, tokens_per_message=4, tokens_per_chat=3)
    >>> bound_tokens(pb.Prompt(text="to be or not"), figures)
    3
    >>> bound_tokens(pb.Prompt(chat=pb.Chat(messages=b'[{"role":"user","content":"hi"}]')), figures)
    15
    """
    ratio = bound.bytes_per_token if bound.bytes_per_token > 0 else 1.0
    match prompt.WhichOneof("content"):
        case "text":
            return max(1, ceil(len(prompt.text.encode()) / ratio))
        case "ids":
            if prompt.ids.ids:
                return len(prompt.ids.ids)
            raise _bad("prompt", "the prompt is empty. Mend: at least one token")
        case "chat":
            messages = _messages_in(prompt.chat)
            written = ceil((len(prompt.chat.messages) + len(prompt.chat.tools)) / ratio)
            return written + ceil(messages * bound.tokens_per_message + bound.tokens_per_chat)
    raise _bad("prompt", "the request has no prompt. Mend: give it text, messages or token ids")


def _messages_in(chat: pb.Chat) -> int:
    try:
        messages = json.loads(chat.messages)
    except ValueError as error:
        raise _bad("messages", f"messages are no JSON: {error}. Mend: a JSON array of messages") from error
    if not isinstance(messages, list) or not messages:
        raise _bad("messages", "messages are no JSON array, or empty. Mend: at least one message")
    return len(messages)


def _bad(field: str, message: str) -> Problem:
    return Problem(grpc.StatusCode.INVALID_ARGUMENT, message, "BAD_PROMPT", field=field)
