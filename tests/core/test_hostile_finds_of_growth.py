"""What the hostile world found in raising and giving way: each a few steps that went wrong once."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from diplex_core.events import (
    Again,
    Ask,
    Asked,
    EndedClaim,
    Granted,
    HeldClaim,
    RaiseClaim,
    SessionEnded,
    Ticked,
    WantedClaim,
)
from diplex_core.listening import BETWEEN_AT_MOST
from diplex_core.words import Claim, EndReason, Pattern, Promise, Reserve, Rules, Target, Tier

MODEL = "qwen2.5-72b-instruct"
TALK = Tier("talk", (Pattern.A,), Promise(Target(1.0)), max_output_tokens=1024, priority=100)
BULK = Tier("bulk", (Pattern.A,), max_output_tokens=1024, reserve=Reserve.EXPECTED, preemptible=True)
RULES = Rules(frozenset({MODEL}), MODEL, {"talk": TALK, "bulk": BULK}, default_tier="bulk")


@pytest.fixture
def desk(new_desk: Callable[..., Any], facts: Callable[..., Any]) -> Any:
    """A worker of ten blocks, on which answers mostly come to 32 tokens."""
    desk = new_desk(replace(facts("a", blocks=10), can_grow=True), rules=RULES)
    for _ in range(30):
        desk.admission.lengths.saw("default", "bulk", MODEL, 32)
    return desk


def runs(desk: Any, prompt: int = 32) -> Granted:
    granted: Granted = desk.grant(prompt, 160)
    assert granted.grows
    desk.report("a", HeldClaim(granted.claim, granted.blocks, 1, grows=True))
    return granted


def test_what_is_wanted_back_waits_to_grow_no_longer(desk: Any) -> None:
    first, second = runs(desk, 128), runs(desk, 128)
    assert desk.report("a", wants=(WantedClaim(first.claim, 9),)) == []
    again = Ask(
        "r1", MODEL, prompt_tokens=128, max_tokens=160, again=Again(first.claim, EndReason.FAILED, "a")
    )
    desk.tell(Asked(first.key, again))
    ledger = desk.admission.workers["a"].ledger
    assert (ledger.charge_of(first.claim).reclaiming, ledger.wanted) == (True, 0)
    decisions = desk.report("a", ended=(EndedClaim(second.claim, EndReason.STOP),))
    assert not any(isinstance(decision, RaiseClaim) for decision in decisions)


def test_who_made_way_for_a_newcomer_waits_to_grow_no_longer(desk: Any) -> None:
    runs(desk, 128)
    desk.now = 1.0
    youngest = runs(desk, 128)
    desk.report("a", wants=(WantedClaim(youngest.claim, 9),))
    assert desk.admission.workers["a"].ledger.wanted == 4
    stop, _ = desk.ask(32, 32, tier="talk")
    assert (stop.claim, stop.reason) == (youngest.claim, EndReason.PREEMPTED)
    assert desk.admission.workers["a"].ledger.wanted == 0


def test_a_claim_that_its_worker_needs_whole_does_not_grow(desk: Any) -> None:
    granted: Granted = desk.grant(32, 96)
    assert (granted.blocks, granted.grows) == (2, True)
    refused = Again(granted.claim, EndReason.REFUSED, "a", needed_blocks=4)
    (anew,) = (
        decision
        for decision in desk.tell(
            Asked(granted.key, Ask("r1", MODEL, "bulk", "", 32, max_tokens=96, again=refused))
        )
        if isinstance(decision, Granted)
    )
    assert (anew.blocks, anew.grows) == (4, False)


def test_one_that_has_to_give_way_itself_takes_nobody_along(desk: Any) -> None:
    runs(desk, 128)
    desk.now = 1.0
    youngest = runs(desk)
    assert desk.report("a", wants=(WantedClaim(youngest.claim, 9),)) == []
    desk.now = 60.0
    assert [stop.claim for stop in desk.tell(Ticked())] == [youngest.claim]


def test_a_request_that_gave_way_and_is_not_asked_for_again_is_given_up(desk: Any) -> None:
    granted = runs(desk)
    desk.end(granted, EndReason.PREEMPTED)
    desk.now = BETWEEN_AT_MOST - 1.0
    desk.tell(Ticked())
    assert desk.admission.leases.opened - desk.admission.leases.closed == 1
    desk.now = BETWEEN_AT_MOST + 1.0
    assert desk.tell(Ticked()) == []
    assert desk.admission.leases.opened == desk.admission.leases.closed


def test_a_request_that_gave_way_when_its_client_had_left_is_over_without_a_word(desk: Any) -> None:
    granted = runs(desk)
    desk.tell(SessionEnded(granted.key.session))
    assert desk.end(granted, EndReason.PREEMPTED) == desk.served == []
    assert desk.admission.leases.opened == desk.admission.leases.closed


def test_one_that_was_stopped_is_on_its_way_back_though_the_account_had_no_room_for_it(desk: Any) -> None:
    granted = runs(desk, 128)
    stray = HeldClaim(Claim(8, 1), 7, 1, priority=-1, grows=True)
    desk.report("a", stray)
    (stop,) = desk.report("a", wants=(WantedClaim(granted.claim, 8),))
    assert stop.claim == stray.claim
    desk.now = 60.0
    assert desk.tell(Ticked()) == []
    (raised,) = desk.report("a", ended=(EndedClaim(stray.claim, EndReason.PREEMPTED),))
    assert (raised.claim, raised.blocks) == (granted.claim, 8)


def test_a_newcomer_needs_room_beside_what_others_wait_to_grow_by(desk: Any) -> None:
    older = runs(desk, 128)
    desk.now = 1.0
    younger = runs(desk, 128)
    desk.report("a", wants=(WantedClaim(older.claim, 9),))
    *stops, _ = desk.ask(32, 32, tier="talk")
    assert [stop.claim for stop in stops] == [younger.claim, older.claim]
