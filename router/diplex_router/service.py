"""`diplex.v1.Router`, method by method, each a few lines."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import grpc
from opentelemetry import trace
from opentelemetry.context import Context as TraceContext
from opentelemetry.trace import SpanKind

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2, router_pb2_grpc
from diplex.wire.context import parent_of
from diplex.wire.frames import WorkerStreams
from diplex.wire.prompt_count import PromptCount, count_without_tokenizer
from diplex.wire.request import RequestLife, Wanted
from diplex.wire.request_span import traced
from diplex.wire.status import Problem
from diplex_router.driver import Driver
from diplex_router.explaining import explain
from diplex_router.metrics import Metrics
from diplex_router.proxy import LocalDesk, Proxied
from diplex_router.session import Answers, ClientSession, Context
from diplex_router.view import View

_LEAST_WATCH_MS: Final = 100
_GOOD_ENDS: Final = frozenset({pb.END_REASON_STOP, pb.END_REASON_LENGTH})


class RouterService(router_pb2_grpc.RouterServicer):
    """Translates; the driver's core decides."""

    def __init__(
        self,
        driver: Driver,
        view: View,
        metrics: Metrics,
        answers: Answers,
        streams: WorkerStreams,
        hello: router_pb2.RouterSessionResponse,
        addresses: Mapping[str, str],
    ) -> None:
        self._driver = driver
        self._view = view
        self._metrics = metrics
        self._answers = answers
        self._streams = streams
        self._hello = hello
        self._desk = LocalDesk(driver, answers, addresses)
        self._tracer = trace.get_tracer("diplex.router")
        self._ready = asyncio.Event()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Let a server serve it. `Generate` writes bytes that it has serialised itself."""
        router_pb2_grpc.add_RouterServicer_to_server(self, server)
        generate: grpc.RpcMethodHandler[Any, Any] = grpc.unary_stream_rpc_method_handler(
            self.Generate, request_deserializer=router_pb2.RouterGenerateRequest.FromString
        )
        server.add_registered_method_handlers("diplex.v1.Router", {"Generate": generate})

    def ready(self) -> None:
        """The ledger is rebuilt: what clients ask about the fleet is answered from now on."""
        self._ready.set()

    async def Session(  # type: ignore[override]  # writes itself: a generator could not gather while it waits
        self, request_iterator: AsyncIterator[router_pb2.RouterSessionRequest], context: Context
    ) -> None:
        session = ClientSession(self._driver, self._answers, _key_in(context), self._hello)
        await session.serve(request_iterator, context)

    async def Generate(  # type: ignore[override]  # writes itself: a generator costs 8 us more a token
        self, request: router_pb2.RouterGenerateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        request_id = request.request_id or f"req-{uuid.uuid4().hex[:16]}"
        proxied = Proxied(request_id)
        wanted = await self._wanted(request, request_id, context)
        desk, consumer = traced(
            self._tracer,
            wanted,
            self._desk,
            proxied,
            kind=SpanKind.SERVER,
            name="generate",
            parent=_parent_in(context),
        )
        done = await proxied.carry(RequestLife(wanted, desk, self._streams, consumer), context)
        if done.reason not in _GOOD_ENDS and done.error:
            await Problem.from_bytes(done.error).abort(context)

    async def _wanted(
        self,
        request: router_pb2.RouterGenerateRequest,
        request_id: str,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> Wanted:
        await self._ready.wait()
        count = PromptCount(
            request.prompt_tokens, True, tuple(request.block_hashes), request.hash_block_tokens
        )
        if not count.tokens:
            count = await self._counted(request.model, request.prompt, context)
        sampling = request.sampling
        sampling.max_tokens_stated = request.max_tokens > 0
        return Wanted(
            request_id=request_id,
            model=request.model or self._view.default_model,
            tier=request.tier,
            api_key=request.api_key or _key_in(context),
            prompt=request.prompt,
            sampling=sampling,
            prompt_tokens=count.tokens,
            exact=count.exact,
            max_tokens=request.max_tokens,
            n=request.n or 1,
            timeout=context.time_remaining(),
            block_hashes=count.block_hashes,
            hash_block_tokens=count.hash_block_tokens,
        )

    async def _counted(
        self, model: str, prompt: pb.Prompt, context: grpc.aio.ServicerContext[Any, Any]
    ) -> PromptCount:
        try:
            return count_without_tokenizer(prompt, self._view.model(model))
        except Problem as problem:
            await problem.abort(context)

    async def CountTokens(
        self, request: router_pb2.RouterCountTokensRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> router_pb2.RouterCountTokensResponse:
        await self._ready.wait()
        count = await self._counted(request.model, request.prompt, context)
        return router_pb2.RouterCountTokensResponse(tokens=count.tokens, exact=count.exact)

    async def ListModels(
        self, request: router_pb2.RouterListModelsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> router_pb2.RouterListModelsResponse:
        await (
            self._ready.wait()
        )  # at most the three seconds of a rebuild: before, nobody has said what it serves
        return self._view.models()

    async def GetFleet(
        self, request: router_pb2.RouterGetFleetRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> router_pb2.RouterGetFleetResponse:
        return router_pb2.RouterGetFleetResponse(fleet=self._view.fleet(self._driver.now()))

    async def WatchFleet(
        self, request: router_pb2.RouterWatchFleetRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[router_pb2.RouterWatchFleetResponse]:
        pause = max(_LEAST_WATCH_MS, request.interval_ms or 1000) / 1000
        while True:
            yield router_pb2.RouterWatchFleetResponse(fleet=self._view.fleet(self._driver.now()))
            await asyncio.sleep(pause)

    async def Explain(
        self, request: router_pb2.RouterExplainRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> router_pb2.RouterExplainResponse:
        await self._ready.wait()
        try:
            return explain(
                self._driver.admission, request, request.api_key or _key_in(context), self._driver.now()
            )
        except Problem as problem:
            await problem.abort(context)

    async def GetMetrics(
        self, request: router_pb2.RouterGetMetricsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> router_pb2.RouterGetMetricsResponse:
        return router_pb2.RouterGetMetricsResponse(text=self._metrics.text().decode())


def _key_in(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """The API key in the `authorization` metadata, with or without `Bearer`; "" where there is none."""
    value = _metadata(context, "authorization")
    return value[len("bearer ") :].strip() if value.lower().startswith("bearer ") else value


def _parent_in(context: grpc.aio.ServicerContext[Any, Any]) -> TraceContext:
    """The caller's span; without one, a trace begins here."""
    return parent_of(_metadata(context, "traceparent"), _metadata(context, "tracestate"))


def _metadata(context: grpc.aio.ServicerContext[Any, Any], key: str) -> str:
    for name, value in context.invocation_metadata() or ():
        if name == key and isinstance(value, str):
            return value
    return ""
