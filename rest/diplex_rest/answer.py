"""Tokens in, an HTTP response out: what hears of one request, and puts it into OpenAI's words.

Everything here is a plain call from the frame that brought the news, and ends in a sink: no await, no task
and no queue on the way. The response's head waits for the first token, so that whatever fails before it is a
proper HTTP error with its own status.
"""

import json
from dataclasses import replace
from typing import Final

import grpc

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2
from diplex.wire.status import Problem
from diplex_rest import sse
from diplex_rest.openai.errors import ApiError, Headers, error_of
from diplex_rest.openai.response import Chunks, Head, Shape, finish_reasons, own_words, whole_response
from diplex_rest.sink import Sink

JSON: Final = (b"content-type", b"application/json")
_EVENTS: Final[Headers] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # Asks nginx not to gather events before it passes them on.
    (b"x-accel-buffering", b"no"),
]
_REASONS: Final = {number: name for name, number in pb.EndReason.items()}


class Answer:
    """The consumer of one request: a `diplex.wire.request.Consumer`. Subclasses say what becomes of tokens.

    Args:
        head: what the response begins with; who serves is filled in once somebody does.
        choices: how many choices (`n`) were asked for.
        tell_tier: name the tier in the response, as OpenAI does for those who asked for one.
    """

    def __init__(self, sink: Sink, shape: Shape, head: Head, choices: int, *, tell_tier: bool) -> None:
        self._sink = sink
        self._shape = shape
        self._head = head
        self._choices = choices
        self._tell_tier = tell_tier
        self._served_by: Headers = []
        self._preemptions = 0
        self._over = False

    def on_queued(self, position: int) -> None:
        """HTTP has no word for it."""

    def on_serving(self, granted: router_pb2.Granted, grant: pb.Grant) -> None:
        """A worker was found. Said again when the request goes on elsewhere; a head that is sent stays."""
        self._served_by = [
            (b"x-diplex-worker", grant.worker.encode()),
            (b"x-diplex-tier", grant.tier.encode()),
        ]
        if granted.simulated:
            self._served_by.append((b"x-diplex-simulated", b"true"))
        tier = grant.tier if self._tell_tier else None
        self._head = replace(self._head, fingerprint=f"diplex-{granted.engine}", service_tier=tier)

    def on_preempted(self, preemptions: int) -> None:
        """Told in the body, or in a stream's last chunk."""
        self._preemptions = preemptions

    def on_tokens(self, tokens: pb.Tokens) -> None:
        if self._over:
            return
        if tokens.choice >= self._choices:
            # Raised here, it would end the neighbours on the worker's stream too.
            self.refuse(_broken(f"the worker sent choice {tokens.choice} of {self._choices}"))
            return
        self._take(tokens.choice, tokens.text)

    def on_done(self, done: pb.Done) -> None:
        if self._over:
            return
        reasons = finish_reasons(done, self._choices)
        if reasons is None:
            self.refuse(_error_in(done, self._shape.prompt))
        else:
            self._over = True
            self._finish(reasons, done.usage)
            self._sink.end()

    def refuse(self, error: ApiError) -> None:
        """End the response with an error, unless it has ended."""
        if self._over:
            return
        self._over = True
        self._fail(error)
        self._sink.end()

    def _take(self, choice: int, text: str) -> None:
        raise NotImplementedError

    def _finish(self, reasons: list[str], usage: pb.Usage) -> None:
        raise NotImplementedError

    def _fail(self, error: ApiError) -> None:
        self._whole(error.status, error.headers(), error.body())

    def _whole(self, status: int, headers: Headers, body: bytes) -> None:
        length = (b"content-length", b"%d" % len(body))
        self._sink.open(status, [JSON, length, *headers, *self._served_by])
        self._sink.write(body)


class WholeAnswer(Answer):
    """Gathers the text, and answers in one piece."""

    def __init__(self, sink: Sink, shape: Shape, head: Head, choices: int, *, tell_tier: bool) -> None:
        super().__init__(sink, shape, head, choices, tell_tier=tell_tier)
        self._texts: list[list[str]] = [[] for _ in range(choices)]

    def _take(self, choice: int, text: str) -> None:
        self._texts[choice].append(text)

    def _finish(self, reasons: list[str], usage: pb.Usage) -> None:
        texts = ["".join(pieces) for pieces in self._texts]
        response = whole_response(
            self._shape, self._head, texts, reasons, usage, own_words(self._preemptions)
        )
        self._whole(200, [], json.dumps(response, separators=(",", ":")).encode())


class StreamedAnswer(Answer):
    """Passes each piece on as it comes."""

    def __init__(
        self, sink: Sink, shape: Shape, head: Head, choices: int, *, tell_tier: bool, with_usage: bool
    ) -> None:
        super().__init__(sink, shape, head, choices, tell_tier=tell_tier)
        self._with_usage = with_usage
        self._chunks: Chunks | None = None

    def _take(self, choice: int, text: str) -> None:
        chunks = self._chunks or self._open()
        if text:
            self._sink.write(chunks.text(choice, text))

    def _finish(self, reasons: list[str], usage: pb.Usage) -> None:
        chunks = self._chunks or self._open()
        self._sink.write(chunks.ending(reasons, usage, own_words(self._preemptions)))

    def _fail(self, error: ApiError) -> None:
        if self._chunks is None:
            super()._fail(error)
        else:
            # No finish_reason before it and no [DONE] behind it: this must not look like success.
            self._sink.write(sse.event(error.body()))

    def _open(self) -> Chunks:
        self._sink.open(200, [*_EVENTS, *self._served_by])
        self._chunks = Chunks(self._shape, self._head, self._choices, with_usage=self._with_usage)
        if opening := self._chunks.opening():
            self._sink.write(opening)
        return self._chunks


def _error_in(done: pb.Done, prompt: str) -> ApiError:
    if done.error:
        return error_of(Problem.from_bytes(done.error), prompt=prompt)
    if done.reason == pb.END_REASON_CANCELLED:
        return error_of(Problem(grpc.StatusCode.CANCELLED, "the request was cancelled", "CANCELLED"))
    reason = _REASONS.get(done.reason, str(done.reason))
    return _broken(f"the request ended in {reason}, and the worker does not say why")


def _broken(message: str) -> ApiError:
    return error_of(Problem(grpc.StatusCode.INTERNAL, message))
