"""Router and workers that play their part by script, as real gRPC servers on free ports.

The client under test dials them as it would dial any: nothing stands between it and the wire.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
import pytest

import diplex
from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2, router_pb2_grpc, worker_pb2, worker_pb2_grpc
from diplex.wire.grants import Keys
from diplex.wire.serving import SERVER_OPTIONS, bind
from diplex.wire.status import Problem

MODEL = "m"
PATIENCE = 5.0  # seconds that a test waits for what must come
KEYS = Keys.of("k1:for tests only")

T = TypeVar("T")


async def soon(awaitable: Awaitable[T]) -> T:
    """Its result, or a failed test."""
    async with asyncio.timeout(PATIENCE):
        return await awaitable


async def until(true: Callable[[], object]) -> None:
    """Return once something is true; the one way in which these tests poll."""
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110  # what is awaited here has no event of its own
            await asyncio.sleep(0.005)


class Scripted:
    """A server that can be killed and started again on the same port."""

    def __init__(self) -> None:
        self.port = 0
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def add_to(self, server: grpc.aio.Server) -> None:
        raise NotImplementedError

    async def start(self) -> None:
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        self.add_to(self._server)
        self.port = await bind(self._server, "127.0.0.1", self.port, option="--port")
        await self._server.start()

    async def kill(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None


@dataclass
class Desk:
    """The router's end of one client session."""

    context: Any
    heard: "asyncio.Queue[router_pb2.Ask | router_pb2.Withdraw]"
    metadata: dict[str, str]
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    broken: asyncio.Event = field(default_factory=asyncio.Event)

    async def hears(self) -> Any:
        """The next ask or withdrawal."""
        return await soon(self.heard.get())

    async def say(self, **answers: Any) -> None:
        await self.context.write(router_pb2.RouterSessionResponse(**answers))

    async def grant(self, ask: router_pb2.Ask, worker: "ScriptedWorker", **more: Any) -> pb.Claim:
        """Let an ask run on a worker; the claim that it may show there."""
        granted = granted_on(ask, worker, **more)
        await self.say(granted=[granted])
        return pb.Grant.FromString(granted.grant.grant).claim

    async def refuse(self, ask: router_pb2.Ask, problem: Problem) -> None:
        await self.say(refused=[router_pb2.Refused(ask_id=ask.ask_id, status=problem.to_bytes())])

    def break_off(self) -> None:
        self.broken.set()


def granted_on(
    ask: router_pb2.Ask, worker: "ScriptedWorker", *, can_resume: bool = True
) -> router_pb2.Granted:
    grant = pb.Grant(
        claim=pb.Claim(lease_id=1000 + ask.ask_id, attempt=ask.again.claim.attempt + 1),
        request_id=ask.request_id,
        worker=worker.name,
        max_tokens=ask.max_tokens or 16,
        tier=ask.tier or "standard",
        tenant="default",
        choices=ask.n or 1,
    )
    return router_pb2.Granted(
        ask_id=ask.ask_id,
        grant=KEYS.sign(grant),
        address=worker.address,
        pattern="A",
        package="pkg0",
        engine="script",
        simulated=True,
        queue_ms=1.5,
        can_resume=can_resume,
    )


class ScriptedRouter(Scripted, router_pb2_grpc.RouterServicer):
    """Answers as it is told. With `placed` it grants each ask at once, on the worker that `placed` picks."""

    def __init__(self) -> None:
        super().__init__()
        self.desks: asyncio.Queue[Desk] = asyncio.Queue()
        self.placed: Callable[[router_pb2.Ask], ScriptedWorker] | None = None
        bound = pb.CountBound(bytes_per_token=4, tokens_per_message=4, tokens_per_chat=3)
        self.models = [pb.Model(name=MODEL, context=2048, has_chat_template=True, bound=bound, workers=1)]
        self.looks = 0
        self.proxied: asyncio.Queue[Proxied] = asyncio.Queue()

    def add_to(self, server: grpc.aio.Server) -> None:
        router_pb2_grpc.add_RouterServicer_to_server(self, server)

    async def desk(self) -> Desk:
        """The next session that a client opens."""
        return await soon(self.desks.get())

    async def Session(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        metadata = {key: str(value) for key, value in context.invocation_metadata()}
        desk = Desk(context, asyncio.Queue(), metadata)

        async def read() -> None:
            async for request in request_iterator:
                for ask in request.asks:
                    if self.placed is not None:
                        await desk.grant(ask, self.placed(ask))
                    else:
                        desk.heard.put_nowait(ask)
                for withdraw in request.withdraws:
                    desk.heard.put_nowait(withdraw)

        await serve(read, context, desk, self.desks, router_pb2.RouterSessionResponse(router="r", epoch=7))

    async def ListModels(self, request: Any, context: Any) -> router_pb2.RouterListModelsResponse:
        self.looks += 1
        return router_pb2.RouterListModelsResponse(models=self.models, default_model=MODEL)

    async def GetFleet(self, request: Any, context: Any) -> router_pb2.RouterGetFleetResponse:
        return router_pb2.RouterGetFleetResponse(fleet=router_pb2.Fleet(router="r", epoch=7, ready=True))

    async def GetMetrics(self, request: Any, context: Any) -> router_pb2.RouterGetMetricsResponse:
        return router_pb2.RouterGetMetricsResponse(text="a 1\n")

    async def CountTokens(self, request: Any, context: Any) -> router_pb2.RouterCountTokensResponse:
        return router_pb2.RouterCountTokensResponse(tokens=len(request.prompt.text), exact=True)

    async def Explain(self, request: Any, context: Any) -> router_pb2.RouterExplainResponse:
        await Problem(grpc.StatusCode.NOT_FOUND, "unknown model 'x'; known: m", "UNKNOWN_MODEL").abort(
            context
        )

    async def WatchFleet(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for uptime in (0, 1):
            fleet = router_pb2.Fleet(router="r", uptime_s=uptime + request.interval_ms)
            yield router_pb2.RouterWatchFleetResponse(fleet=fleet)
        await Problem(grpc.StatusCode.UNAVAILABLE, "it ends here").abort(context)

    async def Generate(self, request: Any, context: Any) -> None:  # type: ignore[override]
        metadata = {key: str(value) for key, value in context.invocation_metadata()}
        proxied = Proxied(request, context, metadata)
        self.proxied.put_nowait(proxied)
        try:
            await proxied.over.wait()
        except asyncio.CancelledError:
            proxied.left.set()
            raise

    async def proxies(self) -> "Proxied":
        """The next request that comes whole."""
        return await soon(self.proxied.get())


@dataclass
class Proxied:
    """The router's end of one `Generate`."""

    request: router_pb2.RouterGenerateRequest
    context: Any
    metadata: dict[str, str]
    over: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def say(self, **parts: Any) -> None:
        await self.context.write(router_pb2.RouterGenerateResponse(**parts))

    async def serve(self, *words: str, worker: str = "w9", index: int = 0) -> None:
        """Served by a worker, which says these words, a token each."""
        tokens = pb.Tokens(index=index, count=len(words), text="".join(words), ids=range(len(words)))
        serving = router_pb2.Serving(worker=worker, tier="standard", pattern="A")
        await self.say(serving=serving, tokens=[tokens])

    async def end(self, reason: "pb.EndReason.ValueType" = pb.END_REASON_STOP) -> None:
        await self.say(done=pb.Done(reason=reason))
        self.over.set()


@dataclass
class Playing:
    """One sequence as its worker sees it."""

    stream: "WorkerStream"
    start: worker_pb2.Start
    index: int = 0
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    windows: list[int] = field(default_factory=list)

    @property
    def grant(self) -> pb.Grant:
        return KEYS.verify(self.start.grant)

    async def say(self, *words: str, ids: bool = True, choice: int = 0, index: int | None = None) -> None:
        """A frame with these words, a token each; `ids` is False for an engine that does not tell them."""
        index = self.index if index is None else index
        tokens = pb.Tokens(
            seq=self.start.seq,
            choice=choice,
            index=index,
            count=len(words),
            text="".join(words),
            ids=range(index, index + len(words)) if ids else (),
        )
        self.index = index + len(words)
        await self.stream.context.write(worker_pb2.WorkerSessionResponse(tokens=[tokens]))

    async def done(
        self, reason: "pb.EndReason.ValueType", problem: Problem | None = None, **more: Any
    ) -> None:
        done = pb.Done(
            seq=self.start.seq,
            reason=reason,
            error=problem.to_bytes() if problem else b"",
            claim=self.grant.claim,
            **more,
        )
        await self.stream.context.write(worker_pb2.WorkerSessionResponse(done=[done]))


@dataclass
class WorkerStream:
    """The worker's end of one client's session."""

    context: Any
    playing: dict[int, Playing] = field(default_factory=dict)
    requests: list[worker_pb2.WorkerSessionRequest] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    broken: asyncio.Event = field(default_factory=asyncio.Event)

    def break_off(self) -> None:
        self.broken.set()


class ScriptedWorker(Scripted, worker_pb2_grpc.WorkerServicer):
    """Says what the test says; with `echo` set, `max_tokens` words and LENGTH for every start."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.echo = False
        self.streams: asyncio.Queue[WorkerStream] = asyncio.Queue()
        self.starts: asyncio.Queue[Playing] = asyncio.Queue()
        self.shown = 0

    def add_to(self, server: grpc.aio.Server) -> None:
        worker_pb2_grpc.add_WorkerServicer_to_server(self, server)

    async def plays(self) -> Playing:
        """The next sequence that a client starts here."""
        return await soon(self.starts.get())

    async def Session(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        stream = WorkerStream(context)

        async def read() -> None:
            async for request in request_iterator:
                stream.requests.append(request)
                for start in request.starts:
                    self.shown += 1
                    playing = stream.playing[start.seq] = Playing(stream, start, start.resume.from_index)
                    if self.echo:
                        await echo(playing)
                    else:
                        self.starts.put_nowait(playing)
                for window in request.windows:
                    stream.playing[window.seq].windows.append(window.upto)
                for seq in request.cancels:
                    stream.playing[seq].cancelled.set()

        await serve(read, context, stream, self.streams)

    GetInfo = None  # type: ignore[assignment]
    Generate = None  # type: ignore[assignment]
    Link = None  # type: ignore[assignment]


async def echo(playing: Playing) -> None:
    for index in range(playing.index, playing.grant.max_tokens):
        await playing.say(f" {index}")
    usage = pb.Usage(prompt_tokens=3, completion_tokens=playing.index)
    await playing.done(pb.END_REASON_LENGTH, usage=usage)


async def serve(
    read: Callable[[], Awaitable[None]], context: Any, end: Any, ends: "asyncio.Queue[Any]", hello: Any = None
) -> None:
    """One stream, until its client ends it or the script breaks it off."""
    if hello is not None:
        await context.write(hello)
    ends.put_nowait(end)
    reader = asyncio.ensure_future(read())
    breaker = asyncio.ensure_future(end.broken.wait())
    try:
        await asyncio.wait([reader, breaker], return_when=asyncio.FIRST_COMPLETED)
    finally:
        end.ended.set()
        reader.cancel()
        breaker.cancel()
        await asyncio.gather(reader, breaker, return_exceptions=True)
    if end.broken.is_set():
        await context.abort(grpc.StatusCode.INTERNAL, "the script broke it off")


class Heard:
    """A consumer that writes down what it hears."""

    def __init__(self) -> None:
        self.queued: list[int] = []
        self.served: list[str] = []
        self.preempted: list[int] = []
        self.tokens: list[pb.Tokens] = []
        self.dones: list[pb.Done] = []
        self.over: asyncio.Future[pb.Done] = asyncio.get_running_loop().create_future()

    @property
    def text(self) -> str:
        return "".join(tokens.text for tokens in self.tokens)

    @property
    def problem(self) -> Problem:
        return Problem.from_bytes(self.dones[0].error)

    def on_queued(self, position: int) -> None:
        self.queued.append(position)

    def on_serving(self, granted: router_pb2.Granted, grant: pb.Grant) -> None:
        self.served.append(grant.worker)

    def on_preempted(self, preemptions: int) -> None:
        self.preempted.append(preemptions)

    def on_tokens(self, tokens: pb.Tokens) -> None:
        assert not self.dones, "tokens after done"
        self.tokens.append(tokens)

    def on_done(self, done: pb.Done) -> None:
        self.dones.append(done)
        if not self.over.done():
            self.over.set_result(done)

    async def end(self) -> pb.Done:
        return await soon(asyncio.shield(self.over))


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def router(stack: AsyncExitStack) -> ScriptedRouter:
    router = ScriptedRouter()
    await router.start()
    stack.push_async_callback(router.kill)
    return router


async def running_worker(stack: AsyncExitStack, name: str) -> ScriptedWorker:
    worker = ScriptedWorker(name)
    await worker.start()
    stack.push_async_callback(worker.kill)
    return worker


@pytest.fixture
async def worker(stack: AsyncExitStack) -> ScriptedWorker:
    return await running_worker(stack, "w1")


@pytest.fixture
async def other(stack: AsyncExitStack) -> ScriptedWorker:
    return await running_worker(stack, "w2")


@pytest.fixture
async def client(router: ScriptedRouter) -> AsyncIterator[diplex.AsyncClient]:
    """Open, with a session and the list of models."""
    async with open_client(router.address) as client:
        yield client


@asynccontextmanager
async def open_client(address: str, **more: Any) -> AsyncIterator[diplex.AsyncClient]:
    async with diplex.AsyncClient(address, **more) as client:
        await client.wait_ready(PATIENCE)
        yield client


@pytest.fixture
def heard() -> type[Heard]:
    return Heard


@pytest.fixture
def wait_until() -> Callable[[Callable[[], object]], Awaitable[None]]:
    return until


@pytest.fixture
def within() -> Callable[[Awaitable[Any]], Awaitable[Any]]:
    return soon


@pytest.fixture
def new_router() -> type[ScriptedRouter]:
    return ScriptedRouter


@pytest.fixture
def new_worker() -> type[ScriptedWorker]:
    return ScriptedWorker
