"""Time to the first token over gRPC: what going through admission adds to calling the worker, on loopback.

The engine says its first token at the next turn of its loop, so what is left is the way there. `worker` is
the least that one can do: a start with a grant of one's own signing, down a session that is open. `diplex` is
the SDK: ask, grant, start, first token. `proxied` is one bare `Generate` of the router. One request at a
time; the ways take turns request by request, so that whatever the machine does meets them all.

    .venv/bin/python benchmarks/data_plane/grpc_ttft.py [--quick] [--json]
"""

import argparse
import asyncio
import json
import secrets
import statistics
import subprocess
import sys
import time
from typing import Any

import grpc_parts as parts

AT_ONCE = (1,)


def measure(quick: bool) -> dict[str, Any]:
    rounds, requests = (1, 100) if quick else (5, 300)
    found: dict[str, dict[str, list[float]]] = {}
    with parts.fleet(0.0) as (_, _, at, places):
        for _ in range(rounds):
            for at_once in AT_ONCE:
                words = ("--router", at, "--worker", places[0], "--requests", str(requests))
                command = [sys.executable, __file__, "client", *words, "--at-once", str(at_once)]
                output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                row = found.setdefault(f"{at_once} at a time", {})
                for name, value in json.loads(output).items():
                    row.setdefault(name, []).append(value)
    return {way: {name: middle(values) for name, values in row.items()} for way, row in found.items()}


def middle(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


class First:
    """A `Consumer` that notes when the first token came."""

    def __init__(self) -> None:
        self.first = 0.0
        self.over: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def on_queued(self, position: int) -> None: ...

    def on_serving(self, granted: Any, grant: Any) -> None: ...

    def on_preempted(self, preemptions: int) -> None: ...

    def on_tokens(self, tokens: Any) -> None:
        self.first = self.first or time.perf_counter()

    def on_done(self, done: Any) -> None:
        self.over.set_result(done)


async def client(args: argparse.Namespace) -> dict[str, float]:
    import diplex
    from diplex.v1 import generation_pb2 as pb
    from diplex.v1 import router_pb2, router_pb2_grpc, worker_pb2, worker_pb2_grpc
    from diplex.wire.frames import WorkerStreams
    from diplex.wire.grants import Keys
    from diplex.wire.serving import channel

    prompt, keys, streams = "to be or not to be", Keys.of(parts.KEY), WorkerStreams()
    async with (
        diplex.AsyncClient(args.router) as asking,
        channel(args.worker) as to_worker,
        channel(args.router) as to_router,
    ):
        await asking.wait_ready()
        worker_stub: Any = worker_pb2_grpc.WorkerStub(to_worker)
        router_stub: Any = router_pb2_grpc.RouterStub(to_router)
        known = await worker_stub.GetInfo(worker_pb2.WorkerGetInfoRequest())
        signed = secrets.randbits(48)  # a grant is shown once in a worker's life

        async def straight(tokens: int) -> float:
            nonlocal signed
            signed += 1
            grant = pb.Grant(
                claim=pb.Claim(lease_id=signed, attempt=1),
                router="bench",
                epoch=1,
                worker=known.info.name,
                boot=known.info.boot,
                blocks=64,
                slots=1,
                max_tokens=tokens,
                start_by_ms=2**40,
                choices=1,
            )
            start = worker_pb2.Start(grant=keys.sign(grant), prompt=pb.Prompt(text=prompt))
            first, began = First(), time.perf_counter()
            streams.open(args.worker, start, first)
            assert (await first.over).reason == pb.END_REASON_LENGTH
            return first.first - began

        async def sdk(tokens: int) -> float:
            first, began = First(), time.perf_counter()
            asking.start(first, prompt, max_tokens=tokens, ignore_eos=True)
            assert (await first.over).reason == pb.END_REASON_LENGTH
            return first.first - began

        async def proxied(tokens: int) -> float:
            request = router_pb2.RouterGenerateRequest(prompt=pb.Prompt(text=prompt), max_tokens=tokens)
            first, began = 0.0, time.perf_counter()
            async for message in router_stub.Generate(request):
                if message.tokens:
                    first = first or time.perf_counter()
            return first - began

        ways = {"worker": straight, "diplex": sdk, "proxied": proxied}
        waited: dict[str, list[float]] = {way: [] for way in ways}

        async def lane(requests: int, kept: bool) -> None:
            for _ in range(requests):
                for way, one in ways.items():
                    seconds = await one(4)
                    if kept:
                        waited[way].append(seconds * 1e3)

        await lane(20, kept=False)
        each = args.requests // args.at_once
        await asyncio.gather(*(lane(each, kept=True) for _ in range(args.at_once)))
        await streams.close()
    said: dict[str, float] = {}
    for way, milliseconds in waited.items():
        milliseconds.sort()
        said[f"{way} p50 ms"] = statistics.median(milliseconds)
        said[f"{way} p99 ms"] = milliseconds[int(len(milliseconds) * 0.99)]
    for way in ("diplex", "proxied"):
        said[f"{way} adds to p50 ms"] = said[f"{way} p50 ms"] - said["worker p50 ms"]
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", choices=("client",), help=argparse.SUPPRESS)
    parser.add_argument("--router", help=argparse.SUPPRESS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--requests", type=int, default=100, help=argparse.SUPPRESS)
    parser.add_argument("--at-once", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    if args.part == "client":
        print(json.dumps(parts.on_uvloop(client(args))))
        return
    found = measure(args.quick)
    if args.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{time.strftime('%Y-%m-%d')}, {parts.machine()}; medians (least to most)")
    for way, row in found.items():
        for name, value in row.items():
            print(f"{way:14} {name:24} {value['median']:8.2f} ({value['least']:.2f} to {value['most']:.2f})")


if __name__ == "__main__":
    main()
