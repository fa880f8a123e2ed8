"""A client that dies mid-stream frees its blocks, on the router and on the worker, within a second."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

REAL = """\
models:
  smollm2-135m-instruct: {profile: smollm2-135m}
packages:
  cpu0: {gpu: cpu, model: smollm2-135m-instruct, engine: {kind: llamacpp, weights: smollm2}}
tiers:
  standard: {patterns: [A]}
"""
QUESTION = [{"role": "user", "content": "Write a very long story about a river, and never end it."}]
LONG = 900  # tokens: seconds on the CPU and on the simulated engine alike

# A client of its own, so that it can be killed: says a word once its stream has begun.
CLIENT = """
import asyncio, json, sys, diplex
async def main(target, messages, tokens):
    async with diplex.AsyncClient(target) as client:
        async for _ in client.stream(messages=messages, tier="standard", max_tokens=tokens):
            print("began", flush=True)
asyncio.run(main(*json.loads(sys.argv[1])))
"""

# The same for a client that knows no grants: its tokens come through the router.
PROXIED_CLIENT = """
import json, sys, grpc
from diplex.v1 import generation_pb2 as pb, router_pb2, router_pb2_grpc
target, messages, tokens = json.loads(sys.argv[1])
prompt = pb.Prompt(chat=pb.Chat(messages=json.dumps(messages).encode()))
stub = router_pb2_grpc.RouterStub(grpc.insecure_channel(target))
request = router_pb2.RouterGenerateRequest(prompt=prompt, tier="standard", max_tokens=tokens)
for answer in stub.Generate(request):
    if answer.tokens:
        print("began", flush=True)
"""


def sdk_client_killed(fleet: Any) -> AsyncGenerator[str, None]:
    return client_killed(fleet, CLIENT)


def proxied_client_killed(fleet: Any) -> AsyncGenerator[str, None]:
    return client_killed(fleet, PROXIED_CLIENT)


async def client_killed(fleet: Any, program: str) -> AsyncGenerator[str, None]:
    arguments = json.dumps([fleet.router, QUESTION, LONG])
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, arguments, stdout=asyncio.subprocess.PIPE
    )
    assert client.stdout
    assert await asyncio.wait_for(client.stdout.readline(), 30) == b"began\n"
    yield "streams"
    os.kill(client.pid, signal.SIGKILL)
    yield "dead"
    await client.wait()


async def rest_socket_closed(fleet: Any) -> AsyncGenerator[str, None]:
    model = next(iter(fleet.said["fleet"].values()))["models"][0]
    body = {"model": model, "messages": QUESTION, "max_tokens": LONG, "service_tier": "standard"}
    text = json.dumps({**body, "stream": True}).encode()
    where = urlsplit(fleet.rest)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: diplex\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text)
    await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    for _ in ("the role", "the first word"):
        await asyncio.wait_for(reader.readuntil(b"data: "), 30)
    yield "streams"
    writer.transport.abort()
    yield "dead"


@pytest.mark.parametrize("config", [pytest.param((), id="sim"), pytest.param((REAL,), id="llamacpp")])
@pytest.mark.parametrize("client", [sdk_client_killed, proxied_client_killed, rest_socket_closed])
async def test_its_blocks_are_free_within_a_second(
    fleet: Any, client: Callable[[Any], AsyncGenerator[str, None]], config: tuple[str, ...]
):
    running = fleet(*config)
    death = client(running)
    assert await anext(death) == "streams"
    before = await running.state()
    assert before.leases.running == 1
    assert sum(worker.blocks.reserved for worker in before.workers) > 0

    assert await anext(death, "dead") == "dead"
    after = await running.settled(within=1.0)
    assert after.leases.opened == after.leases.closed == 1
    await death.aclose()
