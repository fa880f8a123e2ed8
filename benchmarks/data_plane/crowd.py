"""Many streams through one shim process and one router process: what they hold in memory, and their gaps."""

import resource
import time
from typing import Any

import bars
import fleet
import measure

IDLE, IDLE_PACE = 10_000, 5.0
MANY, MANY_PACE = 2_000, 0.05


def idle(quick: bool) -> dict[str, Any]:
    """10,000 open streams that get a token every five seconds or so: memory of shim and router."""
    streams = 1_000 if quick else IDLE
    seconds = 5.0 if quick else 15.0
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    with measure.load() as loading, fleet.serving(pace=IDLE_PACE, streams=streams) as serving:
        before = serving.resident()
        began = time.monotonic()
        opened = loading.ask(
            do="open",
            port=serving.rest_port,
            streams=streams,
            tokens=2000,
            ramp=streams / 500,
            settle_within=150,
        )
        took = time.monotonic() - began
        counted, spent, _ = measure.window(loading, serving, seconds)
        after = serving.resident()
        loading.ask(do="close")
    mib = {part: size / 2**20 for part, size in after.items()}
    held = float(counted["open"])
    figures: dict[str, float] = {
        "streams_held": held,
        "shim_mib": mib["rest"],
        "router_mib": mib["router"],
        "workers_mib": mib["workers"],
        "shim_and_router_mib": mib["rest"] + mib["router"],
        "shim_kib_a_stream": (after["rest"] - before["rest"]) / 1024 / max(1.0, held),
        "router_kib_a_stream": (after["router"] - before["router"]) / 1024 / max(1.0, held),
        "shim_cores_meanwhile": spent["rest"] / counted["at"],
        "router_cores_meanwhile": spent["router"] / counted["at"],
        "opened_in_s": took,
        "failures": float(sum(opened["failures"].values())),
    }
    both = figures["shim_and_router_mib"] if held >= streams else None
    return {
        "streams": streams,
        "descriptor_limit": limit[1],
        "figures": measure.summary({"diplex": [figures]}),
        "bars": [
            bars.bar(
                f"4. {streams:,} idle streams: memory of shim and router together",
                both,
                1024.0,
                "MiB",
                f"{held:,.0f} held; up to {limit[1]:,} descriptors a process",
            )
        ],
    }


def gaps(quick: bool) -> dict[str, Any]:
    """2,000 streams with a token every 50 ms: gaps that a client sees."""
    streams = 400 if quick else MANY
    rounds, seconds = (1, 3.0) if quick else (5, 6.0)
    with measure.load() as loading, fleet.serving(pace=MANY_PACE, streams=streams) as serving:

        def one(_name: str) -> measure.Figures:
            loading.ask(do="open", port=serving.rest_port, streams=streams, tokens=20_000, ramp=streams / 400)
            try:
                counted, spent, own = measure.window(loading, serving, seconds)
            finally:
                loading.ask(do="close")
            return {
                "gap_p50_ms": counted["gap_ms"]["p50"],
                "gap_p99_ms": counted["gap_ms"]["p99"],
                "gap_max_ms": counted["gap_ms"]["max"],
                "pace_ms": 1000 * counted["at"] * streams / max(1, counted["tokens"]),
                "tokens_per_event": counted["tokens"] / max(1, counted["events"]),
                **{f"cores_{part}": cpu / counted["at"] for part, cpu in {**spent, **own}.items()},
                "streams_held": float(counted["open"]),
                "failures": float(sum(counted["failures"].values())),
            }

        runs = measure.interleaved(["diplex"], rounds, one)
    figures = measure.summary(runs)
    p99 = figures["diplex"].get("gap_p99_ms", {}).get("median")
    return {
        "streams": streams,
        "pace_ms": MANY_PACE * 1000,
        "figures": figures,
        "bars": [bars.bar(f"4. {streams:,} streams at 50 ms: gap p99", p99, 150.0, "ms")],
    }
