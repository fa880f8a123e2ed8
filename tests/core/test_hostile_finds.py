"""What hostile walks have found in the core, each as the few events that it takes."""

from collections.abc import Callable
from typing import Any

from diplex_core.events import (
    Again,
    Ask,
    Asked,
    AskKey,
    EndedClaim,
    Granted,
    HeldClaim,
    Queued,
    Refused,
    Report,
    Reported,
    SessionEnded,
    StopClaim,
    Ticked,
    Why,
    Withdrawn,
)
from diplex_core.words import Claim, EndReason

NewDesk = Callable[..., Any]
MODEL = "qwen2.5-72b-instruct"


def again(granted: Granted, **more: Any) -> Again:
    return Again(granted.claim, EndReason.REFUSED, granted.worker.name, **more)


def ask_again(desk: Any, key: AskKey, granted: Granted, **more: Any) -> list[Any]:
    ask = Ask(granted.request_id, MODEL, prompt_tokens=32, max_tokens=32, again=again(granted), **more)
    return desk.tell(Asked(key, ask))


def test_a_grant_that_was_lost_with_a_session_is_taken_back_when_its_client_asks_on_the_next(
    new_desk: NewDesk, facts: Any
) -> None:
    desk = new_desk(facts("a"), facts("b"))
    first = desk.grant(session=1)
    desk.end(first, EndReason.REFUSED)
    (second,) = ask_again(desk, first.key, first)  # granted, and the session breaks before it comes
    stop, third = ask_again(desk, AskKey(2, 1), first)
    assert isinstance(stop, StopClaim)
    assert stop.claim == second.claim
    assert third.claim.attempt == 3
    desk.tell(SessionEnded(1))
    assert desk.admission.leases.opened - desk.admission.leases.closed == 1


def test_an_ask_that_is_read_late_from_a_session_that_its_client_has_left_takes_nothing_away(
    new_desk: NewDesk, facts: Any
) -> None:
    desk = new_desk(facts("a", slots=1))
    granted = desk.grant(session=1)
    desk.end(granted, EndReason.REFUSED)
    desk.grant(session=9)
    assert [type(d) for d in ask_again(desk, AskKey(3, 1), granted)] == [Queued]
    assert ask_again(desk, AskKey(2, 1), granted) == []
    desk.tell(SessionEnded(2))
    assert AskKey(3, 1) in {lease.key for lease in desk.admission.leases.all()}


def test_a_request_withdrawn_while_it_runs_is_not_kept_when_it_comes_to_nothing(
    new_desk: NewDesk, facts: Any
) -> None:
    desk = new_desk(facts("a"))
    granted = desk.grant()
    desk.start(granted)
    assert desk.tell(Withdrawn(granted.key)) == []  # what runs is the worker's to end
    desk.end(granted, EndReason.REFUSED)
    assert (desk.admission.leases.all(), desk.free("a")) == ([], 100)


def test_an_attempt_that_ends_after_its_client_asked_again_is_not_the_end_of_the_request(
    new_desk: NewDesk, facts: Any
) -> None:
    desk = new_desk(facts("a", slots=1))
    granted = desk.grant()
    desk.start(granted)
    ask_again(desk, granted.key, granted)  # its stream broke, and it waits for the slot that it still holds
    decisions = desk.end(granted, EndReason.CANCELLED)
    assert [type(decision) for decision in decisions] == [Granted]
    assert desk.served == []
    desk.end(decisions[0])
    assert [served.claim for served in desk.served] == [decisions[0].claim]


def test_an_attempt_whose_worker_was_given_up_is_stopped_when_it_turns_up_and_its_request_waits(
    new_desk: NewDesk, facts: Any
) -> None:
    desk = new_desk(facts("a", slots=1), facts("b", slots=1))
    granted, other = desk.grant(), desk.grant()
    desk.start(granted)
    desk.start(other)
    lost = granted.worker.name
    desk.lose(lost)
    ask_again(desk, granted.key, granted)  # its stream broke too; the stop finds no link
    desk.now = 3.5
    desk.tell(Ticked())  # given up: nothing is charged there any more
    decisions = desk.link(facts(lost, slots=1))
    assert StopClaim in {type(decision) for decision in decisions}
    charge = desk.admission.workers[lost].ledger.charge_of(granted.claim)
    assert charge is not None
    assert charge.reclaiming


def test_of_two_attempts_that_a_new_life_of_the_router_hears_of_the_newer_one_lives(
    new_desk: NewDesk, facts: Any
) -> None:
    desk = new_desk(silent=("a", "b"))
    old, new = HeldClaim(Claim(99, 1), 5, 1), HeldClaim(Claim(99, 2), 5, 1)
    desk.held = {"a": {old.claim: old}, "b": {new.claim: new}}
    assert desk.link(facts("a")) == []
    (stop,) = desk.link(facts("b"))
    assert (stop.worker, stop.claim) == ("a", old.claim)
    desk.report("a", ended=(EndedClaim(old.claim, EndReason.REVOKED),))
    (lease,) = desk.admission.leases.all()
    assert (lease.claim, lease.worker) == (new.claim, "b")


def test_what_a_request_would_hit_counts_against_the_whole_pool(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a", blocks=10))
    resident(desk, 1, 2, 3)
    (refused,) = desk.ask(prompt=96, max_tokens=300, block_hashes=(1, 2, 3))
    assert isinstance(refused, Refused)
    assert refused.refusal.why is Why.REQUEST_TOO_LARGE


def test_a_refusal_for_want_of_cached_blocks_is_answered_by_a_grant_that_counts_on_fewer(
    new_desk: NewDesk, facts: Any
) -> None:
    desk = new_desk(facts("a"))
    resident(desk, 1, 2, 3)
    granted = desk.grant(prompt=96, max_tokens=32, block_hashes=(1, 2, 3))
    assert (granted.blocks, granted.cached) == (1, 3)
    desk.end(granted, EndReason.REFUSED)
    ask = Ask(
        "r",
        MODEL,
        prompt_tokens=96,
        max_tokens=32,
        block_hashes=(1, 2, 3),
        again=again(granted, needed_blocks=3),
    )
    (second,) = desk.tell(Asked(granted.key, ask))
    assert (second.blocks, second.cached) == (3, 1)


def test_blocks_that_live_claims_pin_stay_charged_though_a_full_report_lists_them_no_more(
    new_desk: NewDesk, facts: Any
) -> None:
    desk = new_desk(facts("a"))
    resident(desk, 1, 2)
    granted = desk.grant(prompt=64, max_tokens=32, block_hashes=(1, 2))
    desk.report("a", HeldClaim(granted.claim, granted.blocks, 1), full=facts("a"))
    ledger = desk.admission.workers["a"].ledger
    assert (ledger.blocks.pinned, ledger.leading([1, 2])) == (2, 0)
    desk.end(granted)
    assert (ledger.blocks.pinned, ledger.cached) == (0, 0)


def test_blocks_that_others_pin_lower_what_is_free(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a"))
    desk.tell(Reported("a", Report(desk.numbers["a"] + 1, False, 1.0, 0, 0, pinned_blocks=5, stored=(1, 2))))
    assert desk.free("a") == 95


def resident(desk: Any, *blocks: int) -> None:
    """The worker says that these prefix blocks are resident."""
    desk.numbers["a"] += 1
    desk.tell(Reported("a", Report(desk.numbers["a"], False, 1.0, 0, 0, stored=blocks)))


def test_an_ended_claim_leaves_what_it_hit_to_others(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a"))
    resident(desk, 1, 2)
    first = desk.grant(prompt=64, max_tokens=32, block_hashes=(1, 2))
    second = desk.grant(prompt=64, max_tokens=32, block_hashes=(1, 2))
    desk.start(first)
    desk.start(second)
    desk.tell(
        Reported(
            "a",
            Report(desk.numbers["a"] + 1, False, 1.0, 0, 0, ended=(EndedClaim(first.claim, EndReason.STOP),)),
        )
    )
    ledger = desk.admission.workers["a"].ledger
    assert (ledger.blocks.pinned, ledger.cached) == (2, 0)
