"""A client outside the workers' network: router and worker find each other, it finds only the router."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import diplex
from diplex.wire.grants import Keys
from diplex_core.sim import speech
from diplex_core.words import Pattern, Rules, Tier
from diplex_router import server as router
from diplex_router.settings import RouterSettings, WorkerSpec
from diplex_workers import server as worker
from diplex_workers.engines.sim import SimEngine, SimSettings
from diplex_workers.settings import WorkerSettings

KEYS = Keys.of("k1:for tests only")
NOBODY = "127.0.0.1:1"
RULES = Rules(frozenset({"m"}), "m", {"standard": Tier("standard", (Pattern.A,))}, "standard")


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


async def test_every_request_is_served_whole_through_the_router() -> None:
    engine = SimEngine(SimSettings(("m",), "chapter", time_scale=20))
    settings = WorkerSettings("w1", "w1", "A", keys=KEYS, advertise=NOBODY, drain=1.0)
    async with running(worker.run, settings, engine) as port:
        spec = WorkerSpec("w1", f"127.0.0.1:{port}", "w1", "A", ("m",))
        reached = RouterSettings("r1", "127.0.0.1", 0, None, RULES, (spec,), KEYS)
        async with (
            running(router.run, reached) as at,
            diplex.AsyncClient(f"127.0.0.1:{at}") as client,
        ):
            prompts = [f"prompt {number}" for number in range(20)]
            first = await client.generate(prompts[0], max_tokens=30, ignore_eos=True, timeout=30)
            others = await asyncio.gather(
                *(
                    client.generate(prompt, max_tokens=30, ignore_eos=True, timeout=30)
                    for prompt in prompts[1:]
                )
            )
            for prompt, reply in zip(prompts, [first, *others], strict=True):
                digest = speech.prompt_digest("text", prompt.encode())
                assert reply.text == "".join(speech.token(digest, 0, place)[1] for place in range(30))
                assert reply.serving is not None
                assert reply.serving.worker == "w1"
            async for fleet in client.watch_fleet(
                0.1
            ):  # the worker's last word to the router may be on its way
                if fleet.leases.closed == len(prompts) + 1:  # one grant was given back
                    break
            assert fleet.leases.opened == len(prompts) + 1
