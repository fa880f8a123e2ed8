"""The client: asks a router for room, then reads tokens straight from the worker."""

import asyncio
import uuid
import weakref
from collections.abc import AsyncIterator, Awaitable
from functools import partial
from types import TracebackType
from typing import Final, Self, TypeVar, Unpack, get_args

import grpc
from opentelemetry import context as otel_context
from opentelemetry import trace as otel_trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind

from diplex.answers import ModelInfo, Reply, TokenCount
from diplex.errors import DiplexError, error_of
from diplex.models import ModelList
from diplex.options import Options, check_names, counts_of, prompt_of, sampling_of
from diplex.reading import Reading
from diplex.session import RouterSession, no_router
from diplex.stream import TokenStream
from diplex.tokens.counter import Counter, Tokenizers
from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2, router_pb2_grpc
from diplex.wire.detour import Detour, Direct
from diplex.wire.frames import WorkerStreams
from diplex.wire.prompt_count import PromptCount
from diplex.wire.request import Consumer, RequestLife, Wanted
from diplex.wire.request_span import traced
from diplex.wire.serving import channel
from diplex.wire.status import Problem
from diplex.wire.telemetry import SERVER_ADDRESS, SERVER_PORT

_ANSWER_WITHIN: Final = 10.0
"""Seconds that the router has for a question about itself."""

T = TypeVar("T")


class AsyncClient:
    """A client of one router, for any number of requests at once. Used inside `async with`.

    Entering neither waits nor fails while the router is down; `wait_ready` waits for it. All requests share
    one session with the router and one with each worker.

    Args:
        target: host:port of the router.
        api_key: whose tenant pays, where a request does not say otherwise.
        patience: seconds for which requests wait for a router that does not answer, such as one that is being
            restarted; then they end in Unavailable. A request's own `timeout` may be shorter.
        tokenizers: by model name, the path of its tokenizer.json or of the folder that holds it: its prompts
            are counted exactly, not bounded, and their blocks hashed. Qwen3's and Qwen2.5's are found by
            themselves where `diplex[tokenizers,qwen]` is installed. See docs/guide/tokens.md.
        direct: "auto": tokens come straight from workers, and through the router from those that cannot be
            reached from here; "always": never through the router; "never": always.
    Raises:
        ValueError: there is no such tokenizer.
        ImportError: there are tokenizers, and the extra `tokenizers` is not installed.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:7600",
        *,
        api_key: str | None = None,
        patience: float = 10.0,
        tokenizers: Tokenizers | None = None,
        direct: Direct = "auto",
    ) -> None:
        if direct not in get_args(Direct):
            raise ValueError(f"direct is {direct!r}. Mend: one of {', '.join(get_args(Direct))}")
        self._direct = direct
        self.target = target
        self._tracer = otel_trace.get_tracer("diplex.client")
        self._where = _server_of(target)
        self._api_key = api_key or ""
        self._patience = patience
        self._counter = Counter(tokenizers)
        self._lives: weakref.WeakSet[RequestLife] = weakref.WeakSet()
        self._tasks: set[asyncio.Task[None]] = set()
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        self._channel = channel(self.target)
        self._stub: router_pb2_grpc.RouterAsyncStub = router_pb2_grpc.RouterStub(self._channel)
        self._streams = WorkerStreams()
        way_round = Detour(self._stub, self._streams, self._direct)
        self._detour = None if self._direct == "always" else way_round
        self._is_ready = asyncio.Event()
        self._models = ModelList(self._stub, changed=self._listed)
        self._session = RouterSession(
            self._stub,
            self.target,
            api_key=self._api_key,
            patience=self._patience,
            changed=self._note_ready,
        )
        self._keep(asyncio.create_task(self._session.run(), name=f"session with {self.target}"))
        self._keep(asyncio.create_task(self._models.run(), name=f"models of {self.target}"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End what runs, and the sessions. Doing it twice does nothing."""
        if self._channel is None:
            return
        for life in list(self._lives):
            life.cancel()
        if self._detour is not None:
            await self._detour.close()
        await self._streams.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._counter.close()
        await self._channel.close()
        self._channel = None

    # Requests.

    async def generate(self, prompt: str | None = None, **options: Unpack[Options]) -> Reply:
        """The whole answer to a prompt, messages or token ids; see `Options` for the keywords.

        Cancelling the caller ends the request, at the worker too.

        Raises:
            DiplexError: one of its kinds, by what went wrong.
        """
        wanted = self._wanted(prompt, options)
        reading = Reading(wanted.n, streamed=False)
        life = self._launch(wanted, reading)
        try:
            await asyncio.wait([reading.over])
        finally:
            life.cancel()
        if (error := reading.error()) is not None:
            raise error
        return reading.reply(wanted.request_id)

    def stream(self, prompt: str | None = None, **options: Unpack[Options]) -> TokenStream:
        """The answer as it comes; the same keywords. The request begins when the stream is first used.

        Raises:
            InvalidRequest: the request cannot be one.
        """
        wanted, parent = self._wanted(prompt, options), otel_context.get_current()
        return TokenStream(lambda reading: self._launch(wanted, reading, parent), wanted.n, wanted.request_id)

    def start(self, consumer: Consumer, prompt: str | None = None, **options: Unpack[Options]) -> RequestLife:
        """Begin a request for a consumer of one's own: its calls come straight from the frame that brought
        the news, on the event loop, and must neither block nor raise.

        Returns:
            The request's life, begun: it can be cancelled, and its window moved.
        Raises:
            InvalidRequest: the request cannot be one; the consumer hears nothing.
        """
        return self._launch(self._wanted(prompt, options), consumer)

    # Questions to the router.

    @property
    def ready(self) -> bool:
        """There is a session with the router, and a worker that serves something."""
        return self._channel is not None and self._is_ready.is_set()

    async def wait_ready(self, timeout: float = 10.0) -> None:  # noqa: ASYNC109  # the message tells it
        """Return once `ready`.

        Raises:
            Unavailable: it is not within so many seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._is_ready.wait()
        except TimeoutError:
            raise error_of(self._why_not_ready(timeout)) from None

    @property
    def default_model(self) -> str:
        """The model that a request without a name gets; "" while no router has said so."""
        return self._models.default_model

    async def models(self) -> list[ModelInfo]:
        """What the router serves, asked for now."""
        await self._asked(self._models.look())
        return [ModelInfo.of(model, self._models.default_model) for model in self._models.all()]

    async def fleet(self) -> router_pb2.Fleet:
        """Every worker with the ledger's account of its pool, the queues and the leases."""
        request = router_pb2.RouterGetFleetRequest()
        return (await self._asked(self._stub.GetFleet(request, timeout=_ANSWER_WITHIN))).fleet

    async def watch_fleet(self, every: float = 1.0) -> AsyncIterator[router_pb2.Fleet]:
        """The same now, and again whenever so many seconds have passed (the router: 0.1 at least).

        Raises:
            Unavailable: the router has gone.
        """
        request = router_pb2.RouterWatchFleetRequest(interval_ms=round(every * 1000))
        call = self._stub.WatchFleet(request)
        try:
            async for answer in call:
                yield answer.fleet
        except grpc.aio.AioRpcError as error:
            raise self._error_of(error) from None
        finally:
            call.cancel()

    async def metrics(self) -> str:
        """The router's metrics in Prometheus' text form."""
        request = router_pb2.RouterGetMetricsRequest()
        return (await self._asked(self._stub.GetMetrics(request, timeout=_ANSWER_WITHIN))).text

    async def count_tokens(self, prompt: str | None = None, **options: Unpack[Options]) -> TokenCount:
        """A prompt's tokens: counted here where the model's tokenizer is at hand, else as the router would
        charge them."""
        wanted = self._wanted(prompt, options)
        if (model := self._models.named(wanted.model)) is not None:
            try:
                count = await self._counter.counted(wanted.prompt, model)
            except Problem as problem:
                raise error_of(problem) from None
            if count.exact:
                return TokenCount(count.tokens, True)
        request = router_pb2.RouterCountTokensRequest(model=wanted.model, prompt=wanted.prompt)
        answer = await self._asked(self._stub.CountTokens(request, timeout=_ANSWER_WITHIN))
        return TokenCount(answer.tokens, answer.exact)

    async def explain(
        self,
        *,
        prompt_tokens: int = 0,
        model: str = "",
        tier: str = "",
        max_tokens: int = 0,
        n: int = 1,
        request_id: str = "",
        api_key: str | None = None,
    ) -> router_pb2.RouterExplainResponse:
        """Where such a request would go now: each filter's and scorer's word on each worker. With a
        `request_id`, where that one went.

        Raises:
            UnknownRequest: the router remembers no such request of this tenant.
        """
        request = router_pb2.RouterExplainRequest(
            model=model,
            tier=tier,
            api_key=api_key or self._api_key,
            prompt_tokens=prompt_tokens,
            max_tokens=max_tokens,
            n=n,
            request_id=request_id,
        )
        return await self._asked(self._stub.Explain(request, timeout=_ANSWER_WITHIN))

    # Parts.

    def _wanted(self, prompt: str | None, options: Options) -> Wanted:
        """The request in full, but for the count of its tokens."""
        check_names(options)
        try:
            max_tokens, n, timeout = counts_of(options)
            return Wanted(
                request_id=options.get("request_id") or f"req_{uuid.uuid4().hex}",
                model=options.get("model", ""),
                tier=options.get("tier", ""),
                api_key=options.get("api_key") or self._api_key,
                prompt=prompt_of(prompt, options),
                sampling=sampling_of(options),
                prompt_tokens=0,
                exact=False,
                max_tokens=max_tokens,
                n=n,
                timeout=timeout,
            )
        except Problem as problem:
            raise error_of(problem) from None

    def _launch(self, wanted: Wanted, consumer: Consumer, parent: Context | None = None) -> RequestLife:
        """Begin a request, and its span: a child of `parent`, or of whatever span is current."""
        if self._channel is None:
            raise RuntimeError("the client is not open. Mend: async with diplex.AsyncClient(…) as client")
        model = self._models.named(wanted.model)
        at_once = model is not None and self._counter.at_once(wanted.prompt)
        if model is not None:
            try:
                _complete(wanted, model)
                if at_once:
                    self._charge(wanted, model, self._counter.count(wanted.prompt, model))
            except Problem as problem:
                raise error_of(problem) from None
        desk, consumer = traced(
            self._tracer,
            wanted,
            self._session,
            consumer,
            kind=SpanKind.CLIENT,
            parent=parent,
            about=self._where,
        )
        life = RequestLife(wanted, desk, self._streams, consumer, detour=self._detour)
        if at_once:
            life.begin()
        else:
            self._keep(asyncio.create_task(self._begin_when_counted(life, wanted)))
        self._lives.add(life)
        return life

    async def _begin_when_counted(self, life: RequestLife, wanted: Wanted) -> None:
        """A long prompt is counted off the loop, and a model's name that is not listed looked for."""
        model = self._models.named(wanted.model) or await self._looked_up(wanted)
        try:
            _complete(wanted, model)
            self._charge(wanted, model, await self._counter.counted(wanted.prompt, model))
        except Problem as problem:
            life.refuse(problem)
        else:
            life.begin()

    async def _looked_up(self, wanted: Wanted) -> pb.Model:
        """A name that is not listed may be new, or the list not here yet; what stays unknown, the router
        itself refuses, in words that list what it knows."""
        try:
            async with asyncio.timeout(min(self._patience, wanted.timeout or self._patience)):
                await self._models.first.wait()
                await self._models.look()
        except (TimeoutError, grpc.aio.AioRpcError):
            pass  # the session knows how long to be patient, and what to say then
        return self._models.named(wanted.model) or pb.Model()

    def _charge(self, wanted: Wanted, model: pb.Model, count: PromptCount) -> None:
        wanted.prompt_tokens, wanted.exact = count.tokens, count.exact
        wanted.block_hashes, wanted.hash_block_tokens = count.block_hashes, count.hash_block_tokens
        if count.exact:
            wanted.worker_counted = partial(self._counter.worker_counted, model, wanted.prompt, count)

    async def _asked(self, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except grpc.aio.AioRpcError as error:
            raise self._error_of(error) from None

    def _error_of(self, error: grpc.aio.AioRpcError) -> DiplexError:
        problem = Problem.from_rpc(error)
        if problem.code is grpc.StatusCode.UNAVAILABLE and not problem.reason:
            problem = no_router(self.target, problem.message)
        return error_of(problem)

    def _listed(self) -> None:
        self._counter.follow(self._models.all())
        self._note_ready()

    def _note_ready(self) -> None:
        if self._session.up and self._models.served:
            self._is_ready.set()
        else:
            self._is_ready.clear()

    def _why_not_ready(self, waited: float) -> Problem:
        if not self._session.up:
            return no_router(self.target, f"no session with it within {waited:g} s")
        return Problem(
            grpc.StatusCode.UNAVAILABLE,
            f"the router at {self.target} had no worker within {waited:g} s. Mend: start one (diplex worker)",
            "NO_WORKER",
        )

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _complete(wanted: Wanted, model: pb.Model) -> None:
    """Add what only the model's entry in the router's list says: its name.

    Raises:
        Problem: INVALID_ARGUMENT, the model cannot take it.
    """
    if model.workers and not model.has_chat_template and wanted.prompt.HasField("chat"):
        raise Problem(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"{model.name} has no chat template, so it takes no messages. Mend: give it a prompt",
            "REQUEST_INVALID",
            field="messages",
        )
    wanted.model = wanted.model or model.name


def _server_of(target: str) -> dict[str, str | int]:
    """The router's address as spans tell it."""
    host, _, port = target.rpartition(":")
    if not host or not port.isdecimal():
        return {SERVER_ADDRESS: target}
    return {SERVER_ADDRESS: host.strip("[]"), SERVER_PORT: int(port)}
