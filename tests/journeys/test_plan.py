"""`diplex plan` as the installed console command: the page, JSON for scripts, the picture, and wrong asks."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

DIPLEX = Path(sys.executable).with_name("diplex")
ASK = ("qwen2.5-72b", "--gpu", "b200", "--pattern", "A", "--batch", "16", "--context", "32k")

Plan = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Run `diplex plan …` to its end, in an empty folder."""

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [DIPLEX, "plan", *words], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )

    return run


def test_the_page_fits_a_terminal_and_says_that_the_model_fits(plan: Plan):
    done = plan(*ASK)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[1].startswith("FITS: 16 sequences × 32,768 tokens take 88.58 GB (82.50 GiB)")
    headings = [line.strip("─ ").split(" ·")[0] for line in lines if line.startswith("── ")]
    assert headings == [
        "WHAT ELSE FITS",
        "SPEED",
        "PATTERNS",
        "A PROMPT BESIDE 16 STREAMS",
        "BEFORE YOU DECIDE",
        "THE CHAPTER'S MEMORY (§1) BESIDE OURS, counted from the formats that it names",
    ]


def test_a_script_finds_memory_fit_and_predictions(plan: Plan):
    done = plan(*ASK, "--json")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 1
    said = json.loads(done.stdout)
    assert (said["model"], said["gpu"], said["pattern"]) == ("qwen2.5-72b", "b200", "A")
    assert (said["batch"], said["context"], said["prompt"], said["fits"]) == (16, 32768, 32768, True)
    assert sum(part["bytes"] for part in said["memory"]) == 191_501_854_310
    assert said["kv"]["bytes_per_token"] == 168_960
    assert said["predictions"]["measured"] is None
    assert said["predictions"]["limit"]["tok_s_stream"] < said["predictions"]["chapter"]["tok_s_stream"]


def test_what_does_not_fit_ends_with_1_and_is_printed_nevertheless(plan: Plan):
    done = plan("qwen2.5-72b", "--batch", "64", "--context", "32k")
    assert (done.returncode, done.stderr) == (1, "")
    assert "DOES NOT FIT" in done.stdout and "Nearest: --batch 21" in done.stdout


@pytest.mark.parametrize("name", ["plan.png", "plan.svg"])
def test_the_picture_is_written_beside_the_page(plan: Plan, tmp_path: Path, name: str):
    pytest.importorskip("matplotlib")
    done = plan("qwen2.5-72b", "--pattern", "D", "--plot", name)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / name).stat().st_size > 10_000


@pytest.mark.parametrize(
    "words",
    [
        ["qwen2.5-72b", "--tp", "3"],
        ["qwen2.5-72b", "--gpu", "b100"],
        ["qwen2.5-72b", "--weights", "fp3"],
        ["qwen2.5-72b", "--batch=-1"],
        ["qwen2.5-72b", "--context", "0"],
        ["qwen2.5-72b", "--context", "132k"],
        ["no-such/config.json"],
    ],
)
def test_a_wrong_ask_ends_with_2_in_a_line_or_two(plan: Plan, words: list[str]):
    done = plan(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert 1 <= len(done.stderr.splitlines()) <= 2
    assert "Traceback" not in done.stderr
    assert any(word in done.stderr for word in ("Mend:", "Nearest:", "nearest:", "known:"))
