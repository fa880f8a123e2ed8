"""A worker from its start to its end."""

import asyncio
import socket
from contextlib import asynccontextmanager

import aiohttp
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import worker_pb2, worker_pb2_grpc
from diplex.wire.serving import PortTaken, channel
from diplex_workers.engines.sim import SimEngine, SimSettings
from diplex_workers.server import WorkerSettings, run


def sim(**more: object) -> SimEngine:
    return SimEngine(SimSettings(models=("m",), calibration="chapter", **more))  # type: ignore[arg-type]


async def test_a_taken_port_is_said_with_the_option_that_mends_it(serve):
    async with serve() as worker:
        settings = WorkerSettings("w1", "pkg1", "A", port=worker.port)
        with pytest.raises(
            PortTaken, match=rf"port {worker.port} on 127\.0\.0\.1 is taken\. Mend: .*--port N"
        ):
            await run(settings, sim(), stop=asyncio.Event())


async def test_when_it_stops_what_runs_ends_and_nothing_new_begins(serve, said):
    async with serve(time_scale=1.0) as worker:
        client = worker.client()
        await client.send(starts=[worker.start(1, grant=worker.grant(1, max_tokens=60))])
        await client.until(lambda: client.text(1))
        worker.stop.set()
        await client.until(lambda: client.over)
        assert client.text(1) == said("prompt 1", 60)
        assert client.done[1].reason == pb.END_REASON_LENGTH
        await asyncio.wait_for(worker.running, 5)


async def test_when_it_stops_it_waits_no_longer_than_it_was_told(serve):
    async with serve(time_scale=1.0, settings={"drain": 0.2}) as worker:
        client = worker.client()
        await client.send(starts=[worker.start(1, grant=worker.grant(1, max_tokens=9000, blocks=400))])
        await client.until(lambda: client.text(1))
        worker.stop.set()
        await asyncio.wait_for(worker.running, 5)
        assert 1 not in client.done


async def test_no_two_starts_share_a_boot_number(serve):
    async with serve() as one, serve() as two:
        assert one.boot != two.boot


async def test_the_advertised_address_is_the_configured_one(serve):
    async with serve(settings={"advertise": "gpu7.example"}) as worker:
        assert (await worker.info()).info.address == f"gpu7.example:{worker.port}"
    async with serve(settings={"advertise": "gpu7.example:99"}) as worker:
        assert (await worker.info()).info.address == "gpu7.example:99"


@asynccontextmanager
async def health_of(port: int):
    """What the standard health service says of the worker, each time that it changes."""
    async with channel(f"127.0.0.1:{port}") as dialled:
        request = health_pb2.HealthCheckRequest(service="diplex.v1.Worker")
        watching = health_pb2_grpc.HealthStub(dialled).Watch(request)
        yield watching
        watching.cancel()


async def test_its_health_is_its_engines(serve):
    class Slow:
        """An engine that is not ready until it is told to be."""

        def __init__(self) -> None:
            self.go = asyncio.Event()
            self.inner = sim()

        async def serve(self, host) -> None:
            await self.go.wait()
            await self.inner.serve(host)

        def __getattr__(self, name: str):
            return getattr(self.inner, name)

    engine = Slow()
    async with serve(engine=engine) as worker, health_of(worker.port) as health:
        assert (await health.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        link = await worker.link()
        assert (link.last.engine_ready, link.last.engine_problem) == (False, "its engine is starting")
        assert list(link.last.info.models) == []
        engine.go.set()
        await link.until(lambda: link.last.engine_ready)
        assert link.last.info.capacity_blocks == 22_250
        assert (await health.read()).status == health_pb2.HealthCheckResponse.SERVING


async def test_an_engine_that_breaks_takes_its_worker_along():
    class Broken:
        async def serve(self, host) -> None:
            raise RuntimeError("the engine broke its promise")

        def observed_blocks(self) -> None: ...

    with pytest.raises(RuntimeError, match="broke its promise"):
        await run(WorkerSettings("w", "p", "A"), Broken(), stop=asyncio.Event())  # type: ignore[arg-type]


async def test_its_metrics_tell_blocks_tokens_and_ends():
    ports: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    settings = WorkerSettings("w", "p", "A", open=True, metrics_port=free_port())
    running = asyncio.ensure_future(run(settings, sim(time_scale=50.0), stop=stop, started=ports.set_result))
    port = await ports
    async with channel(f"127.0.0.1:{port}") as dialled, aiohttp.ClientSession() as web:
        start = worker_pb2.Start(prompt=pb.Prompt(text="hi"), sampling=pb.Sampling(ignore_eos=True))
        request = worker_pb2.WorkerGenerateRequest(start=start, max_tokens=17)
        async for _ in worker_pb2_grpc.WorkerStub(dialled).Generate(request):
            pass
        async with web.get(f"http://127.0.0.1:{settings.metrics_port}/metrics") as page:
            text = await page.text()
    stop.set()
    await running
    for line in (
        'diplex_kv_blocks{state="capacity"} 22250.0',
        'diplex_kv_blocks{state="reserved"} 0.0',
        'diplex_kv_blocks{state="observed"} 0.0',
        'diplex_kv_blocks{state="peak"} 1.0',
        'diplex_output_tokens_total{model="m",tier=""} 17.0',
        'diplex_requests_total{model="m",reason="LENGTH",tier=""} 1.0',
        'diplex_ttft_seconds_count{model="m",tier=""} 1.0',
        "diplex_engine_ready 1.0",
    ):
        assert line in text


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.long
async def test_a_session_that_is_silent_for_two_minutes_lives(serve):
    async with serve() as worker:
        link, client = await worker.link(), worker.client()
        await client.send(starts=[worker.start(1)])
        await client.until(lambda: client.done)
        quiet_from = link.last.uptime_ms
        await link.until(lambda: link.last.uptime_ms - quiet_from > 125_000, within=150)
        await client.send(starts=[worker.start(2)])
        await client.until(lambda: 2 in client.done)
        assert client.done[2].reason == pb.END_REASON_LENGTH
