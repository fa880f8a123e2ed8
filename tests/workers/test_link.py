"""A link as the worker serves it, with a router that says what a test tells it to, when it does."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import worker_pb2
from diplex_workers.link import serve_link


class Context:
    """Whatever is reported is read at once."""

    def __init__(self) -> None:
        self.wrote = asyncio.Event()

    async def write(self, report: worker_pb2.WorkerLinkResponse) -> None:
        self.wrote.set()


async def test_orders_that_come_late_on_a_link_whose_place_was_taken_are_void(house: Any) -> None:
    late = asyncio.Event()

    async def orders() -> AsyncIterator[worker_pb2.WorkerLinkRequest]:
        yield worker_pb2.WorkerLinkRequest(hello=house.keys.hello("r1", 5, "w0"))
        await late.wait()
        claim = pb.Claim(lease_id=1, attempt=1)
        yield worker_pb2.WorkerLinkRequest(raises=[{"claim": claim, "blocks": 40, "id": 1}])
        await asyncio.Event().wait()

    claim = house.run(1, blocks=10)
    held = house.account.pool.holding(claim).blocks
    context = Context()
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        older = tasks.create_task(serve_link(house.desk, orders(), context))  # type: ignore[arg-type]
        await context.wrote.wait()
        late.set()
        house.link("r1", epoch=6)
        await older
    assert house.account.pool.holding(claim).blocks == held
