"""An engine whose server its worker starts: the keeper has the process, the engine has the conversation.

The attached engine notices whether the server answers; what it says of that goes through here, so that the
keeper knows when its process serves, and users hear why it does not.
"""

import asyncio
from typing import Any, cast
from urllib.parse import urlsplit

from diplex_workers.engines.attach import AttachEngine
from diplex_workers.engines.engine import Engine, Facts, Host
from diplex_workers.launch.keeper import CannotStart, Keeper


def launched(engine: Engine, keeper: Keeper) -> Engine:
    """The same engine, with its server's process kept running for as long as it is served."""
    return cast(Engine, _Launched(engine, keeper))


async def must_be_free(url: str) -> None:
    """Nobody may listen where the server is going to: its worker would speak to another's.

    Raises:
        CannotStart: somebody does.
    """
    place = urlsplit(url)
    port = place.port or (443 if place.scheme == "https" else 80)
    try:
        _, writer = await asyncio.open_connection(place.hostname, port)
    except OSError:
        return
    writer.close()
    raise CannotStart(f"something else listens at {url}. Mend: end it, or another port in engine.url")


class _Launched:
    """Everything but `serve` is the engine's own."""

    def __init__(self, engine: Engine, keeper: Keeper) -> None:
        self._engine = engine
        self.keeper = keeper
        if isinstance(engine, AttachEngine):
            engine.restart = keeper.anew

    async def serve(self, host: Host) -> None:
        between = _Between(host, self.keeper)
        self.keeper.tell(between.changed)
        async with asyncio.TaskGroup() as both:
            both.create_task(self.keeper.keep(), name="keeper")
            # The conversation ends before the process does: its streams are told so, not cut.
            await self._engine.serve(cast(Host, between))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


class _Between:
    """The host as the engine sees it. All but these two words go straight through."""

    def __init__(self, host: Host, keeper: Keeper) -> None:
        self._host = host
        self._keeper = keeper
        self._is_ready = False

    def ready(self, facts: Facts) -> None:
        if self._keeper.pid is None:
            # What answers there is not ours: it may go any moment, and nobody sized it.
            self._host.unready(self._keeper.problem)
            return
        self._is_ready = True
        self._keeper.served()
        self._host.ready(facts)

    def unready(self, problem: str) -> None:
        """The process's own story is the better reason, where it has one."""
        self._is_ready = False
        self._keeper.silent()
        self._host.unready(self._keeper.problem or problem)

    def changed(self) -> None:
        """The keeper has news. While jobs may run, the engine tells them FAILED first, and then says this."""
        if not self._is_ready and self._keeper.problem:
            self._host.unready(self._keeper.problem)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)
