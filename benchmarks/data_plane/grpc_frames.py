"""Frames: CPU per token of a worker and of the SDK, by how many requests share one stream at 20 ms a token.

A frame costs a wake-up on either side whatever is in it, so the more requests share it the less each pays.
The bare peer writes and reads the same messages and does nothing else: what diplex spends beyond it is its
own. The engine computes nothing, and its few microseconds are the worker's. `SDK` is read by a consumer of
plain calls, as the REST shim does it; `SDK, streams` by `async for`, which is a wake-up a token. Counted
from the moment at which all run to the one at which the first is about to end: what a request costs to admit
and to start, `grpc_session.py` says.

    .venv/bin/python benchmarks/data_plane/grpc_frames.py [--quick] [--json]
"""

import argparse
import asyncio
import json
import statistics
import time
from typing import Any

import grpc_parts as parts

TOGETHER, PACE_MS = (1, 8, 100, 200), 20.0


def measure(quick: bool) -> dict[str, Any]:
    rounds, tokens = (1, 120) if quick else (5, 180)
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
                    way, pids = f"{together} requests", {"server": server, "router": router}
                    said = client(reader, target, together, tokens, pids)
                    name = {"consumer": "SDK", "streams": "SDK, streams", "bare": "bare client"}[reader]
                    add(way, name, said["client"], said)
                    if reader == "consumer":
                        add(way, "worker", said["server"], said)
                        add(way, "router", said["router"], said)
                    elif reader == "bare":
                        add(way, "bare server", said["server"], said)
    return {way: {name: middle(values) for name, values in row.items()} for way, row in spent.items()}


def middle(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def client(reader: str, target: str, together: int, tokens: int, pids: dict[str, int]) -> dict[str, float]:
    """Run a client; the CPU seconds of everybody between its two words, and the tokens of that time."""
    words = ("client", "--reader", reader, "--target", target)
    asked = (*words, "--together", str(together), "--tokens", str(tokens))
    with parts.started(__file__, *asked) as (process, line):
        assert process.stdout is not None
        everybody = {**pids, "client": process.pid}
        before = {name: parts.cpu_of(pid) for name, pid in everybody.items()}
        first = json.loads(line)
        last = json.loads(process.stdout.readline())
        spent = {name: parts.cpu_of(pid) - before[name] for name, pid in everybody.items()}
    return {**spent, "tokens": last - first}


class Total:
    """Tokens of all requests. Says when all run, and when they are about to end."""

    def __init__(self, together: int, tokens: int) -> None:
        self._tokens = 0
        self._marks = [together * 20, together * (tokens - 5)]

    def add(self, count: int) -> None:
        self._tokens += count
        if self._marks and self._tokens >= self._marks[0]:
            del self._marks[0]
            print(self._tokens, flush=True)


class Counter:
    """A `Consumer` that counts, and keeps nothing."""

    def __init__(self, total: Total) -> None:
        self._total = total
        self.over: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def on_queued(self, position: int) -> None: ...

    def on_serving(self, granted: Any, grant: Any) -> None: ...

    def on_tokens(self, tokens: Any) -> None:
        self._total.add(tokens.count)

    def on_preempted(self, preemptions: int) -> None: ...

    def on_done(self, done: Any) -> None:
        self.over.set_result(done)


async def by_sdk(reader: str, target: str, together: int, tokens: int) -> None:
    import diplex

    total = Total(together, tokens)
    async with diplex.AsyncClient(target) as asking:
        await asking.wait_ready()

        async def one(number: int) -> None:
            prompt = f"{number} to be or not to be"
            if reader == "streams":
                async for chunk in asking.stream(prompt, max_tokens=tokens, ignore_eos=True):
                    total.add(chunk.count)
                return
            counter = Counter(total)
            asking.start(counter, prompt, max_tokens=tokens, ignore_eos=True)
            await counter.over

        await asyncio.gather(*(one(number) for number in range(together)))


async def by_hand(target: str, together: int, tokens: int) -> None:
    """Reads frames off a bare call, and looks at each token as little as one can."""
    from diplex.v1 import worker_pb2, worker_pb2_grpc
    from diplex.wire.serving import channel

    total = Total(together, tokens)
    async with channel(target) as dialled:
        stub: Any = worker_pb2_grpc.WorkerStub(dialled)
        call = stub.Session()
        starts = [worker_pb2.Start(seq=seq, timeout_ms=tokens) for seq in range(1, together + 1)]
        await call.write(worker_pb2.WorkerSessionRequest(starts=starts))
        left, seen = together, dict.fromkeys(range(1, together + 1), 0)
        while left:
            frame = await call.read()
            for piece in frame.tokens:
                seen[piece.seq] += piece.count
                total.add(piece.count)
            left -= len(frame.done)
        call.cancel()


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
        parts.on_uvloop(reading)
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
