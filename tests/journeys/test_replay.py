"""A piece of each public trace against a fleet that really runs: what the report says is what happened."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diplex_cli.replay import traces

ROOT = Path(__file__).parents[2]
TRACES = ROOT / "benchmarks/traces"
AZURE = TRACES / "azure_code_2023.csv.gz"
# Twenty simulated seconds pass in one: what is measured is not what a B200 would do, and the report says so.
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


@pytest.fixture(scope="module")
def running(shared_fleet: Callable[..., Any]) -> Any:
    return shared_fleet(CONFIG, "--no-rest")


def command(running: Any, trace: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "diplex_cli", "replay", str(trace), "--url", running.router, *options]


def replay(running: Any, trace: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(running, trace, *options), capture_output=True, text=True, timeout=120)


def test_every_request_of_a_trace_is_sent_served_and_accounted_for(running: Any):
    before = json.loads(replay(running, AZURE, "--limit", "1", "--json").stdout)
    done = replay(
        running, AZURE, *["--limit", "60", "--speed", "100", "--tiers", "interactive=0.5,bulk=0.5", "--json"]
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    report = json.loads(line)
    tiers, workers, ledger = report["tiers"], report["workers"], report["ledger"]
    assert {name: (tier["requests"], tier["completed"]) for name, tier in tiers.items()} == {
        "interactive": (30, 30),
        "bulk": (30, 30),
    }
    assert (workers["pkg0"]["pattern"], workers["pkg0"]["calibration"]) == ("C", "chapter")
    assert sum(worker["requests"] for worker in workers.values()) == 60
    assert workers["pkg1"]["requests_by_tier"]["bulk"] == 30
    assert "bulk" not in workers["pkg0"]["requests_by_tier"]
    # The requests that went before are in the router's books, and not in this report.
    assert before["ledger"]["leases_opened"] == 1
    assert (ledger["leases_opened"], ledger["leases_closed"], ledger["over_capacity"]) == (60, 60, 0)
    assert ledger["blocks_reserved_end"] == 0
    pools = [worker["kv_blocks"] for worker in workers.values()]
    assert [pool["end"] for pool in pools] == [0, 0]
    assert max(pool["peak"] for pool in pools) > 0
    rows = traces.read(str(AZURE), 60).rows
    prompts, outputs = sum(row.input_tokens for row in rows), sum(row.output_tokens for row in rows)
    assert report["tenants"] == {"default": {"requests": 60, "output_tokens": outputs}}
    assert report["prefix"] == {"prompt_tokens": prompts, "prefill_tokens_saved": 0}
    assert report["fairness_jain"] == 1.0


@pytest.mark.parametrize("trace", sorted(TRACES.glob("*.gz")), ids=lambda path: path.name)
def test_the_beginning_of_every_trace_is_replayed(running: Any, trace: Path):
    clamps = ["--clamp-input", "8000", "--clamp-output", "100"]
    done = replay(running, trace, "--limit", "8", "--speed", "100", *clamps, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["tiers"]["bulk"]["completed"] == 8
    assert report["tiers"]["bulk"]["output_tokens"] <= 800
    assert report["prefix"]["prompt_tokens"] <= 64_000
    assert (report["run"]["clamp_input"], report["run"]["clamp_output"]) == (8000, 100)


def test_requests_that_ask_for_more_than_they_come_to_end_where_the_trace_says(running: Any):
    done = replay(running, AZURE, "--limit", "20", "--speed", "100", "--max-tokens", "900", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    asked = sum(row.output_tokens for row in traces.read(str(AZURE), 20).rows)
    assert report["tenants"] == {"default": {"requests": 20, "output_tokens": asked}}
    assert report["run"]["max_tokens"] == 900


def test_the_text_says_first_that_engines_were_simulated_and_fits_a_hundred_columns(running: Any):
    done = replay(running, AZURE, *["--limit", "4", "--speed", "100", "--tiers", "interactive=0.5,bulk=0.5"])
    lines = done.stdout.splitlines()
    assert lines[0] == "SIMULATED: every engine is, calibration chapter; no GPU made these figures"
    assert "SIMULATED TIME IS SCALED (pkg0 20, pkg1 20)" in done.stdout
    assert max(map(len, lines)) <= 100


def test_a_plot_is_drawn_beside_the_report(running: Any, tmp_path: Path):
    picture = tmp_path / "replay.svg"
    done = replay(running, AZURE, "--limit", "4", "--speed", "100", "--plot", str(picture))
    assert done.returncode == 0, done.stderr
    assert "SIMULATED, calibration chapter" in picture.read_text()


def test_a_request_that_fits_nowhere_is_a_failure_with_its_reason(running: Any, tmp_path: Path):
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_s,input_tokens,output_tokens\n0,100,1\n0,200000,1\n")
    done = replay(running, trace, "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    tier = report["tiers"]["bulk"]
    assert (tier["requests"], tier["completed"], tier["failed"], tier["slo_attainment"]) == (2, 1, 1, 0.5)
    assert report["problems"] == {"failed: REQUEST_TOO_LARGE": 1}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--tiers", "gold"], "--tiers: the router has no tier 'gold'. Mend: one of interactive, bulk"),
        (["--model", "x"], "serves 'x'. Mend: one of qwen2.5-72b-instruct"),
    ],
)
async def test_a_name_that_the_router_does_not_know_is_refused_before_anything_is_sent(
    running: Any, options: list[str], told: str
):
    before = (await running.state()).leases.opened
    done = replay(running, AZURE, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr and len(done.stderr.splitlines()) == 1
    assert (await running.state()).leases.opened == before


async def test_ctrl_c_ends_it_early_with_a_report_of_what_was_sent(running: Any):
    before = (await running.state()).leases.opened
    words = command(running, AZURE, "--limit", "60", "--speed", "0.01", "--json")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*words, stdout=pipe, stderr=pipe)

    async def sent() -> bool:
        return (await running.state()).leases.opened > before

    await running.until(sent, "the first request is sent", within=30)
    process.send_signal(signal.SIGINT)
    stdout, stderr = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, stderr
    report = json.loads(stdout)
    assert report["run"]["interrupted"] is True
    arrived = report["tiers"]["bulk"]["requests"]
    assert 1 <= arrived == report["run"]["requests_sent"] < 60
    assert any("INTERRUPTED" in note for note in report["notes"])
