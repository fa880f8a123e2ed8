"""What each placement comes to on the GPUs of this machine, and a real vLLM on two halves and on a pair.

    python benchmarks/placement/run.py [MODEL_FOLDER [ARGS …]]

First every way is decided and looked at with CUDA's own eyes. With a model's folder (and what vLLM needs to
serve it here, such as --load-format dummy) the recipe's own commands are then started as `launch` starts
them: two MPS halves of GPU 0 at once, one of which is killed while the other answers; and GPU 0 and 1 as a
pair, with tensor parallelism, where NVLink joins them. Needs an NVIDIA GPU, nvidia-ml-py, and vLLM 0.20.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from diplex_core.plan.deployment import deployment_of
from diplex_core.plan.recipe import Asked, Engine, recipe_of
from diplex_core.plan.recipe_sizes import Serves
from diplex_core.plan.recipe_ways import Way
from diplex_core.words import Pattern
from diplex_workers.launch import cuda_devices
from diplex_workers.launch.keeper import CannotStart, Keeper, Start
from diplex_workers.launch.nvml import LiveNvml
from diplex_workers.launch.placement import Wanted
from diplex_workers.launch.seating import Seating

MODEL = "qwen2.5-7b"
BEGAN = time.monotonic()
EVERY_WAY = (
    Wanted(Pattern.A, Way.PLAIN),
    Wanted(Pattern.B, Way.PAIR, half=1),
    Wanted(Pattern.C, Way.PAIR, 2),
    Wanted(Pattern.B, Way.MIG),
    Wanted(Pattern.B, Way.MPS),
    Wanted(Pattern.B, Way.MLOPART),
    Wanted(Pattern.C, Way.MLOPART, 2),
)


def say(*words: object) -> None:
    print(f"{time.monotonic() - BEGAN:6.1f} s ", *words, flush=True)


def used_memory() -> str:
    return ", ".join(f"{one.memory_used / 2**30:.1f} GiB" for one in LiveNvml().look().devices)


async def decide(wanted: Wanted) -> None:
    name = f"pattern {wanted.pattern}, {wanted.way}:"
    try:
        env = await Seating(wanted)()
    except CannotStart as why:
        say(name, "REFUSED:", why)
        return
    seen = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", cuda_devices.__name__],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )
    devices = [json.loads(line) for line in seen.stdout.splitlines()]
    say(name, [f"{one['name']}, {one['multiprocessors']} SMs" for one in devices])


class Kept:
    """One engine as `launch` keeps it, asked from here in place of its worker."""

    def __init__(self, name: str, engine: Engine, wanted: Wanted, args: list[str]) -> None:
        self.name, self.url = name, engine.url
        start = Start((*engine.command, *args), ready_within=400, silent=10)
        self.keeper = Keeper(name, start, place=Seating(wanted), pauses=(1, 4))
        self.keeper.tell(lambda: say(name, self.keeper.problem[:200]))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        keeping = asyncio.create_task(self.keeper.keep())
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.wait([keeping])

    async def started_again(self) -> None:
        while self.keeper.starts == 1:  # noqa: ASYNC110  nobody tells of it
            await asyncio.sleep(0.1)

    async def ready(self) -> None:
        while True:
            try:
                await self._get("/health", None)
                break
            except OSError:
                await asyncio.sleep(0.2)
        self.keeper.served()
        say(self.name, "serves")

    async def answer(self, tokens: int = 64) -> None:
        began = time.monotonic()
        body = {
            "model": MODEL,
            "prompt": "hello " * 50,
            "max_tokens": tokens,
            "ignore_eos": True,
            "priority": 1,
        }
        usage = json.loads(await self._get("/v1/completions", body))["usage"]
        say(self.name, usage["completion_tokens"], f"tokens in {time.monotonic() - began:.2f} s")

    async def _get(self, path: str, body: Mapping[str, Any] | None) -> str:
        def asked() -> str:
            data = json.dumps(body).encode() if body else None
            request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=30) as answer:
                return str(answer.read().decode())

        return await asyncio.to_thread(asked)

    def a_part(self) -> int:
        """The newest process of its group: what computes, not what listens."""
        children = Path(f"/proc/{self.keeper.pid}/task/{self.keeper.pid}/children").read_text().split()
        group = subprocess.run(["pgrep", "-g", children[0]], capture_output=True, text=True)
        return int(group.stdout.split()[-1])


async def halves(folder: str, args: list[str]) -> None:
    deployment = deployment_of(MODEL, gpu="b200", pattern="B", weights="bf16", kv_cache="bf16")
    asked = Asked(engine="vllm", placement="mps", serves=Serves.LATENCY, checkpoint=folder)
    first, second = (
        Kept(f"half {number}:", one, Wanted(Pattern.B, Way.MPS, half=number), args)
        for number, one in enumerate(recipe_of(deployment, asked).engines)
    )
    async with first.running(), second.running():
        await asyncio.gather(first.ready(), second.ready())
        await asyncio.gather(first.answer(), second.answer())
        say("memory in use:", used_memory())
        os.kill(second.a_part(), signal.SIGKILL)
        say("half 1: a part of it was killed")
        await asyncio.gather(*(first.answer() for _ in range(4)))
        await second.started_again()
        await second.ready()
        await second.answer()
    say("both ended; memory in use:", used_memory())


async def pair(folder: str, args: list[str]) -> None:
    deployment = deployment_of(MODEL, gpu="h100", pattern="C", count=2, weights="bf16", kv_cache="bf16")
    (engine,) = recipe_of(deployment, Asked(engine="vllm", checkpoint=folder, port=8010)).engines
    kept = Kept("pair:", engine, Wanted(Pattern.C, Way.PAIR, 2), args)
    async with kept.running():
        await kept.ready()
        await kept.answer()
        await kept.answer(512)
        say("memory in use:", used_memory())
    say("ended; memory in use:", used_memory())


async def main(folder: str = "", *args: str) -> None:
    machine = LiveNvml().look()
    say("driver", machine.driver, [one.name for one in machine.devices], "NVLink:", sorted(machine.nvlinked))
    for wanted in EVERY_WAY:
        await decide(wanted)
    if folder:
        await halves(folder, list(args))
        if machine.nvlinked:
            await pair(folder, list(args))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
