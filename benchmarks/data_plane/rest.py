"""REST: streams at a pace and at full speed, unary requests, and the first token, through each."""

from collections.abc import Mapping, Sequence
from typing import Any

import bars
import measure
import profiles

PACE = 0.02
STREAMS = 200


def paced(workers: int, rounds: int, seconds: float, only: Sequence[str] = ()) -> dict[str, Any]:
    """200 streams, each with a token every 20 ms: CPU per token of what stands between, and gaps."""
    missing: dict[str, str] = {}
    with (
        measure.load() as loading,
        measure.everybody(workers=workers, pace=PACE, streams=STREAMS, only=only, missing=missing) as found,
    ):

        def one(name: str) -> measure.Figures:
            port, target = found[name]
            # Longer than the window by far: no stream ends and none begins while it is measured.
            opened = loading.ask(do="open", port=port, streams=STREAMS, tokens=5000, ramp=1.0)
            try:
                counted, spent, own = measure.window(loading, target, seconds)
            finally:
                loading.ask(do="close")
            return {
                **per_token(counted, spent, own),
                "pace_ms": 1000 * counted["at"] * STREAMS / max(1, counted["tokens"]),
                "gap_p50_ms": counted["gap_ms"].get("p50", 0.0),
                "gap_p99_ms": counted["gap_ms"].get("p99", 0.0),
                "ttft_p50_ms": opened["ttft_ms"]["p50"],
                "resident_mib": between(target.resident()) / 2**20,
                "failures": float(sum(counted["failures"].values())),
            }

        runs = measure.interleaved(list(found), rounds, one)
    figures = measure.summary(runs)
    judged = []
    if workers <= 2:
        judged = [
            bars.ratio(
                f"2. paced, {workers} worker(s): shim and router, of the cheapest peer's CPU per token",
                figures,
                "us_per_token",
                0.7,
            )
        ]
    return {
        "workers": workers,
        "streams": STREAMS,
        "pace_ms": 20,
        "figures": figures,
        "missing": missing,
        "bars": judged,
    }


def full_speed(rounds: int, seconds: float, only: Sequence[str] = ()) -> dict[str, Any]:
    """As many tokens as go through: 200 streams of 256 tokens, one request behind the other."""
    missing: dict[str, str] = {}
    with (
        measure.load() as loading,
        measure.everybody(workers=1, pace=0.0, streams=STREAMS, only=only, missing=missing) as found,
    ):

        def one(name: str) -> measure.Figures:
            port, target = found[name]
            loading.ask(do="open", port=port, streams=STREAMS, tokens=256, ramp=0.5)
            try:
                counted, spent, own = measure.window(loading, target, seconds)
            finally:
                loading.ask(do="close")
            return {
                **per_token(counted, spent, own),
                "tokens_per_s": counted["tokens"] / counted["at"],
                "tokens_per_event": counted["tokens"] / max(1, counted["events"]),
                "requests_per_s": counted["done"] / counted["at"],
                "failures": float(sum(counted["failures"].values())),
            }

        runs = measure.interleaved(list(found), rounds, one)
    figures = measure.summary(runs)
    return {
        "streams": STREAMS,
        "tokens": 256,
        "figures": figures,
        "missing": missing,
        "bars": [
            bars.ratio(
                "2. full speed: shim and router, of the cheapest peer's CPU per token",
                figures,
                "us_per_token",
                1.0,
            )
        ],
    }


def unary(rounds: int, seconds: float, only: Sequence[str] = ()) -> dict[str, Any]:
    """Answers of 16 tokens in one piece, 100 new ones a second: CPU per request, wake-ups and all."""
    missing: dict[str, str] = {}
    with (
        measure.load() as loading,
        measure.everybody(workers=1, pace=0.0, streams=16, only=only, missing=missing) as found,
    ):

        def one(name: str) -> measure.Figures:
            port, target = found[name]
            asked = {"do": "arrive", "port": port, "rate": 100, "tokens": 16, "stream": False}
            loading.ask(**asked, seconds=0.5)
            cpu = target.cpu()
            with profiles.watching(target):
                answer = loading.ask(**asked, seconds=seconds)
            spent = {part: now - cpu[part] for part, now in target.cpu().items()}
            return {**per_request(answer, spent), "failures": float(sum(answer["failures"].values()))}

        runs = measure.interleaved(list(found), rounds, one)
    return _unary_result({"rate": 100}, runs, missing, "100 a second")


def unary_closed(rounds: int, seconds: float, only: Sequence[str] = ()) -> dict[str, Any]:
    """The same, 16 at a time and one behind the other, as fast as they come back."""
    missing: dict[str, str] = {}
    with (
        measure.load() as loading,
        measure.everybody(workers=1, pace=0.0, streams=16, only=only, missing=missing) as found,
    ):

        def one(name: str) -> measure.Figures:
            port, target = found[name]
            loading.ask(do="open", port=port, streams=16, tokens=16, ramp=0.2, stream=False)
            try:
                counted, spent, own = measure.window(loading, target, seconds)
            finally:
                loading.ask(do="close")
            return {
                **per_request(counted, {**spent, **own}),
                "requests_per_s": counted["done"] / counted["at"],
                "failures": float(sum(counted["failures"].values())),
            }

        runs = measure.interleaved(list(found), rounds, one)
    return _unary_result({"at_once": 16}, runs, missing, "16 at a time, as fast as they come back")


def per_request(counted: dict[str, Any], spent: dict[str, float]) -> measure.Figures:
    done = max(1, counted["done"])
    return {
        "ms_per_request": 1000 * between(spent) / done,
        **{f"ms_per_request_{part}": 1000 * cpu / done for part, cpu in spent.items()},
        "whole_p50_ms": counted["whole_ms"].get("p50", 0.0),
        "whole_p99_ms": counted["whole_ms"].get("p99", 0.0),
    }


def _unary_result(
    about: dict[str, Any], runs: dict[str, list[measure.Figures]], missing: dict[str, str], how: str
) -> dict[str, Any]:
    figures = measure.summary(runs)
    what = f"2. unary, {how}: shim and router, of smg's CPU per request"
    judged = [bars.ratio(what, figures, "ms_per_request", 2.0, of=("smg",))]
    return {**about, "tokens": 16, "figures": figures, "missing": missing, "bars": judged}


def first_token(rounds: int, seconds: float, only: Sequence[str] = ()) -> dict[str, Any]:
    """The wait for the first token of 40 new requests a second beside 200 streams at 20 ms."""
    missing: dict[str, str] = {}
    with (
        measure.load() as loading,
        measure.everybody(workers=1, pace=PACE, streams=STREAMS, only=only, missing=missing) as found,
    ):

        def one(name: str) -> measure.Figures:
            port, _ = found[name]
            loading.ask(do="open", port=port, streams=STREAMS, tokens=5000, ramp=1.0)
            try:
                loading.ask(do="arrive", group="new", port=port, rate=20, seconds=0.5, tokens=4)
                loading.ask(do="mark")
                answer = loading.ask(do="arrive", group="new", port=port, rate=40, seconds=seconds, tokens=4)
                beside = loading.ask(do="mark")
            finally:
                loading.ask(do="close")
            waited = answer["ttft_ms"]
            return {
                "ttft_p50_ms": waited["p50"],
                "ttft_p90_ms": waited["p90"],
                "ttft_p99_ms": waited["p99"],
                "requests": float(waited["count"]),
                "gap_p99_ms": beside["gap_ms"]["p99"],
                "failures": float(sum(answer["failures"].values())),
            }

        runs = measure.interleaved(list(found), rounds, one)
    figures = measure.summary(runs)
    added(figures, "ttft_p50_ms")
    added(figures, "ttft_p99_ms")
    return {
        "rate": 40,
        "figures": figures,
        "missing": missing,
        "bars": [bars.ratio("2. TTFT p99, of the best peer's", figures, "ttft_p99_ms", 1.0)],
    }


def between(spent: Mapping[str, float]) -> float:
    """CPU seconds, or memory, of what stands between client and worker."""
    return sum(cpu for part, cpu in spent.items() if part in ("rest", "router"))


def per_token(counted: dict[str, Any], spent: dict[str, float], own: dict[str, float]) -> measure.Figures:
    tokens = max(1, counted["tokens"])
    each = {f"us_per_token_{part}": 1e6 * cpu / tokens for part, cpu in {**spent, **own}.items()}
    return {"us_per_token": 1e6 * between(spent) / tokens, **each}


def added(figures: dict[str, dict[str, dict[str, float]]], key: str) -> None:
    """What each adds to the direct way, from the medians."""
    if "direct" in figures and key in figures["direct"]:
        for of in figures.values():
            if key in of:
                of[f"added_{key}"] = {
                    "median": round(of[key]["median"] - figures["direct"][key]["median"], 4)
                }
