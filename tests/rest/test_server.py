"""Starting and ending a shim."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest

from diplex.wire.serving import PortTaken
from diplex_rest.server import RestSettings, run

Shim = Callable[..., AbstractAsyncContextManager[int]]
pytestmark = pytest.mark.asyncio(loop_scope="module")  # one shim and one fleet for all of these


async def test_a_taken_port_is_refused_with_the_option_that_mends_it():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} on 127.0.0.1 is taken.*--rest-port"):
            await run(RestSettings("127.0.0.1", port, "127.0.0.1:1"), stop=asyncio.Event())


async def test_a_shim_that_is_told_to_stop_lets_a_running_stream_end(fleet: Any, shim: Shim, until: Any):
    fleet.script = fleet.hold_after_one_word
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    async with httpx.AsyncClient(verify=False) as http, asyncio.TaskGroup() as tasks:
        async with shim(fleet.router) as port:
            request = http.build_request("POST", f"http://127.0.0.1:{port}/v1/chat/completions", json=body)
            answer = await http.send(request, stream=True)
            lines = answer.aiter_lines()
            await anext(lines)
            # Leaving this block tells it to stop, and waits until it has ended.
            rest = tasks.create_task(read(lines))
            tasks.create_task(release_when_closed(fleet, port, until))
        assert "data: [DONE]" in await rest


async def test_what_takes_too_long_then_is_ended_with_an_error_and_its_worker_told(
    fleet: Any, shim: Shim, until: Any
):
    fleet.script = fleet.hold_after_one_word
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    async with httpx.AsyncClient(verify=False) as http, asyncio.TaskGroup() as tasks:
        async with shim(fleet.router, drain=0.05) as port:
            request = http.build_request("POST", f"http://127.0.0.1:{port}/v1/chat/completions", json=body)
            answer = await http.send(request, stream=True)
            rest = tasks.create_task(read(answer.aiter_lines()))
        assert "shutting_down" in (await rest)[-2]
    await until(lambda: fleet.cancelled, "the worker was told")


async def read(lines: Any) -> list[str]:
    return [line async for line in lines]


async def release_when_closed(fleet: Any, port: int, until: Any) -> None:
    def refused() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) != 0

    await until(refused, "the port was closed")
    fleet.hold.set()
