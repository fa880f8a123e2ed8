"""Pattern B: two engines on one package, each its own model and process. What ends one spares the other."""

import asyncio
import os
import re
import resource
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import diplex
from diplex_core.sim import speech

STREAMS = 12  # on each half, which has 16 slots
LONG = 400  # some four seconds of one stream, and three on the smaller model

HALVES = """\
models:
  qwen2.5-72b-instruct: {profile: qwen2.5-72b, weights: mxfp4-mixed, kv_cache: mxfp8}
  qwen2.5-32b-canary: {profile: qwen2.5-32b, weights: fp8, kv_cache: fp8}
default_model: qwen2.5-72b-instruct
packages:
  pkg2:
    gpu: b200
    pattern: B
    engine: {kind: sim, calibration: chapter}
    instances:
      - {die: 0, model: qwen2.5-72b-instruct}
      - {die: 1, model: qwen2.5-32b-canary}
tiers:
  standard: {patterns: [B], max_output_tokens: 8192}
"""
MODELS = {"pkg2.0": "qwen2.5-72b-instruct", "pkg2.1": "qwen2.5-32b-canary"}

Ending = Callable[[Any, diplex.AsyncClient], Awaitable[None]]


def spoken(prompt: str, tokens: int) -> str:
    digest = speech.prompt_digest("text", prompt.encode())
    return "".join(speech.token(digest, 0, place)[1] for place in range(tokens))


class Listener:
    """One stream, its text as it comes, and the error that ended it, if one did."""

    def __init__(self, client: diplex.AsyncClient, half: str, prompt: str) -> None:
        self.prompt = prompt
        self.text = ""
        self.error: diplex.DiplexError | None = None
        self.stream = client.stream(self.prompt, model=MODELS[half], max_tokens=LONG)

    async def listen(self) -> None:
        try:
            async for chunk in self.stream:
                self.text += chunk.text
        except diplex.DiplexError as error:
            self.error = error

    @property
    def whole(self) -> bool:
        return self.error is None and self.text == spoken(self.prompt, LONG)


async def killed(running: Any, client: diplex.AsyncClient) -> None:
    running.kill("worker", "pkg2.0")


async def out_of_memory(running: Any, client: diplex.AsyncClient) -> None:
    """The process gets no more memory from now on, and prompts that need some until it is gone."""
    pid = running.pid_of("worker", "pkg2.0")
    has = address_space(pid)
    resource.prlimit(pid, resource.RLIMIT_AS, (has, has))

    async def feed(number: int) -> None:
        while True:
            with suppress(diplex.DiplexError):
                await client.generate(f"{number} " * 20_000, model=MODELS["pkg2.0"], max_tokens=1, timeout=30)

    feeding = [asyncio.create_task(feed(number)) for number in range(16)]
    try:
        await running.until(lambda: gone(pid), "the process without memory is gone", within=60)
    finally:
        for task in feeding:
            task.cancel()
        await asyncio.gather(*feeding, return_exceptions=True)
    # Where the allocation failed in C, the process crashed instead of saying so.
    assert re.search("out of memory|killed by SIG(SEGV|ABRT)", running.log.read_text())


def address_space(pid: int) -> int:
    """Bytes of virtual memory that a process has (proc(5), statm)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


async def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("ending", [killed, out_of_memory])
async def test_one_half_that_ends_leaves_the_streams_of_the_other_untouched(fleet: Any, ending: Ending):
    running = fleet(HALVES)
    ended = asyncio.Event()
    heard: dict[str, list[Listener]] = {half: [] for half in MODELS}

    async with diplex.AsyncClient(running.router) as client:

        def listener(half: str, prompt: str) -> Listener:
            heard[half].append(Listener(client, half, prompt))
            return heard[half][-1]

        async def go_on(first: Listener, number: int) -> None:
            """One stream after the other, so that some are under way whenever the other half ends."""
            await first.listen()
            while not ended.is_set():
                await listener("pkg2.1", f"{number}, again {len(heard['pkg2.1'])}").listen()

        async with asyncio.timeout(120), asyncio.TaskGroup() as listening:
            for number in range(STREAMS):
                listening.create_task(listener("pkg2.0", f"{number}").listen())
                listening.create_task(go_on(listener("pkg2.1", f"{number}"), number))
            for half, listeners in heard.items():
                served_by = await asyncio.gather(*(one.stream.started() for one in listeners))
                assert {place.worker for place in served_by} == {half}
            survivor, boots = running.pid_of("worker", "pkg2.1"), await boots_of(running)
            await ending(running, client)
            ended.set()

        assert [one.prompt for one in heard["pkg2.1"] if not one.whole] == []
        assert running.pid_of("worker", "pkg2.1") == survivor
        # Those of the half that ended are whole by its next life, or ended in a clear error: none is wrong.
        for one in heard["pkg2.0"]:
            assert one.whole or one.error is not None
            assert spoken(one.prompt, LONG).startswith(one.text)

        async def back() -> bool:
            now = await boots_of(running, up=True)
            return now["pkg2.0"] not in (None, boots["pkg2.0"]) and now["pkg2.1"] == boots["pkg2.1"]

        await running.until(back, "pkg2.0 is back, and pkg2.1 the process that it was", within=30)
        reply = await client.generate("after", model=MODELS["pkg2.0"], max_tokens=4, timeout=20)
        assert (reply.text, reply.serving.worker) == (spoken("after", 4), "pkg2.0")
    state = await running.settled()
    assert state.leases.over_capacity == 0
    begun = {one.info.name: one.requests for one in state.workers}
    assert begun["pkg2.1"] == len(heard["pkg2.1"])  # none of its streams had to begin again


async def boots_of(running: Any, *, up: bool = False) -> dict[str, int | None]:
    """Each worker's boot; `up`: `None` for one that does not serve."""
    state = await running.state()
    return {one.info.name: None if up and one.state != "up" else one.info.boot for one in state.workers}
