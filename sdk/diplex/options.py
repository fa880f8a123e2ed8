"""What a user may say of a request, and how it reads in the protocol's messages."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias, TypedDict

import grpc

from diplex.v1 import generation_pb2 as pb
from diplex.wire.status import Problem

Json: TypeAlias = Any


class Options(TypedDict, total=False):
    """Keywords of `generate` and `stream`. Exactly one of prompt, messages and prompt_ids is needed.

    messages, tools, response_format: as in OpenAI's API, as Python values or as JSON bytes.
    prompt_ids: token ids; a `TokenIds` message spares a long prompt the way through Python's integers.
    model, tier: "" is the router's default.
    max_tokens: for each choice; absent or above the tier's cap: that cap.
    n: choices.
    timeout: seconds from now, waiting included; absent: no deadline.
    request_id: text for people, found again in logs and traces; "" draws one.
    api_key: instead of the client's.
    The rest: sampling; what is absent is the engine's to choose.
    """

    messages: Sequence[Mapping[str, Json]] | bytes | None
    prompt_ids: Sequence[int] | pb.TokenIds | None
    tools: Sequence[Mapping[str, Json]] | bytes | None
    model: str
    tier: str
    max_tokens: int | None
    n: int
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    seed: int | None
    stop: str | Sequence[str]
    presence_penalty: float | None
    frequency_penalty: float | None
    repetition_penalty: float | None
    min_tokens: int | None
    ignore_eos: bool
    response_format: Mapping[str, Json] | bytes | None
    logit_bias: Mapping[str, float] | None
    timeout: float | None
    request_id: str
    api_key: str | None


_SAME_NAME: Final = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "min_tokens",
)


def check_names(options: Options) -> None:
    """A misspelt keyword must not be passed over in silence.

    Raises:
        TypeError: an option that there is not.
    """
    for name in options:
        if name not in Options.__annotations__:
            raise TypeError(f"there is no option {name!r}; known: {', '.join(Options.__annotations__)}")


def prompt_of(prompt: str | None, options: Options) -> pb.Prompt:
    """The prompt, however it was given.

    Raises:
        Problem: INVALID_ARGUMENT for none, or more than one.
    """
    messages, ids = options.get("messages"), options.get("prompt_ids")
    if sum(given is not None for given in (prompt, messages, ids)) != 1:
        raise _bad("prompt", "give exactly one of prompt, messages and prompt_ids")
    if prompt is not None:
        if not prompt:
            raise _bad("prompt", "the prompt is empty. Mend: at least one character")
        return pb.Prompt(text=prompt)
    if messages is not None:
        tools = options.get("tools")
        return pb.Prompt(chat=pb.Chat(messages=as_json(messages), tools=as_json(tools) if tools else b""))
    if isinstance(ids, pb.TokenIds):
        return pb.Prompt(ids=ids)
    try:
        return pb.Prompt(ids=pb.TokenIds(ids=ids))
    except (TypeError, ValueError) as error:
        raise _bad("prompt_ids", f"prompt_ids are not token ids: {error}") from error


def sampling_of(options: Options) -> pb.Sampling:
    """How to sample. A value that the protocol cannot hold is named.

    Raises:
        Problem: INVALID_ARGUMENT.
    """
    sampling = pb.Sampling()
    for name in _SAME_NAME:
        value = options.get(name)
        if value is not None:
            try:
                setattr(sampling, name, value)
            except (TypeError, ValueError) as error:
                raise _bad(name, f"{name} cannot be {value!r}: {error}") from error
    stop = options.get("stop") or ()
    sampling.stop.extend([stop] if isinstance(stop, str) else stop)
    sampling.ignore_eos = options.get("ignore_eos", False)
    if response_format := options.get("response_format"):
        sampling.response_format = as_json(response_format)
    sampling.logit_bias.update(options.get("logit_bias") or {})
    sampling.max_tokens_stated = options.get("max_tokens") is not None
    return sampling


def counts_of(options: Options) -> tuple[int, int, float | None]:
    """`max_tokens` (0: not stated), `n` and `timeout`, checked.

    Raises:
        Problem: INVALID_ARGUMENT.
    """
    max_tokens, n = options.get("max_tokens"), options.get("n", 1)
    for name, value in (("max_tokens", max_tokens), ("n", n)):
        if value is not None and (not isinstance(value, int) or not 1 <= value < 2**32):
            raise _bad(name, f"{name} cannot be {value!r}. Mend: a whole number from 1 up")
    timeout = options.get("timeout")
    if timeout is not None and not timeout > 0:
        raise _bad("timeout", f"timeout cannot be {timeout!r}. Mend: seconds, more than 0")
    return max_tokens or 0, n, timeout


def as_json(value: Json) -> bytes:
    """Compact, so that the same conversation is the same bytes on every road.

    Raises:
        Problem: INVALID_ARGUMENT for what is no JSON.
    """
    if isinstance(value, bytes):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise _bad("messages", f"messages, tools and response_format must be JSON: {error}") from error


def _bad(field: str, message: str) -> Problem:
    return Problem(grpc.StatusCode.INVALID_ARGUMENT, message, "REQUEST_INVALID", field=field)
