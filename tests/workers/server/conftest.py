"""A real worker on a free port, and the two who speak with it: a router with its key, and a client."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import pytest
from grpc.aio import AioRpcError

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import worker_pb2, worker_pb2_grpc
from diplex.wire.grants import Keys
from diplex.wire.serving import channel
from diplex_core.sim.speech import token
from diplex_workers.engines.engine import Engine
from diplex_workers.engines.sim import SimEngine, SimSettings, digest_of
from diplex_workers.server import WorkerSettings, run

T = TypeVar("T")
EPOCH = 5


class Heard:
    """Lets a test wait until something that is read from a stream has come."""

    def __init__(self) -> None:
        self._news = asyncio.Event()

    def _tell(self) -> None:
        self._news.set()

    async def until(self, what: Callable[[], T | None], within: float = 10) -> T:
        async with asyncio.timeout(within):
            while not (seen := what()):
                self._news.clear()
                await self._news.wait()
        return seen


class RouterLink(Heard):
    """A router's link: gives orders, and keeps what is reported."""

    def __init__(self, call: Any) -> None:
        super().__init__()
        self._call = call
        self.reports: list[worker_pb2.WorkerLinkResponse] = []
        self.over = False

    async def read(self) -> None:
        async for report in self._call:
            self.reports.append(report)
            self._tell()
        self.over = True
        self._tell()

    async def order(self, **words: object) -> None:
        await self._call.write(worker_pb2.WorkerLinkRequest(**words))  # type: ignore[arg-type]

    @property
    def last(self) -> worker_pb2.WorkerLinkResponse:
        return self.reports[-1]

    def held(self, lease: int) -> list[worker_pb2.Held]:
        return [h for r in self.reports for h in r.held if h.claim.lease_id == lease]

    def wants(self, lease: int) -> list[worker_pb2.Wants]:
        return [w for r in self.reports for w in r.wants if w.claim.lease_id == lease]

    def ended(self, lease: int) -> list[worker_pb2.Ended]:
        return [e for r in self.reports for e in r.ended if e.claim.lease_id == lease]


class Client(Heard):
    """One `Worker.Session`: keeps what each sequence said."""

    def __init__(self, call: Any) -> None:
        super().__init__()
        self.call = call
        self.frames: list[worker_pb2.WorkerSessionResponse] = []
        self.done: dict[int, pb.Done] = {}
        self.over = False

    async def read(self) -> None:
        async for frame in self.call:
            self.frames.append(frame)
            for done in frame.done:
                assert done.seq not in self.done
                self.done[done.seq] = done
            self._tell()
        self.over = True
        self._tell()

    async def send(self, **words: object) -> None:
        await self.call.write(worker_pb2.WorkerSessionRequest(**words))  # type: ignore[arg-type]

    def text(self, seq: int, choice: int = 0) -> str:
        """What it said, holes and repeats being errors."""
        text, due = "", 0
        for frame in self.frames:
            for tokens in frame.tokens:
                if (tokens.seq, tokens.choice) == (seq, choice):
                    assert tokens.index == due
                    due += tokens.count
                    text += tokens.text
        return text


class Served:
    """A worker that runs, and ways to reach it."""

    def __init__(self, port: int, keys: Keys, stop: asyncio.Event, tasks: asyncio.TaskGroup) -> None:
        self.port = port
        self.keys = keys
        self.stop = stop
        self._tasks = tasks
        self._channels: list[Any] = []
        self.boot = 0
        self.running: asyncio.Task[None] | None = None

    def stub(self) -> "worker_pb2_grpc.WorkerAsyncStub":
        """Over a connection of its own."""
        dialled = channel(f"127.0.0.1:{self.port}")
        self._channels.append(dialled)
        stub: worker_pb2_grpc.WorkerAsyncStub = worker_pb2_grpc.WorkerStub(dialled)
        return stub

    async def hang_up(self) -> None:
        """Close every connection without a word."""
        for dialled in self._channels:
            await dialled.close()

    async def info(self) -> worker_pb2.WorkerGetInfoResponse:
        return await self.stub().GetInfo(worker_pb2.WorkerGetInfoRequest())

    async def link(self, router: str = "r1", epoch: int = EPOCH) -> RouterLink:
        link = RouterLink(self.stub().Link())
        await link.order(hello=self.keys.hello(router, epoch, "w0"))
        self._tasks.create_task(quietly(link.read()))
        await link.until(lambda: link.reports)
        return link

    def client(self) -> Client:
        client = Client(self.stub().Session())
        self._tasks.create_task(quietly(client.read()))
        return client

    def grant(self, lease: int, **more: object) -> pb.SignedGrant:
        words: dict[str, object] = {
            "claim": pb.Claim(lease_id=lease, attempt=1),
            "router": "r1",
            "epoch": EPOCH,
            "worker": "w0",
            "boot": self.boot,
            "blocks": 10,
            "slots": 1,
            "max_tokens": 20,
            "start_by_ms": 10**9,
            "choices": 1,
            **more,
        }
        return self.keys.sign(pb.Grant(**words))  # type: ignore[arg-type]

    def start(self, seq: int, *, text: str = "", grant: pb.SignedGrant | None = None, **more: object) -> Any:
        """A start with a grant for lease `seq`; it runs to its limit."""
        words: dict[str, object] = {
            "prompt": pb.Prompt(text=text or f"prompt {seq}"),
            "sampling": pb.Sampling(ignore_eos=True),
            **more,
        }
        return worker_pb2.Start(seq=seq, grant=grant or self.grant(seq), **words)  # type: ignore[arg-type]


async def quietly(reading: Any) -> None:
    """Read until the stream ends, however it does; what matters was kept."""
    with suppress(AioRpcError, asyncio.CancelledError):
        await reading


def words_of(text: str, count: int, choice: int = 0) -> str:
    digest = digest_of(pb.Prompt(text=text))
    return "".join(token(digest, choice, index)[1] for index in range(count))


@asynccontextmanager
async def served(
    *, engine: Engine | None = None, settings: dict[str, Any] | None = None, **sim: Any
) -> AsyncIterator[Served]:
    """Serve a simulated engine, or the one given, until the block is left."""
    keys, stop = Keys.of("secret"), asyncio.Event()
    chosen = engine or SimEngine(
        SimSettings(models=("m",), calibration="chapter", **{"time_scale": 10.0, **sim})
    )
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    words = {"package": "pkg0", "pattern": "A", "keys": keys, **(settings or {})}
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(
            run(WorkerSettings("w0", **words), chosen, stop=stop, started=port.set_result)
        )
        worker = Served(await port, keys, stop, tasks)
        worker.running = running
        worker.boot = (await worker.info()).info.boot
        try:
            yield worker
        finally:
            stop.set()
            await worker.hang_up()


@pytest.fixture(scope="session")
def serve() -> Callable[..., Any]:
    """`async with serve(…) as worker`"""
    return served


@pytest.fixture(scope="session")
def said() -> Callable[..., str]:
    """The words that a simulated engine says to a prompt."""
    return words_of
