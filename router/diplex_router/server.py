"""A router process: the core, its driver, its links and its gRPC server, put together and taken apart."""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

import grpc

from diplex.v1 import router_pb2
from diplex.wire.frames import WorkerStreams
from diplex.wire.metrics_http import serve_metrics
from diplex.wire.serving import SERVER_OPTIONS, HealthControl, add_standard_services, bind, until_stopped
from diplex_core.admission import Admission
from diplex_core.config.changes import of_rules
from diplex_core.events import RulesChanged
from diplex_core.placement.place import Placement
from diplex_core.words import Rules
from diplex_router.alarms import Alarms
from diplex_router.driver import Driver
from diplex_router.instruments import Instruments
from diplex_router.links import Links
from diplex_router.metrics import Metrics
from diplex_router.service import RouterService
from diplex_router.session import Answers
from diplex_router.settings import RouterSettings
from diplex_router.spans import AdmitSpans
from diplex_router.view import View

log = logging.getLogger(__name__)

SERVICE: Final = "diplex.v1.Router"
_TICK: Final = 0.1
"""Seconds between two looks at what has become due: deadlines, queue bounds, grants never started."""
_GRACE: Final = 2.0


async def run(
    settings: RouterSettings,
    *,
    stop: asyncio.Event,
    started: Callable[[int], None] = lambda port: None,
    new_rules: AsyncIterator[Rules] | None = None,
) -> None:
    """Serve until `stop` is set. Direct streams of its leases go on without it.

    Args:
        new_rules: each replaces the settings' rules when it comes.
        started: told the port, once it listens.
    Raises:
        PortTaken: it cannot listen where it was told to.
    """
    server = grpc.aio.server(options=SERVER_OPTIONS)
    health = add_standard_services(server, [SERVICE])
    port = await bind(server, settings.host, settings.port, option="--router-port")

    epoch = secrets.randbits(32) or 1
    begun = time.monotonic()  # the three seconds of a rebuild count from here, not from the imports above
    names, placement = [spec.name for spec in settings.workers], Placement(book=settings.book)
    admission = Admission(settings.rules, names, epoch=epoch, now=begun, placement=placement)
    driver = Driver(admission, time.monotonic)
    AdmitSpans(driver, time.monotonic)
    links = Links(settings.name, epoch, settings.keys, settings.workers, driver)
    metrics = Metrics(admission)
    driver.on_served += [metrics.served, Instruments()]
    driver.on_decision.append(metrics.decided)
    driver.on_tick.append(Alarms(admission).look)
    streams = WorkerStreams()
    view = View(settings.name, admission, settings.workers, links.infos, begun)
    hello = router_pb2.RouterSessionResponse(router=settings.name, epoch=epoch)
    answers = Answers(settings.name, epoch, settings.keys)
    addresses = {spec.name: spec.address for spec in settings.workers}
    service = RouterService(driver, view, metrics, answers, streams, hello, addresses)
    service.add_to(server)
    async with serve_metrics(settings.host, settings.metrics_port, metrics.text, option="--metrics-port"):
        await server.start()
        ready = asyncio.Event()
        driver.on_ready = ready.set
        if admission.ready:
            ready.set()
        log.info("router %s listens on %s:%d, epoch %08x", settings.name, settings.host, port, epoch)
        started(port)
        tasks = [
            asyncio.create_task(links.run(), name="links"),
            asyncio.create_task(_tick(driver), name="ticks"),
            asyncio.create_task(_announce(ready, service, health), name="readiness"),
        ]
        if new_rules is not None:
            tasks.append(asyncio.create_task(_follow(new_rules, driver), name="rules"))
        try:
            await until_stopped(stop, tasks)
        finally:
            await health.set_serving(False)
            await server.stop(_GRACE)
            await streams.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _tick(driver: Driver) -> None:
    while True:
        await asyncio.sleep(_TICK)
        driver.tick()


async def _follow(new_rules: AsyncIterator[Rules], driver: Driver) -> None:
    """What runs goes on as it was let in; whoever asks from now on is judged by the new rules."""
    async for rules in new_rules:
        changed = of_rules(driver.admission.rules, rules)
        driver.tell(RulesChanged(rules))
        log.info("rules %d: %s", driver.admission.rules_version, changed)
    await asyncio.Event().wait()


async def _announce(ready: asyncio.Event, service: RouterService, health: HealthControl) -> None:
    await ready.wait()
    service.ready()
    await health.set_serving(True)
    log.info("ready: the ledger is rebuilt")
    await asyncio.Event().wait()
