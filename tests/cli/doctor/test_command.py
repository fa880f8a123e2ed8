"""`diplex doctor` as it is typed."""

import json
from pathlib import Path

import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2
from diplex_cli.doctor.check import Check
from diplex_cli.doctor.examination import _is_here
from diplex_cli.doctor.subject import Subject
from diplex_cli.doctor.text import text
from diplex_cli.main import main

RECORDINGS = Path(__file__).with_name("recordings")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--gpu", "a10"], "--gpu: 'a10' is not known. Mend: one of b200, h200, h100"),
        (["--pattern", "E"], "--pattern: 'E' is not known. Mend: one of A, B, C, D, A+EAGLE"),
        (["--placement", "x"], "--placement: 'x' is not known. Mend: one of plain, pair, mig, mps, mlopart"),
        (
            ["--nvml", "/no/file"],
            "--nvml: /no/file is no recording: No such file or directory. Mend: one that",
        ),
    ],
)
def test_wrong_usage_names_the_option_and_what_it_takes(
    options: list[str], told: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["doctor", *options]) == 2
    assert capsys.readouterr().err.startswith(told)


@pytest.mark.parametrize(("recording", "code"), [("b200_healthy", 0), ("b200_throttled", 1)])
def test_the_exit_code_says_whether_something_failed(
    recording: str, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("DIPLEX_URL", raising=False)
    monkeypatch.setattr("diplex_cli.doctor.examination._PATIENCE", 0.1)
    file = str(RECORDINGS / f"{recording}.json")
    assert main(["doctor", "--nvml", file, "--no-load", "--json"]) == code
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert {check["status"] for check in checks} <= {"pass", "fail", "skip"}
    assert [check["id"] for check in checks if check["status"] == "fail"] == ["clocks"] * code


def test_no_line_is_wider_than_a_hundred_columns():
    long = "words that go on and on " * 12
    lines = text([Check("one", "1 one", "fail", long, long, long), Check("two", "2 two", "pass", "", "seen")])
    assert max(map(len, lines.splitlines())) <= 100
    assert lines.endswith("1 pass, 1 fail")


@pytest.mark.parametrize(
    ("address", "simulated", "here"),
    [
        ("127.0.0.1:7610", False, True),
        ("[::1]:7610", False, True),
        ("10.0.0.9:7610", False, False),
        ("127.0.0.1:7610", True, False),
    ],
)
def test_only_real_workers_of_this_machine_put_a_load_on_its_gpus(address: str, simulated: bool, here: bool):
    info = pb.WorkerInfo(name="w0", address=address, simulated=simulated)
    assert _is_here(Subject(router_pb2.FleetWorker(info=info))) is here
