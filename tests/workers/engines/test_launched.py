"""A server that its worker starts, seen from the worker: it dies or hangs under way, and comes back.

The server is a small one of these tests' own, which says of itself that it is simulated.
"""

import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode

from diplex_core.words import EndReason
from diplex_workers.engines.attach import AttachEngine, AttachSettings
from diplex_workers.launch.keeper import Keeper, Start
from diplex_workers.launch.launched import launched, must_be_free

SERVER = Path(__file__).parents[1] / "launch" / "simulated_server.py"


@pytest.fixture
def port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        number: int = one.getsockname()[1]
        return number


@asynccontextmanager
async def started(on_stage: Any, port: int, *more: str, **start: Any) -> AsyncIterator[tuple[Any, Keeper]]:
    command = (sys.executable, str(SERVER), "--port", str(port), *more)
    url = f"http://127.0.0.1:{port}"

    async def place() -> dict[str, str]:
        await must_be_free(url)
        return {}

    settled = Start(command, **{"grace": 0.2, "silent": 0.2, **start})
    keeper = Keeper("pkg0", settled, place=place, pauses=(0.01, 0.05))
    settings = AttachSettings(url=url, model="m", capacity_blocks=100, slots=4, context=1000)
    async with on_stage(launched(AttachEngine(settings), keeper)) as stage:
        yield stage, keeper


async def ready(stage: Any, times: int = 1) -> None:
    await stage.host.until(lambda: len(stage.host.facts) == times)


async def test_a_server_that_its_worker_starts_serves_and_ends_with_it(on_stage: Any, port: int):
    async with started(on_stage, port) as (stage, keeper):
        await ready(stage)
        job = await stage.job("hello", 3)
        assert await stage.host.ended(job) == EndReason.LENGTH
        assert stage.host.text(job) == "simulated " * 3
        assert keeper.starts == 1
    assert keeper.pid is None


async def test_while_it_loads_the_reason_says_so(on_stage: Any, port: int):
    async with started(on_stage, port) as (stage, _):
        await ready(stage)
        assert stage.host.reasons[-1].endswith("is loading")


async def test_an_engine_that_dies_fails_its_streams_and_comes_back(on_stage: Any, port: int):
    async with started(on_stage, port) as (stage, keeper):
        await ready(stage)
        job = await stage.job("please die", 8)
        assert await stage.host.ended(job) == EndReason.FAILED
        assert stage.host.problem(job).code is StatusCode.UNAVAILABLE
        await ready(stage, 2)
        assert any("exit code 3: simulated error: out of memory" in said for said in stage.host.reasons)
        again = await stage.job("hello", 3)
        assert await stage.host.ended(again) == EndReason.LENGTH
        assert keeper.starts == 2


async def test_an_engine_that_hangs_is_killed_and_its_streams_fail(on_stage: Any, port: int):
    async with started(on_stage, port) as (stage, keeper):
        await ready(stage)
        job = await stage.job("please hang", 8)
        assert await stage.host.ended(job) == EndReason.FAILED
        assert stage.host.problem(job).code is StatusCode.UNAVAILABLE
        await ready(stage, 2)
        assert keeper.starts == 2
        again = await stage.job("hello", 3)
        assert await stage.host.ended(again) == EndReason.LENGTH


async def test_one_that_cannot_start_says_its_own_last_words(on_stage: Any, port: int):
    async with started(on_stage, port, "--exit", "3") as (stage, _):
        await stage.host.until(
            lambda: any("exit code 3: simulated error: no such model" in said for said in stage.host.reasons)
        )
        assert stage.host.facts == []


async def test_what_answers_there_and_is_not_ours_is_not_taken_for_it(on_stage: Any, port: int):
    async with started(on_stage, port) as (other, _):
        await ready(other)
        async with started(on_stage, port) as (stage, _):
            await stage.host.until(
                lambda: any("something else listens" in said for said in stage.host.reasons)
            )
            assert stage.host.facts == []
