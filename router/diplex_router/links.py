"""One `Worker.Link` a worker: reports become events for the core, its orders go down.

A link that breaks is dialled again at once and then with growing pauses of up to a second; the core decides
meanwhile how long the worker's claims stand.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import Final, TypeAlias

import grpc

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import worker_pb2, worker_pb2_grpc
from diplex.wire.coalesce import Outbox
from diplex.wire.grants import Keys
from diplex.wire.serving import channel
from diplex.wire.status import Problem
from diplex_core.events import LinkLost, RaiseClaim, Reported, StopClaim
from diplex_router.driver import Driver
from diplex_router.settings import WorkerSpec
from diplex_router.translate import raise_on_wire, report_in_core, stop_on_wire

log = logging.getLogger(__name__)

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 1.0

Call: TypeAlias = grpc.aio.StreamStreamCall[worker_pb2.WorkerLinkRequest, worker_pb2.WorkerLinkResponse]


class Link:
    """One stream to one worker, from hello to its end."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._orders: Outbox[worker_pb2.Stop | worker_pb2.Raise] = Outbox()

    def stop(self, stop: StopClaim) -> None:
        self._orders.put(stop_on_wire(stop))

    def raise_claim(self, order: RaiseClaim) -> None:
        self._orders.put(raise_on_wire(order))

    def redial(self, reason: str) -> None:
        self._call.cancel()

    async def write(self) -> None:
        """Send orders as they gather."""
        while orders := await self._orders.gather():
            request = worker_pb2.WorkerLinkRequest()
            for order in orders:
                if isinstance(order, worker_pb2.Stop):
                    request.stops.append(order)
                else:
                    request.raises.append(order)
            await self._call.write(request)

    def close(self) -> None:
        self._orders.close()


class Links:
    """All links of a router. `infos` keeps each worker's last word of itself."""

    def __init__(
        self, name: str, epoch: int, keys: Keys, workers: Iterable[WorkerSpec], driver: Driver
    ) -> None:
        self._name = name
        self._epoch = epoch
        self._keys = keys
        self._specs = tuple(workers)
        self._driver = driver
        self.infos: dict[str, pb.WorkerInfo] = {}

    async def run(self) -> None:
        """Keep a link to each worker, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for spec in self._specs:
                tasks.create_task(self._keep(spec), name=f"link to {spec.name}")
            await asyncio.Event().wait()  # a router without workers runs all the same

    async def _keep(self, spec: WorkerSpec) -> None:
        pause, said = FIRST_PAUSE, ""
        while True:
            problem = await self._one(spec)
            if self._driver.admission.workers[spec.name].linked:
                pause, said = FIRST_PAUSE, ""
            self._driver.tell(LinkLost(spec.name, problem))
            if problem != said:
                log.warning("worker %s at %s: %s", spec.name, spec.address, problem)
                said = problem
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)

    async def _one(self, spec: WorkerSpec) -> str:
        """Hold one link for as long as it lasts; answers why it ended."""
        async with channel(spec.address) as dialled:
            call: Call = worker_pb2_grpc.WorkerStub(dialled).Link()
            link = Link(call)
            writer = asyncio.create_task(link.write())
            try:
                hello = self._keys.hello(self._name, self._epoch, spec.name)
                await call.write(worker_pb2.WorkerLinkRequest(hello=hello))
                while isinstance(report := await call.read(), worker_pb2.WorkerLinkResponse):
                    self._take(spec.name, report, link)
                return "it closed the link"
            except grpc.aio.AioRpcError as error:
                return Problem.from_rpc(error).message
            except asyncio.CancelledError:
                # `redial` cancelled the call and not this task; the task's own cancellation goes on.
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise
                return "reports were missing"
            except (asyncio.InvalidStateError, ValueError) as error:
                return f"it speaks another version of the link: {error}"
            finally:
                self._driver.disconnect(spec.name, link)
                link.close()
                call.cancel()
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)

    def _take(self, worker: str, report: worker_pb2.WorkerLinkResponse, link: Link) -> None:
        if report.HasField("info"):
            self.infos[worker] = report.info
        self._driver.tell(Reported(worker, report_in_core(report)))
        if report.number == 1:
            self._driver.connect(worker, link)
            log.info("worker %s is linked", worker)
