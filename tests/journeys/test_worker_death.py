"""A worker that dies under load: its streams go on whole elsewhere, or end in a clear error."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import diplex
from diplex_core.sim import speech

STREAMS = 40
LONG = 800

ALONE = """\
models:
  qwen2.5-72b-instruct: {profile: qwen2.5-72b, weights: mxfp4-mixed, kv_cache: mxfp8}
  echoed: {}
default_model: qwen2.5-72b-instruct
packages:
  pkg0: {gpu: b200, pattern: A, model: qwen2.5-72b-instruct, engine: {kind: sim, calibration: chapter}}
  box0:
    gpu: h200
    model: echoed
    kv_blocks: 4096
    slots: 8
    engine: {kind: attach, api: openai, context: 8192, url: "URL"}
tiers:
  standard: {patterns: [A], max_output_tokens: 8192}
default_tier: standard
"""

ENDLESS_ENGINE = Path(__file__).with_name("endless_engine.py")


def spoken(prompt: str, tokens: int) -> str:
    digest = speech.prompt_digest("text", prompt.encode())
    return "".join(speech.token(digest, 0, place)[1] for place in range(tokens))


async def test_streams_of_a_killed_worker_go_on_whole_elsewhere_and_it_is_used_again(fleet: Any):
    running = fleet()
    async with diplex.AsyncClient(running.router) as client:
        streams = [client.stream(f"prompt {n}", tier="standard", max_tokens=LONG) for n in range(STREAMS)]
        answers = [asyncio.create_task(whole(stream)) for stream in streams]
        serving = await asyncio.gather(*(stream.started() for stream in streams))
        assert sum(place.worker == "pkg1" for place in serving) > STREAMS / 2  # else the kill shows little
        boot = (await running.pool_of("pkg1")).info.boot
        running.kill("worker", "pkg1")
        texts = await asyncio.wait_for(asyncio.gather(*answers), 120)
        assert [n for n, text in enumerate(texts) if text != spoken(f"prompt {n}", LONG)] == []

        await until_up(running, "pkg1", not_boot=boot)
        reply = await client.generate("after", tier="bulk", max_tokens=4, timeout=20)
        assert (reply.text, reply.serving.worker) == (spoken("after", 4), "pkg1")
    assert (await running.settled()).leases.over_capacity == 0


async def until_up(running: Any, name: str, *, not_boot: int) -> None:
    async def look() -> bool:
        state = await running.state()
        return any(w.info.name == name and w.state == "up" and w.info.boot != not_boot for w in state.workers)

    await running.until(look, f"{name} is up again", within=20)


async def whole(stream: Any) -> str:
    return "".join([chunk.text async for chunk in stream])


@pytest.fixture
async def engine_url() -> Any:
    engine = await asyncio.create_subprocess_exec(
        sys.executable, ENDLESS_ENGINE, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert engine.stdout
    yield f"http://127.0.0.1:{int(await asyncio.wait_for(engine.stdout.readline(), 20))}"
    os.killpg(engine.pid, signal.SIGKILL)
    await engine.wait()


async def test_a_stream_that_cannot_go_on_ends_over_rest_in_an_error_that_does_not_look_like_success(
    fleet: Any, engine_url: str
):
    running = fleet(ALONE.replace("URL", engine_url))
    body = {
        "model": "echoed",
        "messages": [{"role": "user", "content": "say something"}],
        "max_tokens": 4000,
        "stream": True,
    }
    events, killed = [], False
    async with (
        diplex.AsyncClient(running.router) as client,
        aiohttp.ClientSession() as session,
        session.post(f"{running.rest}/v1/chat/completions", json=body) as response,
    ):
        neighbour = client.stream("prompt", model="qwen2.5-72b-instruct", max_tokens=LONG)
        going_on = asyncio.create_task(whole(neighbour))
        await neighbour.started()
        async for line in response.content:
            if data := line.decode().removeprefix("data: ").strip():
                events.append(data)
            if len(events) == 5 and not killed:
                killed = True
                running.kill("worker", "box0")
        assert await asyncio.wait_for(going_on, 60) == spoken("prompt", LONG)

    *words, last = (json.loads(event) for event in events if event.startswith("{"))
    assert "[DONE]" not in events
    assert all(choice["finish_reason"] is None for word in words for choice in word["choices"])
    assert "box0" in last["error"]["message"] and "\n" not in last["error"]["message"].strip()
    await running.settled()
