"""One configuration, one trace, twice: against a fleet that runs, and on a virtual clock. The reports agree.

What is between the two is Python's own time. `--message-ms` stands for it: four messages make a time to first
token, three the turn of a slot from one request to the next.
"""

import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TRACES = ROOT / "benchmarks/traces"
CONVERSATIONS = TRACES / "mooncake_conversation_first_half.jsonl.gz"
AGREE = 0.05
ATTEMPTS = 3
MESSAGE_MS = 1.0

# Two streams at once on each package: what decides is the queue, and the slot that the one before leaves.
QUEUES = """\
models:
  qwen2.5-72b-instruct: {profile: qwen2.5-72b, weights: mxfp4-mixed, kv_cache: mxfp8}
packages:
  pkg0: {gpu: b200, pattern: C, model: qwen2.5-72b-instruct, slots: 2, engine: {kind: sim, calibration: chapter, time_scale: 10}}
  pkg1: {gpu: b200, pattern: A, model: qwen2.5-72b-instruct, slots: 2, engine: {kind: sim, calibration: chapter, time_scale: 10}}
tiers:
  interactive: {patterns: [C], ttft_p95_ms: 1500, tpot_p95_ms: 3, max_output_tokens: 2048, priority: 100}
  bulk: {patterns: [A], deadline_s: 4, max_output_tokens: 8192}
default_tier: bulk
"""  # noqa: E501

# Slots enough: what decides is the reading of long prompts, one after another, beside the streams of others.
READS = """\
models:
  qwen2.5-72b-instruct: {profile: qwen2.5-72b, weights: mxfp4-mixed, kv_cache: mxfp8}
packages:
  pkg0: {gpu: b200, pattern: C, model: qwen2.5-72b-instruct, engine: {kind: sim, calibration: chapter}}
  pkg1: {gpu: b200, pattern: A, model: qwen2.5-72b-instruct, engine: {kind: sim, calibration: chapter}}
tiers:
  interactive: {patterns: [C], ttft_p95_ms: 1200, tpot_p95_ms: 40, max_output_tokens: 2048, priority: 100}
  bulk: {patterns: [A], deadline_s: 60, max_output_tokens: 8192}
default_tier: bulk
"""

MIX = ["--tiers", "interactive=0.5,bulk=0.5"]
QUEUEING = ["--limit", "60", "--speed", "5", "--clamp-input", "4000", "--clamp-output", "800", *MIX]


def test_with_time_scale_10_a_queue_is_simulated_as_it_runs(shared_fleet: Callable[..., Any], tmp_path: Path):
    trace = TRACES / "servegen_deepseek_r1_a.csv.gz"
    assert_agreement(QUEUES, trace, QUEUEING, shared_fleet, tmp_path)


def test_long_prompts_are_read_in_simulation_as_they_are_by_the_clock(
    shared_fleet: Callable[..., Any], tmp_path: Path
):
    trace = tmp_path / "lengths.csv"
    trace.write_text("\n".join(lengths_alone(CONVERSATIONS, 50)))
    options = ["--clamp-input", "40000", "--clamp-output", "60", "--speed", "0.8", *MIX]
    assert_agreement(READS, trace, options, shared_fleet, tmp_path)


def test_what_prompts_share_is_read_once_in_simulation_as_it_is_by_the_clock(
    shared_fleet: Callable[..., Any], tmp_path: Path
):
    trace = tmp_path / "conversations.jsonl"
    trace.write_text("\n".join(one_by_one(CONVERSATIONS, 60)))
    options = ["--clamp-input", "40000", "--clamp-output", "60", *MIX]
    assert_agreement(READS, trace, options, shared_fleet, tmp_path)


def assert_agreement(
    config: str, trace: Path, options: list[str], fleet: Callable[..., Any], folder: Path
) -> None:
    """Compare TTFT p50 and p95 and TPOT p50 of each tier, and goodput of all.

    A machine that does something else meanwhile is late by the clock, and cannot be early: the best of a few
    runs is what the configuration does. Each has a seed of its own, so that none finds what another has read.
    """
    file = folder / "fleet.yaml"
    file.write_text(config)
    running = fleet(config, "--no-rest")
    off: list[dict[str, float]] = []
    for seed in range(ATTEMPTS):
        words = [str(trace), *options, "--seed", str(seed), "--json"]
        simulated = said("simulate", *words, "--config", str(file), "--message-ms", str(MESSAGE_MS))
        real = said("replay", *words, "--url", running.router)
        off.append(dict(differences(real, simulated)))
        if max(map(abs, off[-1].values())) <= AGREE:
            return
    pytest.fail("\n".join(f"{name} {value:+.1%}" for one in off for name, value in one.items()))


def differences(real: Mapping[str, Any], simulated: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, tier in real["tiers"].items():
        other = simulated["tiers"][name]
        assert tier["completed"] == other["completed"] == tier["requests"] > 20
        for figure, percentile in (("ttft_ms", "p50"), ("ttft_ms", "p95"), ("tpot_ms", "p50")):
            ours, theirs = other[figure][percentile], tier[figure][percentile]
            yield f"{name} {figure} {percentile}: {ours} for {theirs}", ours / theirs - 1
    ours, theirs = (one["prefix"]["prefill_tokens_saved"] for one in (simulated, real))
    yield f"prefill saved: {ours} for {theirs}", ours / theirs - 1 if theirs else float(ours)
    yield "goodput", simulated["goodput_rps"] / real["goodput_rps"] - 1


def one_by_one(trace: Path, limit: int) -> Iterator[str]:
    """A trace whose requests come several at a time, one after another: of those that come at once a client
    counts and hashes the short ones first."""
    with gzip.open(trace, "rt") as lines:
        for number, line in enumerate(islice(lines, limit)):
            row = json.loads(line)
            at = round(100 * number + row["timestamp"] / 10)
            yield json.dumps({**row, "timestamp": at, "output_length": max(2, row["output_length"])})


def lengths_alone(trace: Path, limit: int) -> Iterator[str]:
    yield "arrival_s,input_tokens,output_tokens"
    for row in map(json.loads, one_by_one(trace, limit)):
        yield f"{row['timestamp'] / 1000},{row['input_length']},{row['output_length']}"


def said(*words: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "diplex_cli", *words], capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
