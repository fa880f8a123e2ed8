"""One generation request's way through: read it, start it, carry its answer out, and watch its client."""

import secrets
import time
from collections.abc import Callable
from typing import Final

from opentelemetry.trace import use_span
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from diplex import AsyncClient
from diplex.options import Options
from diplex.wire.request import RequestLife
from diplex_rest.answer import Answer, StreamedAnswer, WholeAnswer
from diplex_rest.body import ClientGone, Reader, read_body
from diplex_rest.connection import connection_of
from diplex_rest.direct import DirectSink, Turns
from diplex_rest.front import request_id_of, span_of
from diplex_rest.metrics import Metrics
from diplex_rest.openai.request import Call
from diplex_rest.openai.response import Head, Shape
from diplex_rest.sink import Carrier, GatheringSink, Sink
from diplex_rest.underway import Underway

TIER_HEADER: Final = "x-diplex-tier"
_BEARER: Final = "bearer "


class Generating:
    """One of the two generating routes, as an ASGI application.

    Args:
        read: reads the request's body; raises ApiError where it is wrong.
    """

    def __init__(
        self,
        client: AsyncClient,
        metrics: Metrics,
        turns: Turns,
        underway: Underway,
        reader: Reader,
        shape: Shape,
        read: Callable[[bytes], Call],
    ) -> None:
        self._client = client
        self._metrics = metrics
        self._turns = turns
        self._underway = underway
        self._reader = reader
        self._shape = shape
        self._read = read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        try:
            call = await self._reader.call(await read_body(headers, receive), self._read)
        except ClientGone:
            return
        if not (call.model or self._client.default_model):
            # A response names its model, so the default one's name must be known.
            await self._client.models()
        connection = connection_of(scope)
        sink: Carrier = (
            GatheringSink(self._metrics) if connection is None else DirectSink(connection, self._turns)
        )
        options: Options = {
            **call.options,
            "model": call.model,
            "tier": headers.get(TIER_HEADER) or call.service_tier,
            "api_key": bearer(headers),
            "request_id": request_id_of(scope),
        }
        with use_span(span_of(scope), record_exception=False, set_status_on_exception=False):
            answer = self._answer(call, sink)
            life = self._client.start(answer, call.prompt, **options)
        try:
            with self._underway.noted(answer), self._metrics.answering(streamed=call.stream):
                await sink.carry(receive, send, _Asker(life, self._metrics))
        finally:
            life.cancel()

    def _answer(self, call: Call, sink: Sink) -> Answer:
        model = call.model or self._client.default_model
        head = Head(self._shape.id_prefix + secrets.token_hex(12), int(time.time()), model)
        tell_tier = bool(call.service_tier)
        if call.stream:
            return StreamedAnswer(
                sink, self._shape, head, call.choices, tell_tier=tell_tier, with_usage=call.with_usage
            )
        return WholeAnswer(sink, self._shape, head, call.choices, tell_tier=tell_tier)


class _Asker:
    """Whoever asked, as the sink hears of them, and as the worker is to know: an `Owner`."""

    def __init__(self, life: RequestLife, metrics: Metrics) -> None:
        self._life = life
        self._metrics = metrics

    def hold(self) -> None:
        # 0 would mean: no bound. Whoever holds back a first token has been sent something before it.
        self._life.window(max(1, self._life.produced))

    def go_on(self) -> None:
        self._life.window(0)

    def leave(self) -> None:
        self._metrics.client_left()
        self._life.cancel()


def bearer(headers: Headers) -> str:
    """The API key that the client showed, or "" for none."""
    given = headers.get("authorization", "")
    return given[len(_BEARER) :].strip() if given[: len(_BEARER)].lower() == _BEARER else ""
