"""A request's span as whoever asks sees it: from the ask to the last word, all attempts together.

The span stands between a `RequestLife` and its two neighbours, and writes down what passes: what the desk is
asked, what the consumer hears. Once the first token has passed it is no longer on the tokens' way. Where no
OpenTelemetry SDK records, nothing stands between them at all, and a trace that came in still goes out again.
"""

import time
from collections.abc import Callable, Mapping
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, StatusCode

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2
from diplex.wire import telemetry as words
from diplex.wire.context import traceparent_of
from diplex.wire.status import Problem
from diplex.wire.wanted import Answers, AskDesk, Consumer, Wanted

_ENDS: Final = {number: words.finish_word(number) for number in pb.EndReason.values()}


def traced(
    tracer: trace.Tracer,
    wanted: Wanted,
    desk: AskDesk,
    consumer: Consumer,
    *,
    kind: SpanKind,
    name: str = "",
    parent: Context | None = None,
    about: Mapping[str, str | int] | None = None,
) -> tuple[AskDesk, Consumer]:
    """Begin a request's span, as whose child the router and the worker see the request.

    Args:
        wanted: its `traceparent` becomes the span's.
        name: what the span is called, before the model; "": the conventions' word for the operation.
        parent: `None`: the current context.
        about: attributes to begin with, beside the request's own.
    Returns:
        What to build the `RequestLife` on, instead of the two that came in.
    """
    operation = words.operation_of(wanted.prompt)
    attributes: dict[str, str | int] = {
        words.OPERATION: operation,
        words.PROVIDER: words.DIPLEX,
        words.REQUEST_ID: wanted.request_id,
        **(about or {}),
    }
    if wanted.model:
        attributes[words.MODEL] = wanted.model
    if wanted.max_tokens:
        attributes[words.MAX_TOKENS] = wanted.max_tokens
    if wanted.n != 1:
        attributes[words.CHOICES] = wanted.n
    name = name or operation
    span = tracer.start_span(f"{name} {wanted.model}".rstrip(), parent, kind, attributes)
    wanted.traceparent, wanted.tracestate = traceparent_of(span)
    if not span.is_recording():
        return desk, consumer
    return TracedDesk(desk, span, name), TracedConsumer(consumer, span, wanted.n)


class TracedDesk:
    """An `AskDesk` that notes why a request is asked for again."""

    def __init__(self, desk: AskDesk, span: trace.Span, name: str) -> None:
        self._span = span
        self._name = name
        self._ask = desk.ask
        self.new_id = desk.new_id
        self.withdraw = desk.withdraw
        self.forget = desk.forget

    def ask(self, ask: router_pb2.Ask, answers: Answers) -> None:
        if ask.HasField("again"):
            again = ask.again
            self._span.add_event(
                "asked again",
                {
                    "reason": _ENDS.get(again.reason, "unknown"),
                    words.WORKER: again.worker,
                    words.ATTEMPT: again.claim.attempt,
                    words.OUTPUT_TOKENS: again.produced_tokens,
                },
            )
        else:
            # The default model has its name from the router's list, which may have come after the span began.
            self._span.update_name(f"{self._name} {ask.model}".rstrip())
            self._span.set_attribute(words.MODEL, ask.model)
        self._ask(ask, answers)


class TracedConsumer:
    """A `Consumer` that times what the other one hears, and ends the span behind its last word."""

    def __init__(self, consumer: Consumer, span: trace.Span, choices: int) -> None:
        self._consumer = consumer
        self._span = span
        self._choices = choices
        self._began = time.perf_counter()
        self._first: float | None = None
        self._queued = False
        self.on_tokens: Callable[[pb.Tokens], None] = self._first_tokens

    def on_queued(self, position: int) -> None:
        if not self._queued:
            self._queued = True
            self._span.add_event("queued", {"position": position})
        self._consumer.on_queued(position)

    def on_serving(self, granted: router_pb2.Granted, grant: pb.Grant) -> None:
        attempt: dict[str, str | int] = {words.WORKER: grant.worker, words.ATTEMPT: grant.claim.attempt}
        self._span.add_event("granted", attempt)
        self._span.set_attributes(
            {
                **attempt,
                words.PACKAGE: granted.package,
                words.PATTERN: granted.pattern,
                words.ENGINE: granted.engine,
                words.SIMULATED: granted.simulated,
                words.TIER: grant.tier,
                words.TENANT: grant.tenant,
                words.BLOCKS: grant.blocks,
                words.QUEUE_MS: granted.queue_ms,
            }
        )
        if granted.degraded_from:
            self._span.set_attribute(words.DEGRADED_FROM, granted.degraded_from)
        self._consumer.on_serving(granted, grant)

    def on_preempted(self, preemptions: int) -> None:
        self._span.set_attribute(words.PREEMPTIONS, preemptions)
        self._consumer.on_preempted(preemptions)

    def _first_tokens(self, tokens: pb.Tokens) -> None:
        self._first = time.perf_counter()
        self._span.set_attribute(words.TTFT_MS, (self._first - self._began) * 1000)
        # From here on tokens go straight to the consumer.
        self.on_tokens = self._consumer.on_tokens
        self._consumer.on_tokens(tokens)

    def on_done(self, done: pb.Done) -> None:
        self._write_down(done)
        self._span.end()
        self._consumer.on_done(done)

    def _write_down(self, done: pb.Done) -> None:
        span, usage = self._span, done.usage
        reasons = [_ENDS.get(reason, "unknown") for reason in done.choice_reasons or [done.reason]]
        span.set_attribute(words.FINISH_REASONS, reasons)
        if done.HasField("usage"):
            span.set_attribute(words.INPUT_TOKENS, usage.prompt_tokens)
            span.set_attribute(words.CACHED_TOKENS, usage.cached_tokens)
            span.set_attribute(words.OUTPUT_TOKENS, usage.completion_tokens)
        later = usage.completion_tokens / self._choices - 1
        if self._first is not None and later > 0:
            took = time.perf_counter() - self._first
            span.set_attribute(words.TPOT_MS, took / later * 1000)
            if took > 0:
                span.set_attribute(words.TOKENS_PER_SECOND, later * self._choices / took)
        if done.error:
            fail(span, Problem.from_bytes(done.error))


def fail(span: trace.Span, problem: Problem) -> None:
    """The span did not end well: the reason for programs, the words for people."""
    span.set_attribute(words.ERROR_TYPE, problem.reason or problem.code.name)
    span.set_status(StatusCode.ERROR, problem.message)
