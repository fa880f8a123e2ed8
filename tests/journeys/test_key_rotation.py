"""The key of grants is changed in three steps while a fleet serves: no stream dropped, no request refused."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import diplex
from diplex.wire.grants import Keys
from diplex_cli.grants_keys import KeyFile
from diplex_core.words import Pattern, Rules, Tier
from diplex_router import server as router
from diplex_router.settings import RouterSettings, WorkerSpec
from diplex_workers import server as worker
from diplex_workers.engines.sim import SimEngine, SimSettings
from diplex_workers.settings import WorkerSettings

TIER = Tier("standard", (Pattern.A,), max_output_tokens=100_000)
RULES = Rules(frozenset({"m"}), "m", {"standard": TIER}, "standard")


class Holder:
    """One part's keys, and its own copy of the file that they come from."""

    def __init__(self, file: Path) -> None:
        file.write_text("old:one")
        self.keys = Keys.of("old:one")
        self._file = file
        self._watched = KeyFile(file, self.keys)

    def step(self, text: str) -> None:
        self._file.write_text(text)
        self._watched.look()
        self._watched.look()


@asynccontextmanager
async def running(part: Any, *words: Any) -> AsyncIterator[int]:
    """A part of diplex, and the port on which it listens."""
    stop, port = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(part(*words, stop=stop, started=port.set_result))
    try:
        yield await port
    finally:
        stop.set()
        await task


@pytest.mark.parametrize("worker_goes_first", [True, False])
async def test_a_key_is_changed_under_a_running_stream(tmp_path: Path, worker_goes_first: bool) -> None:
    workers, routers = Holder(tmp_path / "worker.key"), Holder(tmp_path / "router.key")
    engine = SimEngine(SimSettings(("m",), "chapter"))
    settings = WorkerSettings("w1", "w1", "A", keys=workers.keys, drain=1.0)
    async with running(worker.run, settings, engine) as port:
        spec = WorkerSpec("w1", f"127.0.0.1:{port}", "w1", "A", ("m",))
        async with (
            running(
                router.run, RouterSettings("r1", "127.0.0.1", 0, None, RULES, (spec,), routers.keys)
            ) as at,
            diplex.AsyncClient(f"127.0.0.1:{at}") as client,
            client.stream("a long answer", max_tokens=50_000, ignore_eos=True) as stream,
        ):
            assert (await stream.started()).worker == "w1"
            for text in ("old:one,new:two", "new:two,old:one", "new:two"):
                for part in (workers, routers) if worker_goes_first else (routers, workers):
                    part.step(text)
                    reply = await client.generate("between two steps", max_tokens=2, timeout=10)
                    assert reply.usage.completion_tokens == 2
            assert (routers.keys.signs, workers.keys.ids) == ("new", ("new",))
            # It has gone on all the while, and still does.
            before = await anext(stream)
            after = await anext(stream)
            assert (before.index, after.index) == (0, before.count)
