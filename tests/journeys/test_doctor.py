"""`diplex doctor` on this kind of machine: no GPU, and a fleet of simulated engines as users start it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import SIMULATED

HEALTHY = Path(__file__).parents[1] / "cli/doctor/recordings/b200_healthy.json"
FAST = SIMULATED.replace("calibration: chapter", "calibration: chapter, time_scale: 4")


def examined(fleet: Any, *options: str) -> tuple[dict[str, Any], int]:
    """The checks by id, and the exit code."""
    command = [sys.executable, "-m", "diplex_cli.main", "doctor", "--json", "--url", fleet.router, *options]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.stderr == ""
    return {check["id"]: check for check in json.loads(run.stdout)["checks"]}, run.returncode


@pytest.fixture(scope="module")
def running(shared_fleet: Callable[..., Any]) -> Any:
    return shared_fleet(FAST, "--no-rest")


def test_without_a_gpu_it_checks_what_it_can_and_says_what_it_skipped(running: Any):
    checks, code = examined(running)
    assert list(checks) == [
        *("driver", "cuda", "compute_capability", "partitions"),
        *("kernels", "kv_cache_type", "kv_pool"),
        *("memory", "utilization", "power", "clocks"),
        *("single_stream", "throughput", "long_context"),
    ]
    assert checks["kernels"]["seen"] == "simulated engines have no kernels and no cache"
    assert checks["kv_pool"]["status"] == "pass"
    for name in ("single_stream", "throughput", "long_context"):
        check = checks[name]
        # How fast these two cores are just now is no fact of the code.
        assert check["status"] in ("pass", "warn", "fail") and check["seen"].endswith(", simulated"), check
        assert "the chapter's column, on which it is simulated" in check["expected"]
    assert code == (1 if any(check["status"] == "fail" for check in checks.values()) else 0)


def test_a_recording_stands_in_for_this_machines_gpus(running: Any):
    checks, code = examined(running, "--nvml", str(HEALTHY), "--no-load")
    assert code == 0
    assert {checks[name]["status"] for name in ("driver", "partitions", "memory", "clocks")} == {"pass"}
    assert checks["single_stream"]["status"] == "skip"


def test_a_router_that_was_named_and_does_not_answer_is_an_error():
    command = [sys.executable, "-m", "diplex_cli.main", "doctor", "--url", "127.0.0.1:1"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 1
    assert run.stderr.startswith("no router answers at 127.0.0.1:1") and "Mend: " in run.stderr
