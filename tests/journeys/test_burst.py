"""The failure of routers that go by gauges: a burst on two pools that hold a fourth of it.

Here each pool stays within its blocks, who chats beside it never waits, and whoever waits can say why.
"""

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from diplex import AsyncClient, Reply

ROOT = Path(__file__).parents[2]
CONFIG = (ROOT / "examples/burst.yaml").read_text()
STREAMS, PROMPT, OUTPUT = 16, 192, 256  # 14 blocks of 32 tokens each
POOL = 40
FIRST_IDS = count(1, 1000)


@pytest.fixture(scope="module")
def running(shared_fleet: Callable[..., Any]) -> Any:
    return shared_fleet(CONFIG, "--no-rest")


def explain(fleet: Any, request_id: str) -> str:
    command = [
        sys.executable,
        "-m",
        "diplex_cli.main",
        "explain",
        "--url",
        fleet.router,
        "--request",
        request_id,
    ]
    return subprocess.run(
        command, cwd=fleet.folder, capture_output=True, text=True, timeout=30, check=True
    ).stdout


async def ask(client: AsyncClient, tier: str, request_id: str, prompt: int, output: int) -> Reply:
    first = next(FIRST_IDS)  # each prompt is another, so that nobody shares blocks
    return await client.generate(
        prompt_ids=range(first, first + prompt),
        max_tokens=output,
        ignore_eos=True,
        tier=tier,
        request_id=request_id,
    )


async def test_a_burst_waits_its_turn_and_nobody_elses_promise_is_touched(running: Any):
    over, chats = asyncio.Event(), list[Reply]()

    async def chat_on(number: int) -> None:
        """Its tier waits not at all: a chat that found no room at once would be refused."""
        while not over.is_set():
            chats.append(await ask(client, "interactive", f"chat-{number}-{len(chats)}", 32, 128))

    names = [f"stream-{number}" for number in range(STREAMS)]
    async with AsyncClient(running.router) as client, asyncio.TaskGroup() as tasks:
        for number in range(2):
            tasks.create_task(chat_on(number))
        burst = [tasks.create_task(ask(client, "bulk", name, PROMPT, OUTPUT)) for name in names]
        async for fleet in client.watch_fleet(every=0.1):
            if fleet.leases.waiting:
                break
        waiting = {
            answer.request_id: answer
            for name in names
            if (answer := await client.explain(request_id=name)).HasField("wait")
        }
        last = max(waiting, key=lambda name: waiting[name].wait.ahead)
        said = await asyncio.to_thread(explain, running, last)
        async for fleet in client.watch_fleet(every=0.1):
            for worker in fleet.workers:
                blocks = worker.blocks
                assert blocks.reserved + blocks.pinned + blocks.reclaiming <= POOL
            if all(stream.done() for stream in burst):
                break
        over.set()
    replies = [stream.result() for stream in burst]
    assert [reply.usage.completion_tokens for reply in replies] == [OUTPUT] * STREAMS
    assert all(reply.usage.completion_tokens == 128 for reply in chats)

    assert waiting, "some had to wait"
    for name, answer in waiting.items():
        wait = answer.wait
        assert (wait.needed_blocks, wait.worker in running.workers) == (14, True), name
        assert wait.ahead < wait.queued <= STREAMS - 4
        assert re.search(
            r"it needs 14 KV blocks; pkg\d, which has most room, has \d+ free, \d+ too few", answer.reason
        )
        assert {f for worker in answer.workers.values() for f in worker.filters} <= {
            "kv_fits",
            "leaves_room",
            "spares_reserved",
            "spares_streams",
        }
    assert said.startswith(
        f"{last} · qwen2.5-72b-instruct · tier bulk · tenant default · 192 prompt tokens\n"
    )
    waits = (
        r"has waited [\d.]+ s: .* in tier bulk .*; it needs 14 KV blocks; pkg\d, which has most room, has "
    )
    assert re.search(rf"{waits}|s ago it was granted on ", " ".join(said.split()))

    settled = await running.settled()
    for worker in settled.workers:
        assert 28 <= worker.blocks.peak <= POOL, "by the worker's own account"
    assert (settled.leases.over_capacity, settled.leases.refused_by_worker) == (0, 0)
    past = await asyncio.to_thread(explain, running, names[-1])
    assert re.search(
        r"s ago it was granted on pkg\d; it ended LENGTH with 256 output tokens, [\d.]+ s ago", past
    )


def shown(fleet: Any, *words: str) -> list[str]:
    """What the guide's program prints."""
    command = [sys.executable, str(ROOT / "examples/burst.py"), *words, fleet.router]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()


def reasons(lines: list[str]) -> list[str]:
    return [line for line in lines if re.match(r"burst-\d\d: .* it needs \d+ KV blocks; ", line)]


def peaks(lines: list[str]) -> list[int]:
    return [
        int(peak) for peak in re.findall(r"never held more than (\d+) of its 40 blocks", "\n".join(lines))
    ]


def test_the_guides_program_shows_it(running: Any):
    lines = shown(running)
    *_, whole, _, _, chats = lines
    assert whole == "16 streams came whole, of 256 to 256 tokens; 0 gave way"
    assert re.fullmatch(r"chats: \d+ tokens/s before the burst, \d+ tokens/s beside it", chats)
    assert reasons(lines)
    assert len(peaks(lines)) == 2
    assert max(peaks(lines)) <= POOL


def test_of_streams_that_hold_what_they_mostly_come_to_more_run_at_once(running: Any):
    lines = shown(running, "--short", "--tier", "batch")
    assert max(peaks(lines)) <= POOL
    assert "needs 14 KV blocks" not in "\n".join(lines), "such answers are known to be shorter by now"
    first, *_ = [line.split() for line in lines if re.match(r" *\d+ +\d+ +\d+ of 40", line)]
    assert int(first[0]) < STREAMS - 4


async def test_an_answer_is_the_same_whether_its_claim_grew_or_not(running: Any):
    async def answers(client: AsyncClient, tier: str) -> list[str]:
        streams = (
            client.generate(prompt_ids=range(at, at + 64), max_tokens=384, stop=" ba", tier=tier)
            for at in range(STREAMS)
        )
        return [reply.text for reply in await asyncio.gather(*streams)]

    async with AsyncClient(running.router) as client:
        whole, grown = await answers(client, "bulk"), await answers(client, "batch")
    assert grown == whole
    settled = await running.settled()
    assert settled.leases.over_capacity == 0
