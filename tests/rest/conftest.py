"""A shim between a real client and a scripted fleet: router and worker are gRPC servers in this process.

`fleet.script` says what the worker does with a start; `fleet.refusal` and `fleet.silent` what the router says
to an ask. Everything between the HTTP client and these two is the real thing.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
import httpx
import openai
import pytest
import pytest_asyncio

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2, router_pb2_grpc, worker_pb2, worker_pb2_grpc
from diplex.wire.grants import Keys
from diplex.wire.serving import SERVER_OPTIONS
from diplex.wire.status import Problem
from diplex_rest.server import RestSettings, run

WITHIN = 5.0  # seconds that anything here may take; all of it takes milliseconds
WORDS = ("Once", " upon", " a", " time")
Seen = TypeVar("Seen")
Say = Callable[[pb.Tokens | pb.Done], Awaitable[None]]
Script = Callable[[worker_pb2.Start, Say], Awaitable[None]]


async def until(look: Callable[[], Seen], what: str) -> Seen:
    """Look until there is something to see: the one way in which these tests poll."""
    deadline = asyncio.get_running_loop().time() + WITHIN
    while not (seen := look()):
        assert asyncio.get_running_loop().time() < deadline, f"not within {WITHIN:g} s: {what}"
        await asyncio.sleep(0.005)
    return seen


def ended(reason: "pb.EndReason.ValueType" = pb.END_REASON_STOP, **more: Any) -> pb.Done:
    return pb.Done(reason=reason, usage=pb.Usage(prompt_tokens=5, completion_tokens=len(WORDS)), **more)


async def tell_a_story(start: worker_pb2.Start, say: Say) -> None:
    """The script of a worker that does its work."""
    choices = pb.Grant.FromString(start.grant.grant).choices
    for choice in range(choices):
        for index, word in enumerate(WORDS):
            await say(pb.Tokens(choice=choice, index=index, text=word, count=1))
    await say(ended(choice_reasons=[pb.END_REASON_STOP] * choices))


class Worker(worker_pb2_grpc.WorkerServicer):
    """One scripted worker; each start runs the fleet's script in a task of its session."""

    def __init__(self, fleet: "Fleet") -> None:
        self._fleet = fleet

    async def Session(
        self,
        request_iterator: AsyncIterator[worker_pb2.WorkerSessionRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        async with asyncio.TaskGroup() as scripts:
            running: dict[int, asyncio.Task[None]] = {}
            async for request in request_iterator:
                for start in request.starts:
                    self._fleet.starts.append(start)
                    running[start.seq] = scripts.create_task(self._play(start, context))
                for seq in request.cancels:
                    if not running[seq].done():
                        running[seq].cancel()
                        self._fleet.cancelled.append(seq)
                        await self._say(context, seq, pb.Done(reason=pb.END_REASON_CANCELLED))
            for seq, script in running.items():
                if script.cancel():
                    self._fleet.cancelled.append(seq)

    async def _play(self, start: worker_pb2.Start, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        async def say(news: pb.Tokens | pb.Done) -> None:
            await self._say(context, start.seq, news)

        await self._fleet.script(start, say)

    async def _say(
        self, context: grpc.aio.ServicerContext[Any, Any], seq: int, news: pb.Tokens | pb.Done
    ) -> None:
        news.seq = seq
        frame = worker_pb2.WorkerSessionResponse()
        (frame.done if isinstance(news, pb.Done) else frame.tokens).append(news)  # type: ignore[arg-type]
        await context.write(frame)


class Router(router_pb2_grpc.RouterServicer):
    """A scripted router: grants everything at once, unless the fleet's `answer` says otherwise."""

    def __init__(self, fleet: "Fleet") -> None:
        self._fleet = fleet

    async def Session(
        self,
        request_iterator: AsyncIterator[router_pb2.RouterSessionRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        await context.write(router_pb2.RouterSessionResponse(router="r", epoch=1))
        async for request in request_iterator:
            for ask in request.asks:
                self._fleet.asks.append(ask)
                await context.write(self._fleet.answer(ask))
            self._fleet.withdrawn.extend(withdraw.ask_id for withdraw in request.withdraws)

    async def ListModels(
        self, request: router_pb2.RouterListModelsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> router_pb2.RouterListModelsResponse:
        return router_pb2.RouterListModelsResponse(
            models=[
                pb.Model(name="sim-72b", context=32768, simulated=True, has_chat_template=True, workers=2),
                pb.Model(name="org/real-1b", context=4096, has_chat_template=True, workers=1),
            ],
            default_model="sim-72b",
            default_tier="standard",
            tiers=["standard", "bulk"],
        )

    async def GetFleet(
        self, request: router_pb2.RouterGetFleetRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> router_pb2.RouterGetFleetResponse:
        worker = router_pb2.FleetWorker(info=pb.WorkerInfo(name="pkg0"), state=self._fleet.worker_state)
        return router_pb2.RouterGetFleetResponse(
            fleet=router_pb2.Fleet(router="r", ready=self._fleet.rebuilt, workers=[worker])
        )

    async def GetMetrics(
        self, request: router_pb2.RouterGetMetricsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> router_pb2.RouterGetMetricsResponse:
        text = "# HELP diplex_queue_depth Waiting\n# TYPE diplex_queue_depth gauge\ndiplex_queue_depth 3.0\n"
        return router_pb2.RouterGetMetricsResponse(text=text)


@dataclass
class Fleet:
    """What the scripted router and worker do, and what they were told."""

    worker: str = ""
    router: str = ""
    script: Script = tell_a_story
    asks: list[router_pb2.Ask] = field(default_factory=list)
    withdrawn: list[int] = field(default_factory=list)
    starts: list[worker_pb2.Start] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    rebuilt: bool = True
    worker_state: str = "up"
    refusal: Problem | None = None
    silent: bool = False
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    _keys: Keys = field(default_factory=Keys.fresh)

    def forget(self) -> None:
        """Be as new, at the same addresses."""
        vars(self).update(vars(Fleet(self.worker, self.router)))

    async def hold_after_one_word(self, start: worker_pb2.Start, say: Say) -> None:
        """A script: one word, and the rest once `hold` is set."""
        await say(pb.Tokens(text=WORDS[0], count=1))
        await self.hold.wait()
        for index, word in enumerate(WORDS[1:], start=1):
            await say(pb.Tokens(index=index, text=word, count=1))
        await say(ended())

    async def break_after_one_word(self, start: worker_pb2.Start, say: Say) -> None:
        """A script: one word, then the engine breaks."""
        await say(pb.Tokens(text=WORDS[0], count=1))
        problem = Problem(grpc.StatusCode.INTERNAL, "the engine broke", "ENGINE_BROKE")
        await say(pb.Done(reason=pb.END_REASON_FAILED, error=problem.to_bytes()))

    async def say_nothing(self, start: worker_pb2.Start, say: Say) -> None:
        """A script: the prompt is read for ever."""
        await self.hold.wait()

    def answer(self, ask: router_pb2.Ask) -> router_pb2.RouterSessionResponse:
        if self.refusal is not None:
            refused = router_pb2.Refused(ask_id=ask.ask_id, status=self.refusal.to_bytes())
            return router_pb2.RouterSessionResponse(refused=[refused])
        if self.silent:
            return router_pb2.RouterSessionResponse(queued=[router_pb2.Queued(ask_id=ask.ask_id, position=1)])
        grant = pb.Grant(
            claim=pb.Claim(lease_id=len(self.asks), attempt=1),
            request_id=ask.request_id,
            worker="pkg0",
            tier=ask.tier if ask.tier not in ("", "auto", "default") else "standard",
            tenant="default",
            max_tokens=ask.max_tokens or 100,
            choices=ask.n or 1,
        )
        granted = router_pb2.Granted(
            ask_id=ask.ask_id,
            grant=self._keys.sign(grant),
            address=self.worker,
            pattern="C",
            package="pkg0",
            engine="sim",
            simulated=True,
        )
        return router_pb2.RouterSessionResponse(granted=[granted])


@asynccontextmanager
async def serving(add: Callable[[grpc.aio.Server], None]) -> AsyncIterator[str]:
    """A gRPC server on a free port; its address."""
    server = grpc.aio.server(options=SERVER_OPTIONS)
    add(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def shim_for(router: str, **settings: Any) -> AsyncIterator[int]:
    """A running shim in front of that router; its port."""
    loop = asyncio.get_running_loop()
    stop, port = asyncio.Event(), loop.create_future()
    async with asyncio.TaskGroup() as tasks:
        serve = run(RestSettings("127.0.0.1", 0, router, **settings), stop=stop, started=port.set_result)
        tasks.create_task(serve)
        try:
            yield await asyncio.wait_for(port, WITHIN)
        finally:
            stop.set()


@pytest.fixture(name="until")
def until_fixture() -> Callable[[Callable[[], Any], str], Awaitable[Any]]:
    return until


@pytest.fixture
def shim() -> Callable[..., AbstractAsyncContextManager[int]]:
    """`async with shim(router) as port`: a shim of one's own."""
    return shim_for


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one_fleet() -> AsyncIterator[Fleet]:
    fleet = Fleet()
    async with (
        serving(lambda server: worker_pb2_grpc.add_WorkerServicer_to_server(Worker(fleet), server)) as worker,
        serving(lambda server: router_pb2_grpc.add_RouterServicer_to_server(Router(fleet), server)) as router,
    ):
        fleet.worker, fleet.router = worker, router
        yield fleet


@pytest.fixture
def fleet(one_fleet: Fleet) -> Fleet:
    """The scripted fleet, which has forgotten the test before."""
    one_fleet.forget()
    return one_fleet


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def port(one_fleet: Fleet) -> AsyncIterator[int]:
    """The port of a shim that is ready to serve; one for all tests of a file."""
    async with shim_for(one_fleet.router) as port, httpx.AsyncClient(verify=False) as http:
        deadline = asyncio.get_running_loop().time() + WITHIN
        while (await http.get(f"http://127.0.0.1:{port}/ready")).status_code != 200:
            assert asyncio.get_running_loop().time() < deadline, "the shim is not ready"
            await asyncio.sleep(0.005)
        yield port


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(port: int) -> AsyncIterator[httpx.AsyncClient]:
    # Nothing here is encrypted; reading the machine's certificates takes longer than most tests.
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=WITHIN, verify=False) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(port: int) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's own client; it tries nothing twice, so that each error shows as it came."""
    async with openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{port}/v1",
        api_key="sk-acme",
        max_retries=0,
        timeout=WITHIN,
        http_client=openai.DefaultAsyncHttpxClient(verify=False),
    ) as client:
        yield client
