"""gRPC: what the router spends on streams whose tokens pass it by, and what the other files promise."""

from typing import Any

import bars
import fleet
import machine
import measure


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


def began(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What grpc_ttft measured, against its promise."""
    row = found["1 at a time"]
    added = row["diplex adds to p50 ms"]["median"]
    proxied = row["proxied adds to p50 ms"]["median"]
    note = f"calling the worker {row['worker p50 ms']['median']:.2f} ms; proxied Generate adds {proxied:.2f}"
    return [bars.bar("1. gRPC end to end: added TTFT p50 over calling the worker", added, 1.5, "ms", note)]


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
