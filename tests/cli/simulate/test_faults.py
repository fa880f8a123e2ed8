"""A script of faults is read whole, or every line of it that is wrong is told with its mend."""

from pathlib import Path

import pytest

from diplex_cli.failures import UsageError
from diplex_cli.reader import FileFault
from diplex_cli.simulate import faults
from diplex_core.sim.faults import Cut, Drain, Fault, Kill, Slow

WORKERS = ("pkg0", "pkg1", "pkg2.0", "pkg2.1")
PACKAGES = ("pkg0", "pkg1", "pkg2")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "faults.yaml"


def read(file: Path, text: str) -> tuple[Fault, ...]:
    file.write_text(text)
    return faults.read(str(file), WORKERS, PACKAGES)


def test_a_script_is_read_in_the_order_of_time(file: Path):
    text = """\
- {at_s: 60, drain: pkg2}
- {at_s: 10, kill: pkg1, back_after_s: 5}
- {at_s: 15, kill: pkg2.1}
- at_s: 20.5
  cut: pkg0
  for_s: 2
- {at_s: 30, slow: pkg0, factor: 3, for_s: 10}
"""
    assert read(file, text) == (
        Kill(10.0, "pkg1", 5.0),
        Kill(15.0, "pkg2.1", None),
        Cut(20.5, "pkg0", 2.0),
        Slow(30.0, "pkg0", 3.0, 10.0),
        Drain(60.0, "pkg2"),
    )


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{at_s: 1, kill: pgk1}", ["kill: 'pgk1' is not a worker or package of this fleet", "mend:  pkg1"]),
        ("{at_s: 1, kill: x}", ["'x' is not a worker", "known: pkg0, pkg1, pkg2.0, pkg2.1, pkg2"]),
        ("{at_s: 1, kill: 5}", ["kill: 5 is not text like pkg0", "mend:  kill: pkg0"]),
        ("{at_s: -1, drain: pkg0}", ["at_s: -1 is out of bounds"]),
        ("{drain: pkg0}", ["at_s: is missing", "mend:  at_s: 10"]),
        ("{at_s: 1, slow: pkg0, factor: 0, for_s: 1}", ["factor: 0 is out of bounds"]),
        ("{at_s: 1, cut: pkg0}", ["for_s: is missing", "mend:  for_s: 5"]),
        ("{at_s: 1, drain: pkg0, for_s: 5}", ["for_s: is no key of a drain", "known: at_s, drain"]),
        ("{at_s: 1, drian: pkg0}", ["says nothing that goes wrong", "mend:  drain: …"]),
        ("{at_s: 1}", ["says nothing that goes wrong", "mend:  one of kill, cut, slow, drain"]),
        ("kill", ["says nothing that goes wrong", "mend:  one of kill, cut, slow, drain"]),
        ("{at_s: 1, kill: pkg0, cut: pkg1}", ["says kill and cut", "mend:  one of kill, cut, slow, drain"]),
    ],
)
def test_a_wrong_line_is_told_with_its_place_and_the_mend(file: Path, line: str, told: list[str]):
    with pytest.raises(UsageError) as raised:
        read(file, f"- {{at_s: 1, kill: pkg0}}\n- {line}\n")
    message = str(raised.value)
    assert message.startswith(f"{file}:2: ")
    assert all(words in message for words in told)


def test_all_that_is_wrong_is_told_at_once(file: Path):
    with pytest.raises(UsageError) as raised:
        read(file, "- {at_s: 1, kill: a}\n- {at_s: 2, drain: pkg0}\n- {at_s: 3, cut: b, for_s: 1}\n")
    assert [line.split()[0] for line in str(raised.value).splitlines() if not line.startswith(" ")] == [
        f"{file}:1:",
        f"{file}:3:",
    ]


def test_of_a_large_fleet_a_few_names_are_told(file: Path):
    file.write_text("- {at_s: 1, kill: zzz}\n")
    with pytest.raises(UsageError, match=r"pkg6, … \(1,000 in all\)"):
        faults.read(str(file), [f"pkg{number}" for number in range(1000)], [])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kill: pkg0\n", ":1: this is no list"),
        ("", ": is empty. Mend: - {at_s: 10, kill: pkg0, back_after_s: 5}"),
        ("- {at_s: 1, at_s: 2}\n", "is there twice"),
        ("- {at_s: [\n", "is not YAML"),
    ],
)
def test_what_is_no_script_is_refused(file: Path, text: str, told: str):
    with pytest.raises(FileFault) as raised:
        read(file, text)
    assert told in str(raised.value)


def test_a_file_that_is_not_there_is_refused(file: Path):
    with pytest.raises(UsageError, match=r"No such file or directory. Mend: --faults FILE"):
        faults.read(str(file), WORKERS, PACKAGES)
