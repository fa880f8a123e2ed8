"""A real router on a free port, and workers that play their part by script over real gRPC."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import grpc
import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2, router_pb2_grpc, worker_pb2, worker_pb2_grpc
from diplex.wire.grants import Keys
from diplex.wire.serving import SERVER_OPTIONS, bind, channel
from diplex.wire.status import Problem
from diplex_core.words import Pattern, Rules, Tier
from diplex_router.server import run
from diplex_router.settings import RouterSettings, WorkerSpec

MODEL = "m"
KEYS = Keys.of("k1:for tests only")
RULES = Rules(
    frozenset({MODEL}),
    MODEL,
    {
        "standard": Tier("standard", (Pattern.A, Pattern.C), max_output_tokens=64),
        "bulk": Tier("bulk", (Pattern.A,)),
    },
    "standard",
)


@dataclass
class ScriptedWorker(worker_pb2_grpc.WorkerServicer):
    """Holds what it is shown and says so; ends a sequence after echoing `max_tokens` words."""

    name: str
    port: int = 0
    boot: int = 1
    blocks: int = 100
    slots: int = 4
    hellos: list[worker_pb2.Hello] = field(default_factory=list)
    orders: asyncio.Queue[worker_pb2.WorkerLinkRequest] = field(default_factory=asyncio.Queue)
    reports: asyncio.Queue[worker_pb2.WorkerLinkResponse] = field(default_factory=asyncio.Queue)
    adopted: list[worker_pb2.Held] = field(default_factory=list)
    number: int = 0
    refuse_next: int = 0
    answer: bool = True
    advertised: str = ""
    held_back: asyncio.Event | None = None
    """While it is not set, a started sequence is held and nothing comes of it."""

    def info(self) -> pb.WorkerInfo:
        bound = pb.CountBound(bytes_per_token=4, tokens_per_message=4, tokens_per_chat=3)
        return pb.WorkerInfo(
            name=self.name,
            package=self.name,
            pattern="A",
            models=[pb.Model(name=MODEL, has_chat_template=True, bound=bound)],
            engine="script",
            simulated=True,
            boot=self.boot,
            address=self.advertised or f"127.0.0.1:{self.port}",
            block_tokens=32,
            capacity_blocks=self.blocks,
            capacity_slots=self.slots,
            context=2048,
            can_resume=True,
        )

    def report(self, **more: object) -> None:
        self.reports.put_nowait(worker_pb2.WorkerLinkResponse(engine_ready=True, **more))  # type: ignore[arg-type]

    async def Link(self, request_iterator, context):  # type: ignore[no-untyped-def,override]
        hello = (await anext(request_iterator)).hello
        KEYS.verify_hello(hello)
        self.hellos.append(hello)
        self.number = 0
        self.report(full=True, info=self.info(), held=self.adopted)

        async def read() -> None:
            async for order in request_iterator:
                self.orders.put_nowait(order)
                for stop in order.stops:
                    self.report(ended=[worker_pb2.Ended(claim=stop.claim, reason=stop.reason)])

        reader = asyncio.create_task(read())
        try:
            while True:
                report = await self.reports.get()
                self.number += 1
                report.number = self.number
                await context.write(report)
        finally:
            reader.cancel()

    async def Session(self, request_iterator, context):  # type: ignore[no-untyped-def,override]
        async for request in request_iterator:
            for start in request.starts:
                if self.held_back is not None:
                    grant = KEYS.verify(start.grant)
                    held = worker_pb2.Held(claim=grant.claim, blocks=grant.blocks, slots=grant.slots)
                    self.report(held=[held])
                    await self.held_back.wait()
                for frame in self.frames(start):
                    await context.write(frame)

    def frames(self, start: worker_pb2.Start) -> list[worker_pb2.WorkerSessionResponse]:
        grant = KEYS.verify(start.grant)
        if self.refuse_next:
            self.refuse_next -= 1
            self.report(ended=[worker_pb2.Ended(claim=grant.claim, reason=pb.END_REASON_REFUSED)])
            refused = pb.Done(seq=start.seq, reason=pb.END_REASON_REFUSED, claim=grant.claim, prompt_tokens=8)
            return [worker_pb2.WorkerSessionResponse(done=[refused])]
        held = worker_pb2.Held(claim=grant.claim, blocks=grant.blocks, slots=grant.slots)
        self.report(held=[held])
        if not self.answer:
            return []
        usage = pb.Usage(prompt_tokens=8, completion_tokens=grant.max_tokens)
        self.report(ended=[worker_pb2.Ended(claim=grant.claim, reason=pb.END_REASON_LENGTH, usage=usage)])
        words = [
            pb.Tokens(seq=start.seq, index=i, count=1, ids=[i], text=f" {i}") for i in range(grant.max_tokens)
        ]
        done = pb.Done(seq=start.seq, reason=pb.END_REASON_LENGTH, usage=usage, claim=grant.claim)
        return [worker_pb2.WorkerSessionResponse(tokens=words), worker_pb2.WorkerSessionResponse(done=[done])]


@dataclass
class FloodingWorker(ScriptedWorker):
    """Says words of 64 KiB as fast as it can, as far as each sequence's window lets it."""

    upto: dict[int, int] = field(default_factory=dict)
    moved: asyncio.Condition = field(default_factory=asyncio.Condition)
    stopped_at: int | None = None
    """The index at which it waits for a window."""
    verdict: Problem | None = None

    async def Session(self, request_iterator, context):  # type: ignore[no-untyped-def,override]
        frames: asyncio.Queue[worker_pb2.WorkerSessionResponse] = asyncio.Queue(1)

        async def orders(tasks: asyncio.TaskGroup) -> None:
            async for request in request_iterator:
                for start in request.starts:
                    self.upto[start.seq] = start.window_upto
                    tasks.create_task(self.say(start, frames))
                async with self.moved:
                    for window in request.windows:
                        self.upto[window.seq] = window.upto
                    self.moved.notify_all()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(orders(tasks))
            while True:
                await context.write(await frames.get())

    async def say(
        self, start: worker_pb2.Start, frames: "asyncio.Queue[worker_pb2.WorkerSessionResponse]"
    ) -> None:
        grant, seq = KEYS.verify(start.grant), start.seq
        self.report(held=[worker_pb2.Held(claim=grant.claim, blocks=grant.blocks, slots=grant.slots)])
        for index in range(grant.max_tokens):
            async with self.moved:
                while self.upto[seq] and index >= self.upto[seq] and not self.verdict:
                    self.stopped_at = index
                    self.moved.notify_all()
                    await self.moved.wait()
                self.stopped_at = None
            if self.verdict:
                break
            word = pb.Tokens(seq=seq, index=index, count=1, ids=[index], text="x" * 65536)
            await frames.put(worker_pb2.WorkerSessionResponse(tokens=[word]))
        reason = pb.END_REASON_FAILED if self.verdict else pb.END_REASON_LENGTH
        self.report(ended=[worker_pb2.Ended(claim=grant.claim, reason=reason)])
        error = self.verdict.to_bytes() if self.verdict else b""
        done = pb.Done(seq=seq, reason=reason, claim=grant.claim, error=error)
        await frames.put(worker_pb2.WorkerSessionResponse(done=[done]))

    async def end(self, verdict: Problem) -> None:
        """End what waits for its window."""
        async with self.moved:
            self.verdict = verdict
            self.moved.notify_all()


@asynccontextmanager
async def serving(worker: ScriptedWorker) -> AsyncIterator[ScriptedWorker]:
    server = grpc.aio.server(options=SERVER_OPTIONS)
    worker_pb2_grpc.add_WorkerServicer_to_server(worker, server)
    worker.port = await bind(server, "127.0.0.1", worker.port, option="--worker-port")
    await server.start()
    try:
        yield worker
    finally:
        await server.stop(None)


@asynccontextmanager
async def routing(
    *workers: ScriptedWorker, rules: Rules = RULES, new_rules: AsyncIterator[Rules] | None = None
) -> AsyncIterator["router_pb2_grpc.RouterAsyncStub"]:
    """A router over these workers, ready, and a stub to speak to it."""
    stop, port = asyncio.Event(), asyncio.get_running_loop().create_future()
    specs = tuple(WorkerSpec(w.name, f"127.0.0.1:{w.port}", w.name, "A", (MODEL,)) for w in workers)
    settings = RouterSettings("r1", "127.0.0.1", 0, None, rules, specs, KEYS)
    task = asyncio.create_task(run(settings, stop=stop, started=port.set_result, new_rules=new_rules))
    async with channel(f"127.0.0.1:{await port}") as dialled:
        stub: router_pb2_grpc.RouterAsyncStub = router_pb2_grpc.RouterStub(dialled)
        await stub.ListModels(router_pb2.RouterListModelsRequest())  # answered once it is ready
        try:
            yield stub
        finally:
            stop.set()
            await task


@pytest.fixture
async def worker() -> AsyncIterator[ScriptedWorker]:
    async with serving(ScriptedWorker("w1")) as worker:
        yield worker


@pytest.fixture
async def flooding_worker() -> AsyncIterator[FloodingWorker]:
    async with serving(FloodingWorker("w1")) as worker:
        yield worker  # type: ignore[misc]


@pytest.fixture
def rules() -> Rules:
    """What `new_router` goes by unless it is told otherwise."""
    return RULES


@pytest.fixture
def new_router() -> Callable[..., AbstractAsyncContextManager["router_pb2_grpc.RouterAsyncStub"]]:
    return routing


@pytest.fixture
def serve() -> Callable[[ScriptedWorker], AbstractAsyncContextManager[ScriptedWorker]]:
    return serving


@pytest.fixture
def new_worker() -> type[ScriptedWorker]:
    return ScriptedWorker


async def fleet_when(
    stub: "router_pb2_grpc.RouterAsyncStub", true: Callable[[router_pb2.Fleet], bool]
) -> router_pb2.Fleet:
    """The fleet as soon as something is true of it; fails after five seconds."""
    async with asyncio.timeout(5):
        async for response in stub.WatchFleet(router_pb2.RouterWatchFleetRequest(interval_ms=100)):
            if true(response.fleet):
                return response.fleet
    raise AssertionError("the router ended its fleet stream")


@pytest.fixture
def wait_for_fleet() -> Callable[..., object]:
    return fleet_when
