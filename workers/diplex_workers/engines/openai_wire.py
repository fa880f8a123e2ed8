"""A job as OpenAI's API words it, and what the chunks of its answer say.

A chunk may hold several tokens and does not say how many, unless it brings their ids or, as llama.cpp's, how
many there are by then; the usage at the end does. So each other chunk with text counts one, and the end
brings what was missing: never less than was sent.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from grpc import StatusCode

from diplex.v1 import generation_pb2 as pb
from diplex.wire.status import Problem
from diplex_core.words import EndReason, Tokens
from diplex_workers.engines.dialects.dialect import Dialect
from diplex_workers.engines.engine import Job, Output
from diplex_workers.engines.kv_blocks import salt_word
from diplex_workers.engines.openai_http import problem_of, status_of, unavailable, unreadable, words_of
from diplex_workers.engines.runs import Run

_ENDS: Final[Mapping[str, EndReason]] = {
    "stop": EndReason.STOP,
    "length": EndReason.LENGTH,
    "tool_calls": EndReason.STOP,
    "function_call": EndReason.STOP,
    "content_filter": EndReason.STOP,
}
# Sampling's fields that are said elsewhere than by name.
_OURS: Final = frozenset({"max_tokens_stated"})


def request_of(
    job: Job, model: str, dialect: Dialect, priority: int | None = None
) -> tuple[str, dict[str, Any]]:
    """Path and body of the request.

    Args:
        priority: the server's own, where it goes by any.
    Raises:
        Problem: INVALID_ARGUMENT for sampling that this server has no word for, or JSON that is none.
    """
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": job.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        **dialect.extra,
        **_sampling(job.sampling, dialect),
    }
    if priority is not None:
        body[dialect.priority] = priority
    if job.salt and dialect.salt:
        body[dialect.salt] = salt_word(job.salt)
    if job.choices > 1:
        body["n"] = job.choices
    match job.prompt.WhichOneof("content"):
        case "chat":
            body["messages"] = _json(job.prompt.chat.messages, "messages")
            if job.prompt.chat.tools:
                body["tools"] = _json(job.prompt.chat.tools, "tools")
                body |= dialect.with_tools
            return "/v1/chat/completions", body
        case "ids":
            body["prompt"] = list(job.prompt.ids.ids)
        case _:
            body["prompt"] = job.prompt.text
    return "/v1/completions", body


def _sampling(sampling: pb.Sampling, dialect: Dialect) -> dict[str, Any]:
    # Only what was stated is listed: an absent field leaves the choice to the engine.
    stated = {field.name: value for field, value in sampling.ListFields() if field.name not in _OURS}
    for name in stated:
        if name not in dialect.sampling:
            message = f"a server attached as {dialect.api} takes no {name}. Mend: leave {name} out"
            raise Problem(StatusCode.INVALID_ARGUMENT, message, "BAD_SAMPLING", field=name)
    if "stop" in stated:
        stated["stop"] = list(sampling.stop)
    if "logit_bias" in stated:
        stated["logit_bias"] = dict(sampling.logit_bias)
    if "response_format" in stated:
        stated["response_format"] = _json(sampling.response_format, "response_format")
    return {dialect.sampling[name]: value for name, value in stated.items()}


def _json(data: bytes, field: str) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        message = f"{field} cannot be read: {error}. Mend: JSON as OpenAI's API has it"
        raise Problem(StatusCode.INVALID_ARGUMENT, message, "BAD_PROMPT", field=field) from error


class AnswerReader:
    """Reads one answer's chunks into outputs. Pure: it is told, and says.

    Args:
        produced: how many tokens there are by a chunk's own word.
    """

    def __init__(
        self, run: Run, produced: Callable[[Mapping[str, Any]], Tokens | None] = lambda chunk: None
    ) -> None:
        self._run = run
        self._produced = produced if run.job.choices == 1 else lambda chunk: None
        self._ends: dict[int, EndReason] = {}
        # Text that came without a token of its own: it goes out with the next one.
        self._text = [""] * run.job.choices
        self._usage: Mapping[str, Any] = {}

    @property
    def prompt_tokens(self) -> Tokens | None:
        """The server's count of the prompt, once it said so."""
        return self._usage.get("prompt_tokens")

    def take(self, chunk: Mapping[str, Any]) -> list[Output]:
        """The outputs of one chunk.

        Raises:
            Problem: the server's own error, or an answer that diplex cannot carry.
        """
        if wrong := chunk.get("error") or (chunk if chunk.get("object") == "error" else None):
            words = words_of(json.dumps({"error": wrong}))
            raise problem_of(status_of(wrong), words, "the attached server")
        if isinstance(usage := chunk.get("usage"), dict):
            self._usage = usage
        try:
            so_far = self._produced(chunk)
            return [out for choice in chunk.get("choices") or () for out in self._news(choice, so_far)]
        except (AttributeError, IndexError, TypeError) as error:
            raise unreadable(f"the attached server sent a chunk that is none: {error!r}") from error

    def _news(self, choice: Mapping[str, Any], so_far: Tokens | None) -> list[Output]:
        index = choice.get("index") or 0
        delta = choice.get("delta") or {}
        if delta.get("tool_calls"):
            message = (
                "the attached server answered with tool calls, and diplex carries text. "
                "Mend: start it without a tool-call parser, or send no tools"
            )
            raise Problem(StatusCode.UNIMPLEMENTED, message, "TOOL_CALLS")
        text = _whole(choice.get("text") or delta.get("content") or "")
        ids = choice.get("token_ids")
        thinks = delta.get("reasoning_content") or delta.get("reasoning")
        if so_far is not None:
            count = max(0, min(so_far, self._run.job.max_tokens) - self._run.sent[index])
        else:
            count = len(ids) if ids is not None else int(bool(text or thinks))
        if reason := choice.get("finish_reason"):
            if reason not in _ENDS:
                raise unavailable(f"the attached server gave the answer up: finish_reason {reason!r}")
            self._ends[index] = _ENDS[reason]
        self._text[index] += text
        if not count:
            return []
        text, self._text[index] = self._text[index], ""
        return [self._run.tokens(index, count, ids or (), text)]

    def finish(self) -> list[Output]:
        """The choices' ends, once the stream is over, with the tokens that no chunk was counted for.

        Raises:
            Problem: UNAVAILABLE where a choice has no end: the server went away.
        """
        run = self._run
        if not run.open <= self._ends.keys():
            raise unavailable("the attached server's answer broke off before its end")
        missing = self._usage.get("completion_tokens", 0) - sum(run.sent)
        cached = (self._usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        outputs = []
        # Who ran to the limit has exactly max_tokens; what is missing beside that is the others'.
        for index in sorted(run.open, key=lambda i: (self._ends[i] is not EndReason.LENGTH, i)):
            more = max(0, min(missing, run.job.max_tokens - run.sent[index]))
            missing -= more
            text = self._text[index]
            outputs.append(run.end(index, self._ends[index], cached=cached, more=more, text=text))
            cached = 0
        return outputs


def _whole(text: str) -> str:
    """Without halves of surrogate pairs, which JSON can write and UTF-8 cannot."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
