"""`Worker.Link`: a router's orders in, reports out."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final, TypeAlias

import grpc

from diplex.v1 import worker_pb2
from diplex.wire.status import Problem
from diplex_core.words import Seconds
from diplex_workers.clock import Alarm
from diplex_workers.desk import Desk
from diplex_workers.feed import Feed

FULL_EVERY: Final[Seconds] = 1.0

Requests: TypeAlias = AsyncIterator[worker_pb2.WorkerLinkRequest]
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


async def serve_link(desk: Desk, requests: Requests, context: Context) -> None:
    """One link, from its hello until the router leaves, or dials anew.

    Raises:
        grpc.aio.AbortError: the hello was refused.
    """
    first = await anext(requests, None)
    try:
        if first is None or not first.HasField("hello"):
            raise _no_hello()
        desk.gate.hello(first.hello)
    except Problem as problem:
        await problem.abort(context)
    news = asyncio.Event()
    feed = Feed(first.hello.router, news.set)
    desk.account.link(feed)
    _obey(desk, feed, first)
    try:
        async with asyncio.TaskGroup() as tasks:
            orders = tasks.create_task(_take_orders(desk, feed, requests))
            await _write_reports(desk, feed, news, context)
            orders.cancel()
    finally:
        desk.unlink(feed)


async def _take_orders(desk: Desk, feed: Feed, requests: Requests) -> None:
    async for request in requests:
        if feed.closed:
            return  # its router has a newer link, maybe a newer life: it knows nothing of these orders
        _obey(desk, feed, request)
    feed.close()


def _obey(desk: Desk, feed: Feed, request: worker_pb2.WorkerLinkRequest) -> None:
    for stop in request.stops:
        desk.stop(feed.router, stop)
    for order in request.raises:
        desk.raise_claim(feed.router, order)
    if request.HasField("drain"):
        desk.drain(request.drain.active)


async def _write_reports(desk: Desk, feed: Feed, news: asyncio.Event, context: Context) -> None:
    clock = desk.account.clock
    next_full: Alarm | None = None
    try:
        while True:
            news.clear()
            report = feed.take(desk.account)
            if report is None:
                if feed.closed:
                    return
                await news.wait()
                continue
            if report.full:
                if next_full is not None:
                    next_full.cancel()
                next_full = clock.at(clock.now() + FULL_EVERY, feed.full_due)
            await context.write(report)
    finally:
        if next_full is not None:
            next_full.cancel()


def _no_hello() -> Problem:
    return Problem(
        grpc.StatusCode.UNAUTHENTICATED,
        "a link begins with a hello. Mend: only routers link to workers; clients use Session or Generate",
        "BAD_HELLO",
    )
