"""A bursty public trace at its own speed through the embedded default: four minutes, each promise kept."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TRACE = ROOT / "benchmarks" / "traces" / "azure_code_2023.csv.gz"


def replayed(fleet: Any, tiers: str) -> dict[str, Any]:
    words = ["replay", str(TRACE), "--speed", "1", "--limit", "500", "--tiers", tiers, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "diplex_cli.main", *words, "--url", fleet.router],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.long
def test_interactive_and_bulk_keep_their_promises_side_by_side(fleet: Callable[..., Any]):
    report = replayed(fleet(None), "interactive=0.5,bulk=0.5")
    interactive, bulk = report["tiers"]["interactive"], report["tiers"]["bulk"]
    assert (interactive["failed"], bulk["failed"]) == (0, 0)
    assert interactive["completed"] >= 0.95 * interactive["requests"]
    assert bulk["completed"] >= 0.95 * bulk["requests"]
    assert interactive["slo_attainment"] >= 0.85
    assert interactive["tpot_ms"]["p95"] <= 8.0
    by_tier = {name: worker["requests_by_tier"] for name, worker in report["workers"].items()}
    assert by_tier["pkg0"].get("bulk", 0) == 0
    assert by_tier["pkg1"]["bulk"] == bulk["completed"]
    assert by_tier["pkg0"]["interactive"] > by_tier["pkg1"].get("interactive", 0)
    ledger = report["ledger"]
    assert (ledger["over_capacity"], ledger["blocks_reserved_end"]) == (0, 0)
    assert ledger["leases_opened"] == ledger["leases_closed"]


@pytest.mark.long
def test_interactive_requests_keep_their_time_per_token_alone(fleet: Callable[..., Any]):
    report = replayed(fleet(None), "interactive=1")
    assert report["tiers"]["interactive"]["tpot_ms"]["p95"] <= 8.0
