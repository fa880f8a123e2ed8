"""`/metrics` over HTTP beside a gRPC server: one small page that Prometheus fetches."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from diplex.wire.serving import PortTaken, why_not


@asynccontextmanager
async def serve_metrics(
    host: str, port: int | None, text: Callable[[], bytes], *, option: str
) -> AsyncIterator[int | None]:
    """Serve what `text` answers, on the caller's event loop, inside the `async with` block.

    Args:
        port: 0 for any free one, `None` for no page at all.
        text: makes the page in Prometheus' text form; called at each fetch.
        option: what a user types to choose another port.
    Raises:
        PortTaken: the port is in use.
    """
    if port is None:
        yield None
        return
    from aiohttp import web

    async def page(request: web.Request) -> web.Response:
        return web.Response(body=text(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    app = web.Application()
    app.router.add_get("/metrics", page)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise PortTaken(why_not(host, port, option)) from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
