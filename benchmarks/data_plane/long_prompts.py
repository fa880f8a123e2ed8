"""Long prompts through the shim: what they add to the first token, and what other streams notice.

The worker is real, its engine is one that only says tokens at a pace and takes prompts of any length. Once
the count of a prompt is the simulated one (four bytes a token), which takes no time to speak of: all that is
added is diplex's own. Once shim and worker have Qwen3's tokenizer: both read the prompt, the shim to ask for
room and the worker as the authority, and what one reading takes is measured beside. No two prompts are alike.
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
TOKENIZER = "qwen3-8b"


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
    more = ("--tokenizer", TOKENIZER) if tokenizer else ()
    with (
        grpc_parts.fleet(PACE * 1000, 1, *more) as (router, workers, at, _),
        tempfile.TemporaryDirectory() as folder,
    ):
        (port,) = machine.free_ports(1)
        model: dict[str, Any] = {"profile": "qwen2.5-72b", "weights": "mxfp4-mixed", "kv_cache": "mxfp8"}
        if tokenizer:
            model["tokenizer"] = "qwen3"
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
    count = 20 if quick else 100
    readings = 2 if tokenizer else 0  # of each prompt: by the shim, and by the worker
    named = "Qwen3's tokenizer" if tokenizer else "simulated count"
    with measure.load() as loading, serving(tokenizer) as fleet:
        port = fleet.rest_port
        loading.ask(do="open", port=port, streams=STREAMS, tokens=50_000, ramp=1.0)
        loading.ask(do="arrive", group="short", port=port, rate=10, seconds=0.5, tokens=2)
        loading.ask(do="mark")
        short = loading.ask(do="arrive", group="short", port=port, rate=10, seconds=count / 10, tokens=2)
        calm = loading.ask(do="mark")
        for size, (octets, bound) in SIZES.items():
            # Slow enough that one is over before the next comes: what one adds is asked, not a queue of them.
            rate, many = (
                (0.4 if octets > 2**19 else 0.8 if octets > 2**18 else 2.0, 12) if tokenizer else (4.0, 24)
            )
            if quick:
                many = 5
            own = tokenising(octets, 3 if quick else 6) if tokenizer else 0.0
            asked = {"group": "long", "port": port, "rate": rate, "seconds": many / rate, "tokens": 2}
            asked |= {"prompt": octets, "variants": many}
            loading.ask(do="prepare", **asked)
            time.sleep(0.5)  # the streams beside catch up with what the preparing held up
            loading.ask(do="mark")
            long = loading.ask(do="arrive", **asked)
            beside = loading.ask(do="mark")
            added = long["ttft_ms"]["p99"] - short["ttft_ms"]["p99"]
            grown = beside["gap_ms"]["p99"] - calm["gap_ms"]["p99"]
            figures[f"{size}, {named}"] = [
                {
                    "ttft_p50_ms": long["ttft_ms"]["p50"],
                    "ttft_p99_ms": long["ttft_ms"]["p99"],
                    "short_ttft_p99_ms": short["ttft_ms"]["p99"],
                    "tokeniser_once_ms": own,
                    "added_ttft_p99_ms": added,
                    "added_beyond_tokeniser_ms": added - readings * own,
                    "gap_p99_calm_ms": calm["gap_ms"]["p99"],
                    "gap_p99_beside_ms": beside["gap_ms"]["p99"],
                    "requests": float(long["ttft_ms"]["count"]),
                    "failures": float(sum(long["failures"].values())),
                }
            ]
            judged.append(
                bars.bar(
                    f"6. {size}, {named}: added TTFT p99 beyond the tokeniser",
                    added - readings * own,
                    bound,
                    "ms",
                )
            )
            judged.append(bars.bar(f"6. {size}, {named}: growth of others' gap p99", grown, 20.0, "ms"))
        loading.ask(do="close")


def tokenising(octets: int, tries: int) -> float:
    """Milliseconds that the tokenizer takes to read such a chat, the most of a few; none read twice."""
    from diplex.v1 import generation_pb2 as pb

    tokenizer = grpc_parts.tokenizer_of(TOKENIZER)
    took: list[float] = []
    for number in range(1000, 1000 + tries):
        messages = [{"role": "user", "content": loads.prompt(octets, number)}]
        chat = pb.Prompt(chat=pb.Chat(messages=json.dumps(messages).encode()))
        began = time.monotonic()
        tokenizer.ids_of(chat)
        took.append(1000 * (time.monotonic() - began))
    return max(took)


def main(arguments: Sequence[str]) -> None:
    print(json.dumps(prompts("--quick" in arguments), indent=1))


if __name__ == "__main__":
    main(sys.argv)
