"""`diplex replay` as a shell sees it, before it sends anything; and the picture that it draws."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from diplex_cli.failures import told
from diplex_cli.main import main
from diplex_cli.replay.plot import draw
from diplex_cli.replay.session import Replayed
from diplex_cli.replay.watch import Sample
from diplex_core.report import Ending, LedgerFigures, Outcome, Pool, WorkerFigures, report_of
from diplex_core.words import Pattern, Promise, Target, Tier

Diplex = Callable[..., "subprocess.CompletedProcess[str]"]
TRACE = "arrival_s,input_tokens,output_tokens\n0,100,10\n"
FAST = Tier("fast", (Pattern.C,), Promise(Target(0.04, 0.045), 0.008))
SLOW = Tier("slow", (Pattern.A,))


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--tiers", "a=0.5,b=0.6"], 2, "--tiers: the shares make 1.1, not 1. Mend:"),
        (
            ["--plot", "picture.jpg"],
            2,
            "--plot: 'picture.jpg' is neither .png nor .svg. Mend: --plot picture.png",
        ),
        (["--plot", "nowhere/p.png"], 2, "--plot: there is no folder nowhere. Mend: mkdir -p nowhere"),
        (["--url", "127.0.0.1:1"], 1, "no router answers at 127.0.0.1:1"),
    ],
)
def test_what_cannot_be_is_told_in_one_or_two_lines(
    diplex: Diplex, tmp_path: Path, options: list[str], code: int, said: str
):
    (tmp_path / "trace.csv").write_text(TRACE)
    done = diplex("replay", "trace.csv", *options)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr and "Mend: " in done.stderr
    assert len(done.stderr.splitlines()) <= 2


@pytest.mark.parametrize(
    "options",
    [["--speed", "0"], ["--speed", "inf"], ["--limit", "0"], ["--clamp-input", "-3"], ["--timeout", "0"]],
)
def test_a_figure_that_is_none_is_wrong_usage(options: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["replay", "trace.csv", *options])
    assert ended.value.code == 2
    assert f"argument {options[0]}" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_wrong_usage(diplex: Diplex):
    done = diplex("replay", "nothing.csv")
    assert done.returncode == 2
    assert done.stderr == "nothing.csv: No such file or directory. Mend: the path of a trace, or -\n"


def test_a_plot_without_its_extra_says_how_to_get_it():
    failure = told(ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib.figure"), "replay")
    assert failure is not None
    assert (failure.text, failure.code) == (
        "diplex replay --plot needs matplotlib. Mend: pip install 'diplex[plot]'", 2,
    )  # fmt: skip


def test_without_a_plot_nothing_of_matplotlib_is_loaded():
    tell = "import sys, diplex_cli.replay.session; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", tell], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"


def replayed(*outcomes: Outcome) -> Replayed:
    tiers = {tier.name: tier for tier in (FAST, SLOW)}
    worker = WorkerFigures("C", "sim", True, "chapter", Pool(1000, 10.0, 20, 0))
    run = {"trace": "a-trace.csv", "requests_sent": len(outcomes), "speed": 2.0, "interrupted": False}
    report = report_of(outcomes, tiers, {"pkg0": worker}, LedgerFigures(), model="m", duration=10.0, run=run)
    samples = [Sample(float(at), {"pkg0": 10 * at}, at, 2 * at) for at in range(4)]
    return Replayed(report, outcomes, samples, tiers, "m")


def completed(tier: str, ttft: float) -> Outcome:
    return Outcome(
        "r", "m", tier, 1.0, Ending.COMPLETED, served_tier=tier, worker="pkg0",
        ttft=ttft, tpot=0.005, e2e=1.0, prompt_tokens=1000, output_tokens=10,
    )  # fmt: skip


def test_the_picture_says_what_was_run_that_it_was_simulated_and_what_was_promised(tmp_path: Path):
    file = tmp_path / "replay.svg"
    refused = Outcome("r", "m", "fast", 2.0, Ending.REJECTED)
    draw(replayed(completed("fast", 0.05), completed("slow", 0.5), refused), file)
    comments = file.read_text()
    ElementTree.fromstring(comments)
    for words in (
        "a-trace.csv, 3 requests · speed 2 · m · SIMULATED, calibration chapter",
        "fast: target",
        "fast (1 of 2)",
        "pkg0, pattern C",
        "arrived, rejected or failed",
    ):
        assert f"<!-- {words} -->" in comments


def test_a_run_in_which_nothing_completed_is_drawn_too(tmp_path: Path):
    file = tmp_path / "replay.png"
    draw(replayed(Outcome("r", "m", "fast", 2.0, Ending.REJECTED)), file)
    assert file.read_bytes().startswith(b"\x89PNG")
    draw(replayed(), file)
    assert file.read_bytes().startswith(b"\x89PNG")
