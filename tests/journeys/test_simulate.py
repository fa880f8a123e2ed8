"""A piece of a public trace against a simulated fleet, as a user runs it: the report of a replay, at once."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TRACES = ROOT / "benchmarks/traces"
AZURE = str(TRACES / "azure_code_2023.csv.gz")
MIX = ["--tiers", "interactive=0.5,bulk=0.5"]
CONFIG = """\
models:
  qwen2.5-72b-instruct: {profile: qwen2.5-72b, weights: mxfp4-mixed, kv_cache: mxfp8}
packages:
  pkg0: {gpu: b200, pattern: C, model: qwen2.5-72b-instruct, engine: {kind: sim, calibration: chapter, time_scale: 20}}
  pkg1: {gpu: b200, pattern: A, model: qwen2.5-72b-instruct, engine: {kind: sim, calibration: chapter, time_scale: 20}}
tiers:
  interactive: {patterns: [C, A], ttft_p95_ms: 30000, max_output_tokens: 2048, priority: 100}
  bulk: {patterns: [A], max_output_tokens: 8192}
default_tier: bulk
"""  # noqa: E501


def diplex(*words: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DIPLEX_")}
    return subprocess.run(
        [sys.executable, "-m", "diplex_cli", *words],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        env=environment,
    )


def keys(value: Any) -> Any:
    """A report's shape: what it says, and of what kind."""
    return {name: keys(one) for name, one in value.items()} if isinstance(value, dict) else None


def test_the_report_has_the_keys_of_a_replay(shared_fleet: Callable[..., Any], tmp_path: Path):
    file = tmp_path / "fleet.yaml"
    file.write_text(CONFIG)
    options = ["--limit", "30", "--speed", "100", *MIX, "--json"]
    running = shared_fleet(CONFIG, "--no-rest")
    replayed = diplex("replay", AZURE, *options, "--url", running.router)
    simulated = diplex("simulate", AZURE, *options, "--config", str(file))
    assert (replayed.returncode, simulated.returncode) == (0, 0), replayed.stderr + simulated.stderr
    one, other = json.loads(replayed.stdout), json.loads(simulated.stdout)
    run, other_run = one.pop("run"), other.pop("run")
    assert run.keys() <= other_run.keys()
    for report in (one, other):  # which requests a worker gets is another question
        for worker in report["workers"].values():
            worker["requests_by_tier"] = {}
    assert keys(one) == keys(other)
    assert [report["tiers"]["bulk"]["completed"] for report in (one, other)] == [15, 15]
    assert one["tenants"] == other["tenants"]
    assert one["prefix"]["prompt_tokens"] == other["prefix"]["prompt_tokens"]


def test_the_same_seed_prints_the_same_bytes(tmp_path: Path):
    options = ["--limit", "150", *MIX, "--packages", "4", "--load", "0.8", "--json"]
    one, same, other = (
        diplex("simulate", AZURE, *options, "--seed", seed, cwd=tmp_path) for seed in ("7", "7", "8")
    )
    assert one.returncode == 0, one.stderr
    assert one.stdout == same.stdout
    assert one.stdout != other.stdout


def test_the_text_says_first_that_it_is_simulated_and_fits_a_hundred_columns():
    done = diplex("simulate", AZURE, "--limit", "60", *MIX)
    lines = done.stdout.splitlines()
    assert lines[0] == "SIMULATED: every engine is, calibration chapter; no GPU made these figures"
    assert "left out: cpu0 (its engine, llamacpp, is a real one)" in done.stdout
    assert max(map(len, lines)) <= 100
    assert "s were simulated in" in done.stderr


def test_what_a_script_breaks_is_in_the_report_and_the_picture(tmp_path: Path):
    (tmp_path / "faults.yaml").write_text("- {at_s: 2, kill: pkg1, back_after_s: 1}\n")
    load = ["steady:rate=20,output=100", "--requests", "100"]
    picture = ["--faults", "faults.yaml", "--plot", "sim.svg", "--json"]
    done = diplex("simulate", *load, *picture, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["run"]["faults"] == [{"kind": "kill", "at": 2.0, "worker": "pkg1", "back_after": 1.0}]
    quiet = json.loads(diplex("simulate", *load, "--json", cwd=tmp_path).stdout)
    e2e = [one["tiers"]["standard"]["e2e_ms"]["p99"] for one in (quiet, report)]
    assert e2e[1] > e2e[0]
    drawn = (tmp_path / "sim.svg").read_text()
    assert "kill pkg1" in drawn and "SIMULATED, calibration chapter" in drawn


@pytest.mark.parametrize("trace", sorted(TRACES.glob("*.gz")), ids=lambda path: path.name)
def test_the_beginning_of_every_trace_is_simulated(trace: Path):
    clamps = ["--clamp-input", "8000", "--clamp-output", "100"]
    done = diplex(
        "simulate", str(trace), "--limit", "20", "--repeat", "2", "--tiers", "bulk", *clamps, "--json"
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["tiers"]["bulk"]["completed"] == 40
    assert report["tiers"]["bulk"]["output_tokens"] <= 4000
    assert report["prefix"]["prompt_tokens"] <= 320_000


def test_a_request_that_fits_nowhere_is_a_failure_with_its_reason(tmp_path: Path):
    (tmp_path / "trace.csv").write_text("arrival_s,input_tokens,output_tokens\n0,100,1\n0,900000,1\n")
    done = diplex("simulate", "trace.csv", "--json", cwd=tmp_path)
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["problems"] == {"failed: REQUEST_TOO_LARGE": 1}


def test_a_refused_request_is_sent_once_more_where_that_is_asked_for(tmp_path: Path):
    load = ["poisson:prompt=3000", "--requests", "400", "--load", "2", "--tiers", "interactive", "--json"]
    left, sent_again = (
        json.loads(diplex("simulate", *load, *more, cwd=tmp_path).stdout)["tiers"]["interactive"][
            "retry_after"
        ]
        for more in ([], ["--retry"])
    )
    assert left["given"] > 0 and left["obeyed"] == 0
    assert sent_again["obeyed"] > 0


def test_a_message_that_takes_time_is_in_every_first_token(tmp_path: Path):
    load = ["steady:rate=1,prompt=1000,output=10", "--requests", "20", "--tiers", "bulk", "--json"]
    at_once, slow = (
        json.loads(diplex("simulate", *load, "--message-ms", message, cwd=tmp_path).stdout)
        for message in ("0", "10")
    )
    waits = [report["tiers"]["bulk"]["ttft_ms"]["p50"] for report in (at_once, slow)]
    assert waits[1] - waits[0] == pytest.approx(40, abs=0.01)  # ask, grant, start, first token
