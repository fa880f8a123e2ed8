"""Frames: CPU per token of a worker and of the SDK, by how many requests share one stream at 20 ms a token.

A frame costs a wake-up on either side whatever is in it, so the more requests share it the less each pays.
The bare peer writes and reads the same messages and does nothing else: what diplex spends beyond it is its
own. The engine computes nothing, and its few microseconds are the worker's. `SDK` is read by a consumer of
plain calls, as the REST shim does it; `SDK, streams` by `async for`, which is a wake-up a token.

    .venv/bin/python benchmarks/data_plane/grpc_frames.py [--quick] [--json]
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import grpc_parts as parts

TOGETHER, PACE_MS = (1, 8, 100, 200), 20.0


def measure(quick: bool) -> dict[str, Any]:
    rounds, tokens = (1, 100) if quick else (5, 150)
    spent: dict[str, dict[str, list[float]]] = {}

    def add(way: str, name: str, seconds: float, said: dict[str, float]) -> None:
        spent.setdefault(way, {}).setdefault(name, []).append(seconds / said["tokens"] * 1e6)

    with (
        parts.fleet(PACE_MS) as (router, workers, at, _),
        parts.started(__file__, "bare") as (bare, port),
    ):
        for _ in range(rounds):
            for together in TOGETHER:
                for reader, server, target in (
                    ("consumer", workers[0], at),
                    ("streams", workers[0], at),
                    ("bare", bare.pid, f"127.0.0.1:{port}"),
                ):
                    if reader == "streams" and together != 100:
                        continue
                    way, before = f"{together} requests", (parts.cpu_of(server), parts.cpu_of(router))
                    said = client(reader, target, together, tokens)
                    server_spent = parts.cpu_of(server) - before[0]
                    name = {"consumer": "SDK", "streams": "SDK, streams", "bare": "bare client"}[reader]
                    add(way, name, said["cpu"], said)
                    if reader == "consumer":
                        add(way, "worker", server_spent, said)
                        add(way, "router", parts.cpu_of(router) - before[1], said)
                    elif reader == "bare":
                        add(way, "bare server", server_spent, said)
    return {way: {name: middle(values) for name, values in row.items()} for way, row in spent.items()}


def middle(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def client(reader: str, target: str, together: int, tokens: int) -> dict[str, float]:
    words = ("client", "--reader", reader, "--target", target)
    asked = [sys.executable, __file__, *words, "--together", str(together), "--tokens", str(tokens)]
    return dict(json.loads(subprocess.run(asked, check=True, capture_output=True, text=True).stdout))


class Counter:
    """A `Consumer` that counts, and keeps nothing."""

    def __init__(self) -> None:
        self.tokens = 0
        self.over: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def on_queued(self, position: int) -> None: ...

    def on_serving(self, granted: Any, grant: Any) -> None: ...

    def on_tokens(self, tokens: Any) -> None:
        self.tokens += tokens.count

    def on_preempted(self, preemptions: int) -> None: ...

    def on_done(self, done: Any) -> None:
        self.over.set_result(done)


async def by_sdk(reader: str, target: str, together: int, tokens: int) -> dict[str, float]:
    import diplex

    async with diplex.AsyncClient(target) as asking:
        await asking.wait_ready()

        async def one(number: int, tokens: int) -> int:
            prompt = f"{number} to be or not to be"
            if reader == "streams":
                stream = asking.stream(prompt, max_tokens=tokens, ignore_eos=True)
                return sum([chunk.count async for chunk in stream])
            counter = Counter()
            asking.start(counter, prompt, max_tokens=tokens, ignore_eos=True)
            await counter.over
            return counter.tokens

        return await timed(one, together, tokens)


async def by_hand(target: str, together: int, tokens: int) -> dict[str, float]:
    """Reads frames off a bare call, and looks at each token as little as one can."""
    from diplex.v1 import worker_pb2, worker_pb2_grpc
    from diplex.wire.serving import channel

    async with channel(target) as dialled:
        stub: Any = worker_pb2_grpc.WorkerStub(dialled)
        call = stub.Session()
        seen: dict[int, int] = {}

        async def one(number: int, tokens: int) -> int:
            starts = [
                worker_pb2.Start(seq=seq, timeout_ms=tokens) for seq in range(number, number + together)
            ]
            await call.write(worker_pb2.WorkerSessionRequest(starts=starts))
            left = together
            while left:
                frame = await call.read()
                for piece in frame.tokens:
                    seen[piece.seq] = seen.get(piece.seq, 0) + piece.count
                left -= len(frame.done)
            return sum(seen.pop(seq) for seq in range(number, number + together))

        said = await timed(one, 1, tokens, share=together)
        call.cancel()
        return said


async def timed(one: Any, together: int, tokens: int, share: int = 1) -> dict[str, float]:
    await asyncio.gather(*(one(number * share, 3) for number in range(1, together + 1)))
    began, cpu = time.monotonic(), parts.cpu_of(os.getpid())
    seen = await asyncio.gather(
        *(one(number * share + 1_000_000, tokens) for number in range(1, together + 1))
    )
    spent = parts.cpu_of(os.getpid()) - cpu
    assert sum(seen) == together * share * tokens, f"{sum(seen)} tokens came"
    return {"tokens": sum(seen), "cpu": spent, "seconds": time.monotonic() - began}


async def bare(stop: asyncio.Event) -> None:
    """Frames with nobody behind them: so many tokens for each start, as its `timeout_ms` says."""
    import grpc

    from diplex.v1 import generation_pb2 as pb
    from diplex.v1 import worker_pb2, worker_pb2_grpc
    from diplex.wire.serving import SERVER_OPTIONS

    class Service(worker_pb2_grpc.WorkerServicer):
        async def Session(self, requests: Any, context: Any) -> None:  # type: ignore[override]
            left: dict[int, list[int]] = {}

            async def take() -> None:
                async for request in requests:
                    left.update((start.seq, [0, start.timeout_ms]) for start in request.starts)

            taking = asyncio.create_task(take())
            due = time.monotonic()
            while not taking.done():
                due += PACE_MS / 1000
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                frame = worker_pb2.WorkerSessionResponse()
                for seq, state in list(left.items()):
                    frame.tokens.add(seq=seq, index=state[0], count=1, ids=(state[0] + 1,), text=parts.WORD)
                    state[0] += 1
                    if state[0] >= state[1]:
                        frame.done.append(pb.Done(seq=seq, reason=pb.END_REASON_LENGTH))
                        del left[seq]
                if frame.tokens:
                    await context.write(frame)

    server = grpc.aio.server(options=SERVER_OPTIONS)
    worker_pb2_grpc.add_WorkerServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    parts.say(port)
    await stop.wait()
    await server.stop(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", choices=("bare", "client"), help=argparse.SUPPRESS)
    parser.add_argument("--reader", default="consumer", help=argparse.SUPPRESS)
    parser.add_argument("--target", help=argparse.SUPPRESS)
    parser.add_argument("--together", type=int, default=100, help=argparse.SUPPRESS)
    parser.add_argument("--tokens", type=int, default=100, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    if args.part == "bare":
        from diplex_cli import process

        process.serve(bare)
    elif args.part == "client":
        reading = (
            by_hand(args.target, args.together, args.tokens)
            if args.reader == "bare"
            else by_sdk(args.reader, args.target, args.together, args.tokens)
        )
        print(json.dumps(parts.on_uvloop(reading)))
    else:
        found = measure(args.quick)
        if args.json:
            print(json.dumps(found, indent=2))
            return
        print(f"{time.strftime('%Y-%m-%d')}, {parts.machine()}; us of CPU per token, medians (least to most)")
        for way, row in found.items():
            for name, value in row.items():
                print(
                    f"{way:14} {name:14} {value['median']:8.1f} ({value['least']:.1f} to {value['most']:.1f})"
                )


if __name__ == "__main__":
    main()
