"""OpenAI's response objects: whole ones, and the chunks that a streamed one is made of.

Chat and text completions differ in names and in where the text stands; a `Shape` says how, in one place each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from diplex.v1 import generation_pb2 as pb
from diplex_rest import sse

# OpenAI's words for the two ends that are no failure.
FINISH: Final = {pb.END_REASON_STOP: "stop", pb.END_REASON_LENGTH: "length"}


@dataclass(frozen=True, slots=True)
class Head:
    """What all chunks of one response, or the whole of it, begin with.

    `created` is in seconds since 1970. `service_tier` is the tier that serves; OpenAI tells it only to those
    who asked for one. `fingerprint` names the engine, so that a simulated answer shows as one.
    """

    id: str
    created: int
    model: str
    fingerprint: str = ""
    service_tier: str | None = None

    def of(self, kind: str) -> dict[str, Any]:
        head: dict[str, Any] = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        if self.service_tier is not None:
            head["service_tier"] = self.service_tier
        return {**head, "system_fingerprint": self.fingerprint}


class Shape(Protocol):
    """How one of the two kinds of completion words its choices; `prompt` names the field that holds it."""

    prompt: str
    id_prefix: str
    whole: str
    chunk: str

    def opening(self, index: int) -> dict[str, Any] | None:
        """A choice's first chunk, before any text; `None` where there is none."""

    def piece(self, index: int, text: str) -> dict[str, Any]:
        """A choice with a piece of its text."""

    def finish(self, index: int, reason: str) -> dict[str, Any]:
        """A choice's last chunk."""

    def choice(self, index: int, text: str, reason: str) -> dict[str, Any]:
        """A choice of a whole response."""


class ChatShape:
    prompt = "messages"
    id_prefix = "chatcmpl-"
    whole = "chat.completion"
    chunk = "chat.completion.chunk"

    def opening(self, index: int) -> dict[str, Any]:
        return self._delta(index, {"role": "assistant", "content": ""})

    def piece(self, index: int, text: str) -> dict[str, Any]:
        return self._delta(index, {"content": text})

    def finish(self, index: int, reason: str) -> dict[str, Any]:
        return self._delta(index, {}, reason)

    def choice(self, index: int, text: str, reason: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": index, "message": message, "logprobs": None, "finish_reason": reason}

    def _delta(self, index: int, delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}


class TextShape:
    prompt = "prompt"
    id_prefix = "cmpl-"
    whole = "text_completion"
    chunk = "text_completion"

    def opening(self, index: int) -> None:
        return None

    def piece(self, index: int, text: str) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": None, "finish_reason": None}

    def finish(self, index: int, reason: str) -> dict[str, Any]:
        return self.choice(index, "", reason)

    def choice(self, index: int, text: str, reason: str) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}


def usage_object(usage: pb.Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def own_words(preemptions: int) -> dict[str, Any]:
    """What diplex adds to the fields that OpenAI knows; its clients pass over it.

    Args:
        preemptions: how often the request gave way to others, and went on elsewhere with nothing lost.
    """
    return {"diplex": {"preemptions": preemptions}}


def finish_reasons(done: pb.Done, choices: int) -> list[str] | None:
    """OpenAI's word for each choice's end, or `None` where the request failed as a whole or in part."""
    told = list(done.choice_reasons)
    # Where a choice has no reason of its own, the request's holds for it.
    reasons = [told[index] if index < len(told) and told[index] else done.reason for index in range(choices)]
    if done.reason not in FINISH or any(reason not in FINISH for reason in reasons):
        return None
    return [FINISH[reason] for reason in reasons]


def whole_response(
    shape: Shape,
    head: Head,
    texts: Sequence[str],
    reasons: Sequence[str],
    usage: pb.Usage,
    own: Mapping[str, Any],
) -> dict[str, Any]:
    """A completion that is answered in one piece, diplex's own words at its end."""
    ends = zip(texts, reasons, strict=True)
    choices = [shape.choice(index, text, reason) for index, (text, reason) in enumerate(ends)]
    return {**head.of(shape.whole), "choices": choices, "usage": usage_object(usage), **own}


class Chunks:
    """The events of one streamed completion, as bytes; what repeats is built here, once.

    Args:
        choices: how many choices (`n`) it has.
        with_usage: end with a chunk that tells the usage; then every other chunk has `usage: null`.
    """

    def __init__(self, shape: Shape, head: Head, choices: int, *, with_usage: bool) -> None:
        self._shape = shape
        self._head = head.of(shape.chunk)
        self._choices = choices
        self._with_usage = with_usage
        self._around = [sse.cut(self._chunk(shape.piece(index, sse.HOLE))) for index in range(choices)]

    def opening(self) -> bytes:
        """What comes before any text: in a chat, each choice's role."""
        openings = (self._shape.opening(index) for index in range(self._choices))
        return b"".join(sse.json_event(self._chunk(opening)) for opening in openings if opening)

    def text(self, choice: int, piece: str) -> bytes:
        before, behind = self._around[choice]
        return before + sse.text(piece) + behind

    def ending(self, reasons: Sequence[str], usage: pb.Usage, own: Mapping[str, Any]) -> bytes:
        """Each choice's end, the usage where it was asked for, and `[DONE]`; the last chunk has diplex's own
        words too."""
        ends = [self._chunk(self._shape.finish(index, reason)) for index, reason in enumerate(reasons)]
        if self._with_usage:
            ends.append({**self._head, "choices": [], "usage": usage_object(usage)})
        ends[-1].update(own)
        return b"".join(map(sse.json_event, ends)) + sse.DONE

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        # A piece's hole must be the last thing of its name: the choices stand behind everything else.
        head = {**self._head, "usage": None} if self._with_usage else self._head
        return {**head, "choices": [choice]}
