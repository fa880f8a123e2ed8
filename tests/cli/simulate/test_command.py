"""`diplex simulate` as a shell sees it, before it simulates anything."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from diplex_cli.main import main

Diplex = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing.csv"], "nothing.csv: No such file or directory. Mend: the path of a trace, or -"),
        (["poisson"], "poisson: nobody says how many come a second. Mend: rate=10, or --load 0.9"),
        (["poisson:rate=5,zzz=1"], "poisson: 'zzz' is no word of it. Mend: one of rate, requests"),
        (["poisson:rate=5", "--load", "1"], "--load and rate=… both say how fast. Mend: one of them"),
        (
            ["poisson:rate=5", "--load", "1", "--speed", "2"],
            "--load and --speed both say how fast. Mend: one of",
        ),
        (
            ["poisson:rate=5", "--repeat", "2"],
            "--repeat: there is no end to what is drawn. Mend: --requests N",
        ),
        (
            ["x", "--repeat", "2", "--requests", "9"],
            "--repeat and --requests both say how many. Mend: one of",
        ),
        (
            ["poisson:rate=5", "--tiers", "gold"],
            "--tiers: the configuration has no tier 'gold'. Mend: one of ",
        ),
        (["poisson:rate=5", "--model", "x"], "--model: no simulated worker serves 'x'. Mend: --model qwen"),
        (
            ["poisson:rate=5", "--packages", "1"],
            "--packages 1: the configuration has 2 simulated ones. Mend: ",
        ),
        (
            ["poisson:rate=5", "--config", "no.yaml"],
            "no.yaml: No such file or directory. Mend: --config FILE",
        ),
        (
            ["poisson:rate=5", "--faults", "no.yaml"],
            "no.yaml: No such file or directory. Mend: --faults FILE",
        ),
        (
            ["poisson:rate=5", "--plot", "a.jpg"],
            "--plot: 'a.jpg' is neither .png nor .svg. Mend: --plot a.png",
        ),
    ],
)
def test_what_cannot_be_is_told_in_one_or_two_lines(diplex: Diplex, words: list[str], said: str):
    done = diplex("simulate", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) <= 2


@pytest.mark.parametrize(
    "options",
    [["--speed", "0"], ["--load", "-1"], ["--packages", "0"], ["--requests", "0"], ["--message-ms", "-1"],
     ["--message-ms", "2000"], ["--timeout", "0"]],
)  # fmt: skip
def test_a_figure_that_is_none_is_wrong_usage(options: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["simulate", "poisson:rate=5", *options])
    assert ended.value.code == 2
    assert f"argument {options[0]}" in capsys.readouterr().err


def test_a_wrong_script_is_told_line_by_line(diplex: Diplex, tmp_path: Path):
    (tmp_path / "faults.yaml").write_text("- {at_s: 1, kill: pkg2}\n- {at_s: 2, slow: pkg0}\n")
    done = diplex("simulate", "poisson:rate=5", "--faults", "faults.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert [line for line in done.stderr.splitlines() if not line.startswith(" ")] == [
        "faults.yaml:1: kill: 'pkg2' is not a worker or package of this fleet",
        "faults.yaml:2: factor: is missing",
        "faults.yaml:2: for_s: is missing",
    ]


def test_neither_grpc_nor_matplotlib_is_loaded_for_it():
    tell = (
        "import sys, diplex_cli.commands.simulate, diplex_cli.simulate.session, diplex_cli.simulate.streams;"
        "print({'grpc', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", tell], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"
