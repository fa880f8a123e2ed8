"""Long prompts through the shim: what they add to the first token, and what other streams notice.

The worker is real, its engine is one that only says tokens at a pace and takes prompts of any length, and
the count of a prompt is simulated (four bytes a token): the tokeniser's time is none, and all that is added
is diplex's own. With `--tokenizer` figures beside it: the shim counts with Qwen's tokenizer, whose own time
over the same text is measured in this process and taken off.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bars
import grpc_parts
import load as loads
import machine
import measure

SIZES = {"128 KB": (128 * 1024, 15.0), "512 KB": (512 * 1024, 50.0), "1 MB": (1024 * 1024, 100.0)}
STREAMS, PACE = 100, 0.02


class Fleet:
    """A shim in front of grpc_parts' router and worker."""

    def __init__(self, port: int, rest: int, router: int, worker: int) -> None:
        self.rest_port = port
        self.parts = {"rest": (rest,), "router": (router,), "workers": (worker,)}

    def cpu(self) -> dict[str, float]:
        return {part: sum(map(machine.cpu_seconds, pids)) for part, pids in self.parts.items()}

    def resident(self) -> dict[str, int]:
        return {part: sum(map(machine.resident, pids)) for part, pids in self.parts.items()}


@contextmanager
def serving(tokenizer: bool) -> Iterator[Fleet]:
    """As it would be started by hand, part by part."""
    with grpc_parts.fleet(PACE * 1000) as (router, workers, at, _), tempfile.TemporaryDirectory() as folder:
        (port,) = machine.free_ports(1)
        model: dict[str, Any] = {"profile": "qwen2.5-72b", "weights": "mxfp4-mixed", "kv_cache": "mxfp8"}
        if tokenizer:
            model["tokenizer"] = "qwen2.5"
        config = {
            "models": {grpc_parts.MODEL: model},
            "packages": {
                "w0": {
                    "gpu": "b200",
                    "pattern": "A",
                    "model": grpc_parts.MODEL,
                    "engine": {"kind": "sim", "calibration": "chapter"},
                }
            },
            "tiers": {"standard": {"patterns": ["A"], "max_output_tokens": 1_000_000}},
        }
        file = Path(folder, "shim.yaml")
        file.write_text(json.dumps(config))
        words = [sys.executable, "-m", "diplex_cli", "rest", "--config", str(file), "--router", at]
        words += ["--rest-port", str(port), "--log-level", "warning"]
        with machine.running("rest", words, machine.cores()[1], speaks=False) as rest:
            if not machine.answers(port, "/ready", 20):
                raise RuntimeError(f"the shim is not ready: {rest.last_words()}")
            yield Fleet(port, rest.pid, router, workers[0])


def prompts(quick: bool) -> dict[str, Any]:
    """Each size, one after the other: ten of a kind or more, beside 100 streams at 20 ms."""
    figures: dict[str, list[measure.Figures]] = {}
    judged: list[dict[str, Any]] = []
    for tokenizer in (False, True):
        _one_way(quick, tokenizer, figures, judged)
    return {"streams_beside": STREAMS, "figures": measure.summary(figures), "bars": judged}


def _one_way(
    quick: bool, tokenizer: bool, figures: dict[str, list[measure.Figures]], judged: list[dict[str, Any]]
) -> None:
    count = 12 if quick else 60
    named = "Qwen's tokenizer" if tokenizer else "simulated count"
    with measure.load() as loading, serving(tokenizer) as fleet:
        port = fleet.rest_port
        loading.ask(do="open", port=port, streams=STREAMS, tokens=50_000, ramp=1.0)
        loading.ask(do="arrive", group="short", port=port, rate=10, seconds=0.5, tokens=2)
        loading.ask(do="mark")
        short = loading.ask(do="arrive", group="short", port=port, rate=10, seconds=count / 10, tokens=2)
        calm = loading.ask(do="mark")
        for size, (octets, bound) in SIZES.items():
            # So that one is over before the next begins: what is asked is what one adds, not a queue of them.
            rate = 2.0 if tokenizer else 5.0
            own = tokenising(octets, 3 if quick else 5) if tokenizer else 0.0
            loading.ask(do="mark")
            long = loading.ask(
                do="arrive",
                group="long",
                port=port,
                rate=rate,
                seconds=count / rate / 2,
                tokens=2,
                prompt=octets,
            )
            beside = loading.ask(do="mark")
            added = long["ttft_ms"]["p99"] - short["ttft_ms"]["p99"]
            grown = beside["gap_ms"]["p99"] - calm["gap_ms"]["p99"]
            figures[f"{size}, {named}"] = [
                {
                    "ttft_p50_ms": long["ttft_ms"]["p50"],
                    "ttft_p99_ms": long["ttft_ms"]["p99"],
                    "short_ttft_p99_ms": short["ttft_ms"]["p99"],
                    "tokeniser_ms": own,
                    "added_ttft_p99_ms": added,
                    "added_beyond_tokeniser_ms": added - own,
                    "gap_p99_calm_ms": calm["gap_ms"]["p99"],
                    "gap_p99_beside_ms": beside["gap_ms"]["p99"],
                    "requests": float(long["ttft_ms"]["count"]),
                    "failures": float(sum(long["failures"].values())),
                }
            ]
            judged.append(
                bars.bar(f"6. {size}, {named}: added TTFT p99 beyond the tokeniser", added - own, bound, "ms")
            )
            judged.append(bars.bar(f"6. {size}, {named}: growth of others' gap p99", grown, 20.0, "ms"))
        loading.ask(do="close")


def tokenising(octets: int, tries: int) -> float:
    """Milliseconds that Qwen's tokenizer alone takes for such a prompt, the most of a few; 0: none here."""
    try:
        from tokenizers import Tokenizer

        from diplex.tokens import sources
    except ImportError:
        return 0.0
    source = sources.known("qwen2.5-72b-instruct")
    if source is None:
        return 0.0
    loaded = Tokenizer.from_file(str(source.file))
    body = loads.request({"prompt": octets, "tokens": 2}, 0)
    text = json.loads(body.partition(b"\r\n\r\n")[2])["messages"][0]["content"]
    took: list[float] = []
    for _ in range(tries):
        began = time.monotonic()
        loaded.encode_batch_fast([text])
        took.append(1000 * (time.monotonic() - began))
    return max(took)


def main(arguments: Sequence[str]) -> None:
    print(json.dumps(prompts("--quick" in arguments), indent=1))


if __name__ == "__main__":
    main(sys.argv)
