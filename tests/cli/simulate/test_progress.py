"""How far a simulation is: one line, on a terminal written over."""

import io

import pytest

from diplex_cli.simulate import progress
from diplex_cli.simulate.progress import Progress, line
from diplex_core.report import Ending, Outcome


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The wall clock's reading, to be changed."""
    now = [100.0]
    monkeypatch.setattr(progress, "perf_counter", lambda: now[0])
    return now


def test_it_says_what_is_over_how_late_it_is_and_how_long_it_will_take():
    ended = {Ending.COMPLETED: 240, Ending.REJECTED: 10, Ending.FAILED: 0}
    assert line(1000, ended, 12.5, 2.0) == (
        "████░░░░░░░░░░░░ 250/1,000 over · 10 rejected · at 12.5 s · 125/s · 6 s left"
    )
    huge = dict.fromkeys(Ending, 100_000_000)
    assert len(line(10**9, huge, 1e7, 1e6)) <= 100
    assert "left" not in line(10, dict.fromkeys(Ending, 0), 0.1, 1.0)


def test_a_terminal_has_one_line_and_is_left_as_it_was(clock: list[float]):
    terminal = Terminal()
    with Progress(4, terminal) as shown:
        shown.hear(Outcome("r", "m", "bulk", 0.0, Ending.COMPLETED))
        shown.show(1.0)
        assert terminal.getvalue() == ""
        clock[0] += 0.25
        shown.show(2.0)
        shown.show(3.0)
        assert terminal.getvalue().startswith("\r\x1b[K████░")
        assert terminal.getvalue().count("\r") == 1
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_elsewhere_a_line_comes_now_and_then(clock: list[float]):
    file = io.StringIO()
    with Progress(4, file) as shown:
        for _ in range(25):
            clock[0] += 1.0
            shown.show(2.0)
    assert len(file.getvalue().splitlines()) == 2
    assert "\r" not in file.getvalue()
