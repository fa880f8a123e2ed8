"""A configuration file to be wrong in, and `diplex` as a process."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SIMULATED = """\
models:
  qwen2.5-72b-instruct: {profile: qwen2.5-72b, weights: mxfp4-mixed, kv_cache: mxfp8}
packages:
  pkg0: {gpu: b200, pattern: A, model: qwen2.5-72b-instruct, engine: {kind: sim, calibration: chapter}}
tiers:
  standard: {patterns: [A, C]}
"""

Diplex = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def simulated(tmp_path: Path) -> Path:
    """A file with one simulated worker, pkg0."""
    file = tmp_path / "fleet.yaml"
    file.write_text(SIMULATED)
    return file


@pytest.fixture
def diplex(tmp_path: Path) -> Diplex:
    """Run `diplex …` to its end, from an empty folder."""

    def run(*words: str | Path, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-P", "-m", "diplex_cli", *map(str, words)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **(env or {})},
            timeout=60,
        )

    return run
