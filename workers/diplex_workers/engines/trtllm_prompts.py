"""A prompt's token ids by the tokenizer that TensorRT-LLM has loaded: exact, the chat template included."""

import json
from collections.abc import Sequence
from typing import Final

from grpc import StatusCode

from diplex.v1 import generation_pb2 as pb
from diplex.wire.status import Problem
from diplex_workers.engines.engine import Job
from diplex_workers.engines.openai_http import unavailable
from diplex_workers.engines.trtllm_interface import Tokenizer

_WORDS: Final = 200


def ids_of(prompt: pb.Prompt, tokenizer: Tokenizer | None) -> tuple[int, ...]:
    """The ids that the engine is given.

    Raises:
        Problem: INVALID_ARGUMENT for an empty prompt and for a chat that cannot be rendered.
    """
    match prompt.WhichOneof("content"):
        case "ids":
            ids = tuple(prompt.ids.ids)
        case "text":
            ids = tuple(_tokenizer(tokenizer).encode(prompt.text, add_special_tokens=True))
        case "chat":
            ids = tuple(
                _tokenizer(tokenizer).encode(_rendered(prompt.chat, tokenizer), add_special_tokens=False)
            )
        case _:
            ids = ()
    if not ids:
        raise _bad("the prompt is empty. Mend: give it text, messages or token ids")
    return ids


def produced_before(job: Job, tokenizer: Tokenizer | None) -> Sequence[int]:
    """The ids of an earlier attempt's output."""
    if job.resume is None:
        return ()
    if job.resume.ids:
        return tuple(job.resume.ids)
    return _tokenizer(tokenizer).encode(job.resume.text, add_special_tokens=False) if job.resume.text else ()


def _rendered(chat: pb.Chat, tokenizer: Tokenizer | None) -> str:
    try:
        messages = json.loads(chat.messages)
        tools = json.loads(chat.tools) if chat.tools else None
    except ValueError as error:
        raise _bad(f"messages or tools are no JSON: {error}. Mend: JSON arrays") from error
    if not messages:
        raise _bad("messages are empty. Mend: at least one message")
    try:
        return _tokenizer(tokenizer).apply_chat_template(
            messages, tools=tools, add_generation_prompt=True, tokenize=False
        )
    except Exception as error:  # a template is a program of the model's, and may raise what it likes
        raise _bad(f"the model's chat template cannot take this: {str(error)[:_WORDS]}") from error


def _tokenizer(tokenizer: Tokenizer | None) -> Tokenizer:
    if tokenizer is None:
        raise unavailable("TensorRT-LLM has no tokenizer for this checkpoint. Mend: put its files beside it")
    return tokenizer


def _bad(message: str) -> Problem:
    return Problem(StatusCode.INVALID_ARGUMENT, message, "BAD_PROMPT", field="prompt")
