"""What one request has said so far: the consumer that both a whole answer and a stream are read from."""

import asyncio
import time

import grpc

from diplex.answers import Choice, Reply, Serving, Timing, Usage
from diplex.errors import DiplexError, error_of
from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2
from diplex.wire.coalesce import TokenOutbox
from diplex.wire.status import Problem
from diplex.wire.telemetry import finish_word
from diplex.wire.window import Window

_GOOD_ENDS = frozenset({pb.END_REASON_STOP, pb.END_REASON_LENGTH})


class Reading:
    """A `Consumer` that gathers. Its calls are plain: no task wakes for a token unless a stream waits for it.

    Args:
        choices: how many answers (`n`) were asked for.
        streamed: tokens are also put into `news`.
    Attributes:
        served: resolves when a worker has begun to answer, or the request is over.
        over: resolves with the request's end, whatever that was.
        gave_way_at: the index behind its last token, each time that it gave way to others.
        news: what a stream has not yet taken, joined.
        window: of a stream that is read, so that not all of an answer waits for a reader that does not.
    """

    def __init__(self, choices: int, *, streamed: bool) -> None:
        loop = asyncio.get_running_loop()
        self._streamed = streamed
        self.served: asyncio.Future[None] = loop.create_future()
        self.over: asyncio.Future[pb.Done] = loop.create_future()
        self.news: TokenOutbox[pb.Tokens] = TokenOutbox()
        self.window: Window | None = None
        self.serving: Serving | None = None
        self.gave_way_at: list[int] = []
        self._texts: list[list[str]] = [[] for _ in range(choices)]
        self._ids: list[list[int]] = [[] for _ in range(choices)]
        self._began = time.perf_counter()
        self._first: float | None = None
        self._last = self._ended = self._began
        self._count = self._count_at_first = 0

    def on_queued(self, position: int) -> None:
        """A user of the SDK waits either way."""

    def on_serving(self, granted: router_pb2.Granted, grant: pb.Grant) -> None:
        """Granted is not yet served: the worker may refuse. `served` waits for its first tokens."""
        self.serving = Serving.of(granted, grant)

    def on_tokens(self, tokens: pb.Tokens) -> None:
        self._last = time.perf_counter()
        self._count += tokens.count
        if self._first is None:
            self._first, self._count_at_first = self._last, tokens.count
            self._serve()
        choice = tokens.choice
        if choice < len(self._texts):
            self._texts[choice].append(tokens.text)
            self._ids[choice] += tokens.ids[:]
        if self._streamed:
            if self.window is not None:
                self.window.came(tokens.index + tokens.count)
            self.news.put_tokens(tokens)

    def on_preempted(self, preemptions: int) -> None:
        """Only a request with one choice gives way, so its tokens say where."""
        self.gave_way_at.append(self._count)

    def on_done(self, done: pb.Done) -> None:
        self._ended = time.perf_counter()
        self.over.set_result(done)
        self._serve()
        self.news.close()

    def _serve(self) -> None:
        if not self.served.done():
            self.served.set_result(None)

    def error(self, *, cancelled_by_caller: bool = False) -> DiplexError | None:
        """Why it did not end well; `None` where it did, or where the caller itself cancelled it."""
        done = self.over.result()
        if done.reason in _GOOD_ENDS:
            return None
        if done.error:
            problem = Problem.from_bytes(done.error)
        elif done.reason == pb.END_REASON_CANCELLED:
            problem = Problem(grpc.StatusCode.CANCELLED, "the request was cancelled", "CANCELLED")
        else:
            word = finish_word(done.reason)
            problem = Problem(
                grpc.StatusCode.INTERNAL, f"the request ended as {word}, and nobody said why", "UNEXPLAINED"
            )
        if cancelled_by_caller and done.reason == pb.END_REASON_CANCELLED:
            return None
        return error_of(problem)

    def reply(self, request_id: str) -> Reply:
        """The whole answer, once it is over: also of a request that was cut short."""
        done = self.over.result()
        finish = finish_word(done.reason)
        reasons = [finish_word(reason) for reason in done.choice_reasons]
        reasons += [finish] * (len(self._texts) - len(reasons))
        choices = tuple(
            Choice("".join(texts), tuple(ids), reason)
            for texts, ids, reason in zip(self._texts, self._ids, reasons, strict=False)
        )
        usage = done.usage
        return Reply(
            request_id=self.serving.request_id if self.serving and self.serving.request_id else request_id,
            choices=choices,
            finish_reason=finish,
            usage=Usage(usage.prompt_tokens, usage.completion_tokens or self._count, usage.cached_tokens),
            timing=Timing.of(done.timing),
            serving=self.serving,
            ttft_s=None if self._first is None else self._first - self._began,
            e2e_s=self._ended - self._began,
            tokens_per_s=self._tokens_per_s(),
            preemptions=len(self.gave_way_at),
        )

    def _tokens_per_s(self) -> float | None:
        if self._first is None or self._last <= self._first:
            return None
        return (self._count - self._count_at_first) / (self._last - self._first)
