"""Proxied `Generate`: CPU per token of the router, beside a bare grpc.aio server that writes the same.

The bare server knows no workers: one tick writes one token to each of its streams. What the router spends
beyond it is what it costs to read frames and to carry leases. Both run on uvloop, take turns, and are read
by the same client.

    .venv/bin/python benchmarks/data_plane/grpc_proxy.py [--quick] [--json]
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from typing import Any

import grpc_parts as parts

STREAMS, PACE_MS = 32, 20.0


def measure(quick: bool) -> dict[str, Any]:
    rounds, seconds = (1, 3.0) if quick else (5, 6.0)
    found: dict[str, dict[str, list[float]]] = {}
    for pace in (0.0, PACE_MS):
        paced = "paced" if pace else "full"
        tokens = round(seconds * 1000 / pace) if pace else 4000
        with (
            parts.fleet(pace) as (router, workers, at, _),
            parts.started(__file__, "bare", "--pace-ms", str(pace)) as (bare, port),
        ):
            pids = {"router": router, "worker": workers[0], "bare": bare.pid}
            for _ in range(rounds):
                for way, target in (("diplex", at), ("bare", f"127.0.0.1:{port}")):
                    before = {name: parts.cpu_of(pid) for name, pid in pids.items()}
                    said = client(target, tokens)
                    all_tokens = said["tokens"]
                    row = found.setdefault(f"{paced} {way}", {})
                    for name in ("router", "worker") if way == "diplex" else ("bare",):
                        spent = (parts.cpu_of(pids[name]) - before[name]) / all_tokens * 1e6
                        row.setdefault(f"{name}_us_per_token", []).append(spent)
                    row.setdefault("client_us_per_token", []).append(said["cpu"] / all_tokens * 1e6)
                    row.setdefault("tokens_per_message", []).append(all_tokens / said["messages"])
                    row.setdefault("tokens_per_s", []).append(all_tokens / said["seconds"])
    return {way: {name: _middle(values) for name, values in row.items()} for way, row in found.items()}


def _middle(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def client(target: str, tokens: int) -> dict[str, float]:
    asked = [sys.executable, __file__, "client", "--target", target, "--tokens", str(tokens)]
    return dict(json.loads(subprocess.run(asked, check=True, capture_output=True, text=True).stdout))


async def read(target: str, tokens: int, streams: int) -> dict[str, float]:
    """So many streams, each of so many tokens; what this process spent on them."""
    import os

    from diplex.v1 import generation_pb2 as pb
    from diplex.v1 import router_pb2, router_pb2_grpc
    from diplex.wire.serving import channel

    async with channel(target) as dialled:
        stub: Any = router_pb2_grpc.RouterStub(dialled)

        async def one(number: int, tokens: int) -> tuple[int, int]:
            request = router_pb2.RouterGenerateRequest(
                prompt=pb.Prompt(text=f"{number} to be or not to be"),
                max_tokens=tokens,
                sampling=pb.Sampling(ignore_eos=True),
            )
            seen = messages = 0
            async for message in stub.Generate(request):
                messages += 1
                for piece in message.tokens:
                    seen += piece.count
            assert seen == tokens, f"{seen} of {tokens} tokens came"
            return seen, messages

        await one(0, 2)
        began, cpu = time.monotonic(), parts.cpu_of(os.getpid())
        read = await asyncio.gather(*(one(number, tokens) for number in range(streams)))
        seconds = time.monotonic() - began
    return {
        "tokens": sum(seen for seen, _ in read),
        "messages": sum(messages for _, messages in read),
        "seconds": seconds,
        "cpu": parts.cpu_of(os.getpid()) - cpu,
    }


async def bare(pace: float, stop: asyncio.Event) -> None:
    """Writes what a router would, and does nothing else."""
    import grpc

    from diplex.v1 import generation_pb2 as pb
    from diplex.v1 import router_pb2, router_pb2_grpc
    from diplex.wire.coalesce import Outbox
    from diplex.wire.serving import SERVER_OPTIONS

    streams: dict[Outbox[pb.Tokens], list[int]] = {}

    class Service(router_pb2_grpc.RouterServicer):
        async def Generate(self, request: Any, context: Any) -> Any:  # type: ignore[override]
            outbox: Outbox[pb.Tokens] = Outbox()
            streams[outbox] = [0, request.max_tokens]
            while gathered := await outbox.gather():
                yield router_pb2.RouterGenerateResponse(tokens=gathered)

    async def tick() -> None:
        due = time.monotonic()
        while True:
            due += pace
            await asyncio.sleep(max(0.0, due - time.monotonic()) if pace else 0)
            for outbox, state in list(streams.items()):
                if not pace and len(outbox) >= 1:
                    continue  # one token a message: what a server without any merging writes
                outbox.put(pb.Tokens(seq=1, index=state[0], count=1, ids=[state[0] + 1], text=parts.WORD))
                state[0] += 1
                if state[0] >= state[1]:
                    outbox.close()
                    del streams[outbox]

    server = grpc.aio.server(options=SERVER_OPTIONS)
    router_pb2_grpc.add_RouterServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    parts.say(port)
    ticking = asyncio.create_task(tick())
    await stop.wait()
    ticking.cancel()
    await server.stop(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", choices=("bare", "client"), help=argparse.SUPPRESS)
    parser.add_argument("--pace-ms", type=float, default=PACE_MS, help=argparse.SUPPRESS)
    parser.add_argument("--target", help=argparse.SUPPRESS)
    parser.add_argument("--tokens", type=int, default=100, help=argparse.SUPPRESS)
    parser.add_argument("--streams", type=int, default=STREAMS, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    if args.part == "bare":
        from diplex_cli import process

        process.serve(lambda stop: bare(args.pace_ms / 1000, stop))
    elif args.part == "client":
        print(json.dumps(parts.on_uvloop(read(args.target, args.tokens, args.streams))))
    else:
        found = measure(args.quick)
        if args.json:
            print(json.dumps(found, indent=2))
            return
        print(f"{time.strftime('%Y-%m-%d')}, {parts.machine()}; {STREAMS} streams, medians (least to most)")
        for way, row in found.items():
            for name, value in row.items():
                print(
                    f"{way:14} {name:22} {value['median']:10.1f}"
                    f" ({value['least']:.1f} to {value['most']:.1f})"
                )


if __name__ == "__main__":
    main()
