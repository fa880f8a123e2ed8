"""A worker: one gRPC server around one engine, from the bound port to the drained end."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias

import grpc

from diplex.v1 import worker_pb2, worker_pb2_grpc
from diplex.wire.coalesce import Outbox
from diplex.wire.context import recording
from diplex.wire.metrics_http import serve_metrics
from diplex.wire.serving import SERVER_OPTIONS, HealthControl, add_standard_services, bind, until_stopped
from diplex.wire.status import Problem
from diplex_core.words import Seconds
from diplex_workers.account import Account
from diplex_workers.clock import LoopClock
from diplex_workers.desk import Desk
from diplex_workers.engines.engine import Engine
from diplex_workers.exhaustion import CallbacksToo, EndsWithoutMemory
from diplex_workers.gate import Gate
from diplex_workers.instruments import Instruments
from diplex_workers.link import serve_link
from diplex_workers.metrics import WorkerMetrics
from diplex_workers.news import EngineNews
from diplex_workers.reception import Reception
from diplex_workers.sequence import Sequence, Verdict
from diplex_workers.session import serve_generate, serve_session
from diplex_workers.settings import WorkerSettings
from diplex_workers.spans import SpanWriter
from diplex_workers.stream import TokenStream

log = logging.getLogger(__name__)

__all__ = ["WorkerSettings", "run"]

SERVICE: Final = "diplex.v1.Worker"
_LAST_FRAMES: Final[Seconds] = 1.0
"""How long streams may take to end by themselves once everything on them is done."""

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class WorkerService(worker_pb2_grpc.WorkerServicer):
    """The four methods, each handed on at once."""

    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        self._streams: set[TokenStream] = set()

    async def Session(  # type: ignore[override]
        self, request_iterator: AsyncIterator[worker_pb2.WorkerSessionRequest], context: Context
    ) -> None:
        stream = TokenStream()
        self._streams.add(stream)
        try:
            with EndsWithoutMemory():
                await serve_session(self._reception, stream, request_iterator, context)
        finally:
            self._streams.discard(stream)

    async def Generate(  # type: ignore[override]
        self, request: worker_pb2.WorkerGenerateRequest, context: Context
    ) -> None:
        with EndsWithoutMemory():
            await serve_generate(self._reception, TokenStream(), request, context)

    async def Link(  # type: ignore[override]
        self, request_iterator: AsyncIterator[worker_pb2.WorkerLinkRequest], context: Context
    ) -> None:
        with EndsWithoutMemory():
            await serve_link(self._reception.desk, request_iterator, context)

    async def GetInfo(
        self, request: worker_pb2.WorkerGetInfoRequest, context: Context
    ) -> worker_pb2.WorkerGetInfoResponse:
        return self._reception.account.snapshot()

    def close(self) -> None:
        """Let every session end with what runs on it."""
        for stream in self._streams:
            stream.half_close()


async def run(
    settings: WorkerSettings,
    engine: Engine,
    *,
    stop: asyncio.Event,
    started: Callable[[int], None] = lambda port: None,
) -> None:
    """Serve until `stop` is set, then let what runs end, and go.

    Args:
        started: told the bound port once the server listens; the engine may still be on its way.
    Raises:
        PortTaken: the gRPC or the metrics port is in use.
    """
    account = Account(settings, secrets.randbits(63), LoopClock(), engine)
    counting = _Counting(engine)
    desk = Desk(account, Gate(settings.name, account.boot, settings.keys))
    reception = Reception(desk, counting.begin)
    account.observers.append(Instruments(settings))
    if recording():
        account.observers.append(SpanWriter(settings))
    metrics = WorkerMetrics(account)
    server = grpc.aio.server(options=SERVER_OPTIONS)
    service = WorkerService(reception)
    worker_pb2_grpc.add_WorkerServicer_to_server(service, server)
    health = add_standard_services(server, [SERVICE])
    port = await bind(server, settings.host, settings.port, option="--port")
    account.address = _advertised(settings, port)
    async with serve_metrics(settings.host, settings.metrics_port, metrics.text, option="--metrics-port"):
        await server.start()
        log.info("worker %s listens on %s:%d", settings.name, settings.host, port)
        started(port)
        tasks = [
            asyncio.create_task(_serve_engine(engine, EngineNews(desk)), name="engine"),
            asyncio.create_task(counting.run(reception), name="counting"),
            asyncio.create_task(_tell_health(account, health), name="health"),
        ]
        try:
            with CallbacksToo(asyncio.get_running_loop()), EndsWithoutMemory():
                await until_stopped(stop, tasks)
                await _drain(desk, service)
        finally:
            service.close()
            account.close_links()
            await server.stop(_LAST_FRAMES)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _serve_engine(engine: Engine, news: EngineNews) -> None:
    await engine.serve(news)
    # An engine that goes by itself is one that does not answer; the worker stays to say so.
    news.unready("its engine ended")
    await asyncio.Event().wait()


async def _tell_health(account: Account, health: HealthControl) -> None:
    """Keep the standard health service in step with what routers are told."""
    changed = asyncio.Event()
    account.on_change = changed.set
    while True:
        await health.set_serving(not (account.problem or account.ailing or account.draining))
        await changed.wait()
        changed.clear()


async def _drain(desk: Desk, service: WorkerService) -> None:
    """Take nothing new, and give what runs its time to end."""
    account = desk.account
    desk.drain(True)
    service.close()
    empty = asyncio.Event()

    def look(sequence: Sequence, verdict: Verdict) -> None:
        if not account.live:
            empty.set()

    account.observers.append(look)
    if account.live:
        with suppress(TimeoutError):
            await asyncio.wait_for(empty.wait(), account.settings.drain)


class _Counting:
    """Counts prompts beside everything else: a long one holds nobody up."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._asked: Outbox[Sequence] = Outbox()

    def begin(self, sequence: Sequence) -> None:
        self._asked.put(sequence)

    async def run(self, reception: Reception) -> None:
        async with asyncio.TaskGroup() as tasks:
            while sequences := await self._asked.gather():
                for sequence in sequences:
                    tasks.create_task(self._count(reception, sequence))

    async def _count(self, reception: Reception, sequence: Sequence) -> None:
        try:
            counted = await self._engine.count(sequence.model, sequence.prompt)
        except Problem as problem:
            reception.uncountable(sequence, problem)
        else:
            reception.counted(sequence, counted)


def _advertised(settings: WorkerSettings, port: int) -> str:
    """host:port that clients are told: as configured, else as bound."""
    if settings.advertise is None:
        # A wildcard is no address; without another word only this machine is promised.
        host = "127.0.0.1" if settings.host in ("", "0.0.0.0", "::") else settings.host
        return _with_port(host, port)
    host, colon, own_port = settings.advertise.rpartition(":")
    if colon and own_port.isdecimal() and not host.endswith(":"):
        return settings.advertise
    return _with_port(settings.advertise, port)


def _with_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
