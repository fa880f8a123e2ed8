"""gRPC: the first token on each way, and what the router spends on streams whose tokens pass it by."""

import asyncio
import json
import sys
import time
from typing import Any

import bars
import fleet
import grpc_parts
import machine
import measure

RATE = 20.0


def first_token(quick: bool) -> dict[str, Any]:
    """Admission and stream against a bare call to the worker, beside nobody: what each way adds to TTFT.

    The engine has a token every 2 ms, so that the wait for its step does not hide what is looked for.
    """
    rounds, seconds = (1, 3.0) if quick else (5, 5.0)
    with (
        fleet.serving(pace=0.002, streams=4, slots=64) as serving,
        machine.running("asker", [sys.executable, __file__], machine.cores()[0]) as asker,
    ):
        asker.line()

        def one(way: str) -> measure.Figures:
            target = serving.workers[0] if way == "worker" else serving.router
            asker.ask(way=way, target=target, seconds=0.5)
            cpu = serving.cpu()
            said = asker.ask(way=way, target=target, seconds=seconds)
            spent = {part: now - cpu[part] for part, now in serving.cpu().items()}
            return {
                "ttft_p50_ms": said["p50"],
                "ttft_p99_ms": said["p99"],
                "router_ms_per_request": 1000 * spent["router"] / said["count"],
                "requests": float(said["count"]),
            }

        runs = measure.interleaved(["worker", "session", "generate"], rounds, one)
    figures = measure.summary(runs)
    middle = {way: figures[way]["ttft_p50_ms"]["median"] for way in runs}
    note = f"calling the worker {middle['worker']:.2f} ms"
    return {
        "rate": RATE,
        "figures": figures,
        "bars": [
            bars.bar(
                "1. direct: added TTFT p50 over calling the worker",
                middle["session"] - middle["worker"],
                1.5,
                "ms",
                note,
            ),
            bars.bar(
                "(reported) proxied: added TTFT p50 over calling the worker",
                middle["generate"] - middle["worker"],
                1.5,
                "ms",
                note,
            ),
        ],
    }


def router_idle(quick: bool) -> dict[str, Any]:
    """200 streams that pass the router by, at 20 and at 200 ms a token: its CPU must not follow them."""
    rounds, seconds = (1, 4.0) if quick else (5, 6.0)
    found: dict[str, list[measure.Figures]] = {}
    for pace in (0.02, 0.2):
        name = f"{pace * 1000:g} ms a token"
        with measure.load() as loading, fleet.serving(pace=pace, streams=200) as serving:
            loading.ask(do="open", port=serving.rest_port, streams=200, tokens=20_000, ramp=1.0)

            def one(
                _name: str, loading: machine.Running = loading, serving: fleet.Fleet = serving
            ) -> measure.Figures:
                counted, spent, _ = measure.window(loading, serving, seconds)
                return {
                    "router_ms_per_s": 1000 * spent["router"] / counted["at"],
                    "tokens_per_s": counted["tokens"] / counted["at"],
                }

            found |= measure.interleaved([name], rounds, one)
            loading.ask(do="close")
    figures = measure.summary(found)
    fast, slow = (figures[name] for name in found)
    more = (fast["router_ms_per_s"]["median"] - slow["router_ms_per_s"]["median"]) * 1000
    each = more / (fast["tokens_per_s"]["median"] - slow["tokens_per_s"]["median"])
    note = "what ten times the tokens add; clock ticks of 10 ms bound what can be seen to about 0.1"
    return {
        "streams": 200,
        "figures": figures,
        "bars": [
            bars.bar("1. direct: the router's CPU for one token more", max(0.0, each), 0.15, "µs", note)
        ],
    }


async def asked(way: str, target: str, seconds: float) -> dict[str, Any]:
    """Requests at an even rate, one way; how long each waited for its first token."""
    import diplex
    from diplex.v1 import generation_pb2 as pb
    from diplex.v1 import router_pb2, router_pb2_grpc, worker_pb2, worker_pb2_grpc
    from diplex.wire.serving import channel

    waits: list[float] = []

    async def even(one: Any) -> None:
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for number in range(int(RATE * seconds)):
                await asyncio.sleep(max(0.0, began + number / RATE - time.monotonic()))
                tasks.create_task(one(number))

    if way == "session":
        async with diplex.AsyncClient(target) as client:

            async def by_session(number: int) -> None:
                sent = time.monotonic()
                first = True
                async for _ in client.stream(f"prompt {number}", max_tokens=4):
                    if first:
                        waits.append(time.monotonic() - sent)
                        first = False

            await by_session(-1)
            waits.clear()
            await even(by_session)
    else:
        async with channel(target) as dialled:
            stub: Any = (
                worker_pb2_grpc.WorkerStub(dialled)
                if way == "worker"
                else router_pb2_grpc.RouterStub(dialled)
            )

            async def by_call(number: int) -> None:
                prompt = pb.Prompt(text=f"prompt {number}")
                request: Any
                if way == "worker":
                    request = worker_pb2.WorkerGenerateRequest(
                        start=worker_pb2.Start(prompt=prompt, model=fleet.MODEL), max_tokens=4
                    )
                else:
                    request = router_pb2.RouterGenerateRequest(prompt=prompt, max_tokens=4)
                sent = time.monotonic()
                first = True
                async for message in stub.Generate(request):
                    if first and message.tokens:
                        waits.append(time.monotonic() - sent)
                        first = False

            await by_call(-1)
            waits.clear()
            await even(by_call)
    waits.sort()
    return {
        "count": len(waits),
        "p50": 1000 * waits[len(waits) // 2],
        "p99": 1000 * waits[min(len(waits) - 1, int(0.99 * len(waits)))],
    }


def proxied(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What grpc_proxy measured, against its promises."""
    full = found["full diplex"]["router_us_per_token"]["median"]
    paced, bare = (
        found["paced diplex"]["router_us_per_token"]["median"],
        found["paced bare"]["bare_us_per_token"]["median"],
    )
    return [
        bars.bar("3. proxied, 32 streams at full speed: the router's CPU per token", full, 30.0, "µs"),
        bars.bar(
            "3. proxied, 32 streams at 20 ms: the router, of a bare grpc.aio server",
            paced / bare,
            1.2,
            "times",
            f"router {paced:.4g} µs, bare {bare:.4g} µs",
        ),
    ]


def framed(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What grpc_frames measured, against its promises."""
    row = found["100 requests"]
    return [
        bars.bar(
            "3. frames, 100 requests on a stream: the worker's CPU per token",
            row["worker"]["median"],
            10.0,
            "µs",
        ),
        bars.bar(
            "3. frames, 100 requests on a stream: the client's CPU per token",
            row["SDK"]["median"],
            10.0,
            "µs",
        ),
    ]


def admitted(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What grpc_session measured, against its promises."""
    busy = [name for name in found if int(name.split()[0]) >= 1000]
    return [
        bars.bar(
            f"1. admission, {name} over a session: the router's CPU per request",
            found[name]["router, ms a request"]["median"],
            0.6,
            "ms",
            f"{found[name]['router, requests a second']['median']:.0f} a second were reached",
        )
        for name in busy
    ]


async def serve() -> None:
    """Does what lines of JSON on stdin say."""
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        said = json.loads(line)
        try:
            print(json.dumps(await asked(said["way"], said["target"], said["seconds"])), flush=True)
        except Exception as error:  # the outermost loop of this process: the other side tells the user
            print(json.dumps({"error": repr(error)}), flush=True)


if __name__ == "__main__":
    grpc_parts.on_uvloop(serve())
