"""What the router no longer relies on is said once, and once more when it is over."""

import logging

import pytest

from diplex_core.admission import Admission
from diplex_core.events import Report, Reported, WorkerFacts
from diplex_core.words import Pattern, Rules, Tier
from diplex_router.alarms import Alarms

RULES = Rules(frozenset({"m"}), "m", {"standard": Tier("standard", (Pattern.A,))}, "standard")
FACTS = WorkerFacts("w1", "w1", Pattern.A, frozenset({"m"}), 1, "h:1", 32, 100, 4, context=2048)


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "diplex_router.alarms")
    return caplog


def test_a_signal_that_died_is_said_once_and_once_more_when_it_is_back(heard):
    admission = Admission(RULES, ["w1"], epoch=1, now=0.0)
    alarms = Alarms(admission)
    for number, problem in enumerate(["", "its events stopped", "its events stopped", ""], 1):
        report = Report(number, True, 0.0, 0, 0, facts=FACTS, residency_problem=problem)
        admission.step(Reported("w1", report), float(number))
        alarms.look()
    assert [(record.levelname, record.getMessage()) for record in heard.records] == [
        ("WARNING", "worker w1: its prefix blocks are guessed by what was sent there: its events stopped"),
        ("INFO", "worker w1: what it says of prefix blocks can be relied on again"),
    ]


def test_an_account_that_drifts_is_said_once_and_once_more_when_it_is_right_again(heard):
    admission = Admission(RULES, ["w1"], epoch=1, now=0.0)
    alarms = Alarms(admission)
    for number, used in enumerate([0, 28, 28, 0], 1):
        admission.step(Reported("w1", Report(number, True, 0.0, used, 0, facts=FACTS)), float(number))
        alarms.look()
    begins, over = heard.records
    assert begins.levelname == "WARNING"
    assert begins.getMessage().startswith(
        "worker w1: its account and the ledger's differ by 28 of 100 KV blocks. Mend: "
    )
    assert (over.levelname, over.getMessage()) == (
        "INFO",
        "worker w1: its account of KV blocks can be relied on again",
    )
