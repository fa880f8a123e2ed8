"""A job as llama.cpp's `/completion` wants it, and what its stream of events says, token by token.

llama.cpp says nothing while a character is unfinished, then its text with the last token's id only; and
while text might become a stop string it sends ids without text. Both wait here until the text is there:
what is handed on is always whole, and a sequence that is taken up again elsewhere neither loses nor
repeats a letter.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from grpc import StatusCode

from diplex.v1 import generation_pb2 as pb
from diplex.wire.status import Problem
from diplex_core.words import Tokens
from diplex_workers.engines.engine import Job

# Sampling's optional fields, and what llama.cpp calls them.
_NAMES: Final = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repetition_penalty": "repeat_penalty",
}
# llama.cpp's seeds have 32 bits, and the highest means "any".
_SEEDS: Final = 2**32 - 1
# Leaves the prompt and the settings out of the last event, where they would come back in full.
_FIELDS: Final = ["index", "stop", "stop_type", "tokens_predicted", "tokens", "content", "error"]


def completion(job: Job, prompt: Sequence[int]) -> dict[str, Any]:
    """The body of the request.

    Args:
        prompt: the prompt's ids, output of an earlier attempt included.
    Raises:
        Problem: INVALID_ARGUMENT for what llama.cpp has no word for.
    """
    sampling = job.sampling
    body: dict[str, Any] = {
        "prompt": list(prompt),
        "n_predict": left_to_produce(job),
        "n": job.choices,
        "stream": True,
        "return_tokens": True,
        # An event at each prompt chunk: it shows that reading began, and a closed connection is noticed.
        "return_progress": True,
        "cache_prompt": False,
        "response_fields": _FIELDS,
        "ignore_eos": sampling.ignore_eos,
    }
    # Only what was stated: optional fields that are absent are not listed.
    stated = {field.name: value for field, value in sampling.ListFields()}
    body |= {theirs: stated[ours] for ours, theirs in _NAMES.items() if ours in stated}
    if "seed" in stated:
        body["seed"] = sampling.seed % _SEEDS
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.min_tokens:
        raise _unknown("min_tokens", "llama.cpp has no min_tokens. Mend: leave it out, or ignore_eos")
    if sampling.logit_bias:
        body["logit_bias"] = [[_token_id(key), bias] for key, bias in sampling.logit_bias.items()]
    if (schema := _schema(sampling)) is not None:
        body["json_schema"] = schema
    return body


def left_to_produce(job: Job) -> Tokens:
    """Output tokens that the job may still produce: what an earlier attempt produced is behind it."""
    return job.max_tokens - (job.resume.from_index if job.resume else 0)


def _schema(sampling: pb.Sampling) -> Any:
    if not sampling.response_format:
        return None
    try:
        wanted = json.loads(sampling.response_format)
        match wanted["type"]:
            case "text":
                return None
            case "json_object":
                return {"type": "object"}
            case "json_schema":
                return wanted["json_schema"]["schema"]
            case other:
                raise _unknown(
                    "response_format", f"response_format {other!r} is not known. Mend: json_schema"
                )
    except (ValueError, KeyError, TypeError) as error:
        message = f"response_format cannot be read: {error!r}. Mend: OpenAI's json_schema or json_object"
        raise _unknown("response_format", message) from error


def _token_id(key: str) -> int:
    if not key.isdecimal():
        raise _unknown("logit_bias", f"logit_bias names {key!r}, which is no token id. Mend: ids as text")
    return int(key)


def _unknown(field_: str, message: str) -> Problem:
    return Problem(StatusCode.INVALID_ARGUMENT, message, "BAD_SAMPLING", field=field_)


@dataclass(slots=True)
class ChoiceReader:
    """One choice's tokens on their way from events to outputs. Pure: it is told, and says."""

    said: Tokens = 0  # tokens that events have told of
    held: list[int] = field(default_factory=list)  # ids that wait for their text
    unnamed: Tokens = 0  # of the tokens told of, those that wait and whose ids were not said

    def take(self, event: dict[str, Any]) -> tuple[Tokens, list[int], str]:
        """What an event adds: tokens, the ids that are known of them, text. Nothing while text waits."""
        ids, text = event.get("tokens") or [], event.get("content") or ""
        new = event["tokens_predicted"] - self.said
        self.said += new
        self.unnamed += new - len(ids)
        self.held += ids
        return self.release(text) if text else (0, [], "")

    def release(self, text: str = "") -> tuple[Tokens, list[int], str]:
        """Everything that waited, with its text. Fewer ids than tokens: see `named`."""
        count, ids = len(self.held) + self.unnamed, self.held
        self.held, self.unnamed = [], 0
        return count, ids, text


def named(count: Tokens, known: Sequence[int], tokenised: Sequence[int]) -> tuple[int, ...]:
    """All ids of a text of which only some were said, from the tokenizer's own reading of that text.

    It is taken only if it has as many tokens and ends in the same one; otherwise the ids stay unknown.

    >>> named(3, [222], [137, 98, 222])
    (137, 98, 222)
    >>> named(3, [222], [137, 222])
    ()
    """
    if len(tokenised) == count and known and tokenised[-1] == known[-1]:
        return tuple(tokenised)
    return ()
