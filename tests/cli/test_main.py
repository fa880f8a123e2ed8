"""The program as a shell sees it: help, exit codes, and errors without a traceback."""

import re
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from diplex_cli.main import COMMANDS, main

Diplex = Callable[..., "subprocess.CompletedProcess[str]"]
HELP_CPU = 0.1  # seconds


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]):
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert re.findall(r"^  (\w+) +\w", told, re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert re.search(rf"^examples?:\n( .*\n)*? .*diplex {command}\b", capsys.readouterr().out, re.MULTILINE)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]):
    assert main(["--version"]) == 0
    assert re.fullmatch(r"diplex \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "usage: diplex COMMAND"),
        (["chatt"], "diplex: 'chatt' is not a command. Mend: diplex chat\n"),
        (["--verison"], "diplex: '--verison' is not a command. Mend:"),
        (["zzz"], "diplex: 'zzz' is not a command. Mend: one of up, router"),
    ],
)
def test_what_is_no_command_is_wrong_usage(words: list[str], told: str, capsys: pytest.CaptureFixture[str]):
    assert main(words) == 2
    assert capsys.readouterr().err.startswith(told)


@pytest.mark.parametrize(
    "words",
    [
        ["up", "--no-such"],
        ["up", "--rest-port", "x"],
        ["up", "--rest-port", "70000"],
        ["worker"],
        ["chat"],
        ["config"],
    ],
)
def test_wrong_options_are_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage: diplex" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["up", "--config", "nothing.yaml"], 2, "nothing.yaml: No such file or directory. Mend:"),
        (["config", "check", "nothing.yaml"], 1, "nothing.yaml: No such file or directory. Mend:"),
        (["router", "--config", "fleet.yaml"], 2, "the router needs the key that signs grants. Mend: export"),
        (["worker", "pkg9", "--config", "fleet.yaml"], 2,
         "the configuration has no worker 'pkg9'. Mend: pkg0"),
        (["chat", "hello", "--url", "127.0.0.1:1"], 1, "127.0.0.1:1"),
    ],
)  # fmt: skip
def test_a_wrong_input_is_told_in_one_or_two_lines(
    diplex: Diplex, simulated: Path, words: list[str], code: int, told: str
):
    done = diplex(*words, env={"DIPLEX_GRANTS_KEY": ""})
    assert (done.returncode, done.stdout) == (code, "")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_config_check_says_that_a_file_is_fine(diplex: Diplex, simulated: Path):
    done = diplex("config", "check", "fleet.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "fleet.yaml: fine: 1 model, 1 worker, 1 tier, 0 tenants\n"


def test_config_check_points_at_the_line(diplex: Diplex, simulated: Path):
    simulated.write_text(simulated.read_text().replace("pattern: A", "pattern: E"))
    done = diplex("config", "check", "fleet.yaml")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("fleet.yaml:4: packages.pkg0.pattern: 'E' is not a pattern\n")


def test_config_check_prints_json(diplex: Diplex, simulated: Path):
    simulated.write_text(simulated.read_text().replace("[A, C]", "[A, C], preemptible: true"))
    done = diplex("config", "check", "fleet.yaml", "--json")
    assert done.returncode == 0
    assert (
        '"fine": true, "faults": [], "notes": ["fleet.yaml:6: tiers.standard.preemptible: nobody gives way'
        in done.stdout
    )


def test_help_takes_less_than_a_tenth_of_a_second_of_cpu():
    def cpu() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "diplex_cli", "--help"], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert statistics.median(cpu() for _ in range(5)) < HELP_CPU


@pytest.mark.parametrize("module", ["diplex_cli.main", "diplex_cli.commands.up", "diplex_cli.commands.chat"])
def test_a_command_loads_no_grpc_before_it_needs_it(module: str):
    tell = f"import sys, {module}; print({{'grpc', 'rich', 'uvloop', 'uvicorn'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", tell], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"
