"""Admission over one `Router.Session`: CPU per request of the router process, tokens not through it.

The other side is one process that plays client and worker by script and as cheaply as it can: it asks at a
given rate, and for every grant reports what a worker does (held, first token, ended) over `Worker.Link`, so
that each request lives its whole life in the router's core. The bare peer answers each ask with a message of
a grant's size and knows nothing.

    .venv/bin/python benchmarks/data_plane/grpc_session.py [--quick] [--json]
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import time
from typing import Any

import grpc_parts as parts

RATES = (100, 1000, 1500)
AT_ONCE = 256
"""Most asks without an answer."""


def measure(quick: bool) -> dict[str, Any]:
    rounds, seconds = (1, 3.0) if quick else (5, 5.0)
    spent: dict[str, dict[str, list[float]]] = {}
    with (
        parts.started(__file__, "other") as (other, port),
        parts.started(parts.__file__, "router", "--worker", f"127.0.0.1:{port}") as (router, at),
        parts.started(__file__, "bare") as (bare, bare_port),
    ):
        assert other.stdin is not None and other.stdout is not None
        for _ in range(rounds):
            for rate in RATES:
                for way, pid, target in (("router", router.pid, at), ("bare", bare.pid, bare_port)):
                    before = parts.cpu_of(pid)
                    other.stdin.write(json.dumps([f"127.0.0.1:{target}", rate, seconds]) + "\n")
                    other.stdin.flush()
                    said = json.loads(other.stdout.readline())
                    row = spent.setdefault(f"{rate} a second", {})
                    milliseconds = (parts.cpu_of(pid) - before) / said["requests"] * 1e3
                    row.setdefault(f"{way}, ms a request", []).append(milliseconds)
                    row.setdefault(f"{way}, requests a second", []).append(said["requests"] / said["seconds"])
                    row.setdefault(f"{way}, ask to grant p50 ms", []).append(said["p50_ms"])
                    if way == "router":
                        row.setdefault("other side, ms a request", []).append(
                            said["cpu"] / said["requests"] * 1e3
                        )
    return {way: {name: middle(values) for name, values in row.items()} for way, row in spent.items()}


def middle(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


class OtherSide:
    """A client's asks and a worker's reports, by script."""

    def __init__(self) -> None:
        self.reports: list[Any] = []
        self.news = asyncio.Event()
        self.port = 0

    def info(self) -> Any:
        from diplex.v1 import generation_pb2 as pb

        return pb.WorkerInfo(
            name="w0",
            package="w0",
            pattern="A",
            models=[pb.Model(name=parts.MODEL, has_chat_template=True)],
            engine="script",
            simulated=True,
            boot=1,
            address=f"127.0.0.1:{self.port}",
            block_tokens=32,
            capacity_blocks=1_000_000,
            capacity_slots=100_000,
            context=100_000,
            can_resume=True,
        )

    async def link(self, requests: Any, context: Any) -> None:
        from diplex.v1 import worker_pb2

        await anext(requests)
        number, began = 0, time.monotonic()
        full_at = 0.0
        while True:
            number += 1
            now = time.monotonic()
            report = worker_pb2.WorkerLinkResponse(
                number=number, engine_ready=True, uptime_ms=int((now - began) * 1000)
            )
            if now >= full_at:  # nothing is held from one moment to the next
                full_at = now + 1.0
                report.full = True
                report.info.CopyFrom(self.info())
            held, self.reports = self.reports, []
            for claim, blocks in held:
                words = {"claim": claim, "blocks": blocks, "slots": 1, "tier": "standard"}
                report.held.add(**words, prompt_tokens=64)
            if held:
                await context.write(report)
                number += 1
                report = worker_pb2.WorkerLinkResponse(
                    number=number, engine_ready=True, uptime_ms=int((now - began) * 1000)
                )
                for claim, blocks in held:
                    words = {"claim": claim, "blocks": blocks, "slots": 1, "tier": "standard"}
                    report.held.add(**words, prompt_tokens=64, prefilled=True, output_tokens=1)
                    ended = report.ended.add(claim=claim, reason=2)
                    ended.usage.prompt_tokens, ended.usage.completion_tokens = 64, 8
                    ended.timing.first_token_ms, ended.timing.total_ms = 20.0, 40.0
            await context.write(report)
            if not self.reports:
                self.news.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.news.wait(), max(0.0, full_at - time.monotonic()))

    async def ask(self, target: str, rate: float, seconds: float) -> dict[str, float]:
        from diplex.v1 import generation_pb2 as pb
        from diplex.v1 import router_pb2, router_pb2_grpc
        from diplex.wire.serving import channel

        async with channel(target) as dialled:
            stub: Any = router_pb2_grpc.RouterStub(dialled)
            call = stub.Session()
            await call.read()
            asked_at: dict[int, float] = {}
            waited: list[float] = []
            total = int(rate * seconds)

            async def hear() -> None:
                while len(waited) < total:
                    answer = await call.read()
                    now = time.monotonic()
                    for granted in answer.granted:
                        waited.append(now - asked_at.pop(granted.ask_id))
                        grant = pb.Grant.FromString(granted.grant.grant)
                        self.reports.append((grant.claim, grant.blocks))
                    assert not answer.refused, answer.refused[0].status
                    if self.reports:
                        self.news.set()

            hearing = asyncio.create_task(hear())
            began, cpu = time.monotonic(), parts.cpu_of(os.getpid())
            done = 0
            while done < total:
                await asyncio.sleep(0.001)  # no more gathers in a message than comes in a millisecond
                due = min(total, int((time.monotonic() - began) * rate))
                if due == done or len(asked_at) > AT_ONCE:
                    continue
                message = router_pb2.RouterSessionRequest()
                now = time.monotonic()
                for ask_id in range(done + 1, due + 1):
                    asked_at[ask_id] = now
                    message.asks.add(
                        ask_id=ask_id,
                        request_id=f"req-{ask_id:016d}",
                        model=parts.MODEL,
                        prompt_tokens=64,
                        exact=True,
                        max_tokens=64,
                        n=1,
                    )
                done = due
                await call.write(message)
            await hearing
            took = time.monotonic() - began
            call.cancel()
            waited.sort()
            return {
                "requests": total,
                "seconds": took,
                "cpu": parts.cpu_of(os.getpid()) - cpu,
                "p50_ms": waited[len(waited) // 2] * 1e3,
            }


async def other(stop: asyncio.Event) -> None:
    """Listens as a worker, and asks as it is told on stdin: target, rate, seconds."""
    import sys

    import grpc

    from diplex.v1 import worker_pb2_grpc
    from diplex.wire.serving import SERVER_OPTIONS

    side = OtherSide()

    class Service(worker_pb2_grpc.WorkerServicer):
        async def Link(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
            await side.link(request_iterator, context)

    server = grpc.aio.server(options=SERVER_OPTIONS)
    worker_pb2_grpc.add_WorkerServicer_to_server(Service(), server)
    side.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    parts.say(side.port)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await side.ask(*json.loads(line))), flush=True)
    await server.stop(0)


async def bare(stop: asyncio.Event) -> None:
    """Answers each ask with a message like a grant, and knows nothing."""
    import grpc

    from diplex.v1 import generation_pb2 as pb
    from diplex.v1 import router_pb2, router_pb2_grpc
    from diplex.wire.serving import SERVER_OPTIONS

    grant = pb.Grant(
        claim=pb.Claim(lease_id=1, attempt=1),
        request_id="x" * 20,
        router="r1",
        worker="w0",
        blocks=4,
        slots=1,
        max_tokens=64,
        tier="standard",
        tenant="default",
    )
    signed = pb.SignedGrant(grant=grant.SerializeToString(), mac=b"x" * 32, key_id="bench")

    class Service(router_pb2_grpc.RouterServicer):
        async def Session(self, requests: Any, context: Any) -> None:  # type: ignore[override]
            await context.write(router_pb2.RouterSessionResponse(router="r1", epoch=1))
            async for request in requests:
                answer = router_pb2.RouterSessionResponse()
                for ask in request.asks:
                    answer.granted.add(ask_id=ask.ask_id, grant=signed, address="127.0.0.1:7610")
                await context.write(answer)

    server = grpc.aio.server(options=SERVER_OPTIONS)
    router_pb2_grpc.add_RouterServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    parts.say(port)
    await stop.wait()
    await server.stop(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", choices=("bare", "other"), help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    if args.part == "other":
        parts.on_uvloop(other(asyncio.Event()))
    elif args.part == "bare":
        from diplex_cli import process

        process.serve(bare)
    else:
        found = measure(args.quick)
        if args.json:
            print(json.dumps(found, indent=2))
            return
        print(f"{time.strftime('%Y-%m-%d')}, {parts.machine()}; medians (least to most)")
        for way, row in found.items():
            for name, value in row.items():
                print(
                    f"{way:14} {name:28} {value['median']:8.2f} ({value['least']:.2f} to {value['most']:.2f})"
                )


if __name__ == "__main__":
    main()
