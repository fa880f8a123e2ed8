"""Claims that hold less than they may come to need: what they hold, how they grow, and who gives way."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from diplex_core.events import (
    Again,
    Ask,
    Asked,
    EndedClaim,
    Granted,
    HeldClaim,
    Queued,
    RaiseClaim,
    StopClaim,
    Ticked,
    WantedClaim,
    WorkerFacts,
)
from diplex_core.growing import LONG_PATIENCE, PATIENCE
from diplex_core.words import Claim, EndReason, Pattern, Promise, Reserve, Rules, Target, Tier

MODEL = "qwen2.5-72b-instruct"
TALK = Tier(
    "talk",
    (Pattern.A,),
    promise=Promise(Target(1.0)),
    max_output_tokens=1024,
    priority=100,
)
BULK = Tier("bulk", (Pattern.A,), max_output_tokens=1024, reserve=Reserve.EXPECTED, preemptible=True)
BETTER = replace(BULK, name="better", priority=10)
RULES = Rules(frozenset({MODEL}), MODEL, {"talk": TALK, "bulk": BULK, "better": BETTER}, default_tier="bulk")


@pytest.fixture
def desk(facts, new_desk):
    """One worker of ten blocks, and answers that mostly come to 32 tokens."""
    return taught(new_desk(growing(facts, "a"), rules=RULES))


def growing(facts: Callable[..., WorkerFacts], name: str, blocks: int = 10) -> WorkerFacts:
    return replace(facts(name, blocks=blocks), can_grow=True)


def taught(desk):
    for tier in ("bulk", "better"):
        for _ in range(30):
            desk.admission.lengths.saw("default", tier, MODEL, 32)
    return desk


def held(granted: Granted, blocks: int | None = None, *, answers: int = 0) -> HeldClaim:
    return HeldClaim(
        granted.claim,
        granted.blocks if blocks is None else blocks,
        1,
        priority=granted.priority,
        grows=granted.grows,
        answers_raise=answers,
    )


def runs(desk, prompt: int = 32, max_tokens: int = 200, **more: object) -> Granted:
    granted = desk.grant(prompt, max_tokens, **more)
    desk.report("a", held(granted))
    return granted


def wants(desk, granted: Granted, blocks: int) -> list[object]:
    return desk.report("a", wants=(WantedClaim(granted.claim, blocks),))


def test_a_growing_request_holds_its_prompt_and_what_such_requests_mostly_come_to(desk):
    granted = desk.grant(32, 200)
    assert (granted.blocks, granted.grows, granted.max_tokens) == (2, True, 200)


def test_as_long_as_nobody_knows_how_long_answers_are_a_request_holds_in_full(facts, new_desk):
    granted = new_desk(growing(facts, "a", 20), rules=RULES).grant(32, 320)
    assert (granted.blocks, granted.grows) == (11, False)


@pytest.mark.parametrize("cannot", [{"can_grow": False}, {"can_resume": False}])
def test_a_worker_that_cannot_let_it_grow_and_go_on_takes_it_in_full(facts, new_desk, cannot):
    desk = taught(new_desk(replace(growing(facts, "a", 20), **cannot), rules=RULES))
    assert desk.grant(32, 320).blocks == 11


def test_a_request_with_several_choices_holds_in_full(facts, new_desk):
    desk = taught(new_desk(growing(facts, "a", 40), rules=RULES))
    assert desk.grant(32, 320, choices=2).blocks == 21


def test_a_request_whose_whole_need_fits_no_pool_is_refused_though_it_would_begin_small(desk):
    (refused,) = desk.ask(32, 1000)
    assert refused.refusal.why == "REQUEST_TOO_LARGE"


def test_lengths_are_learned_from_whole_answers_alone(facts, new_desk):
    desk = new_desk(growing(facts, "a", 100), rules=RULES)
    for reason, length in [(EndReason.STOP, 50)] * 30 + [(EndReason.CANCELLED, 1)] * 40:
        granted = desk.grant(32, 320)
        desk.start(granted)
        desk.report("a", ended=(EndedClaim(granted.claim, reason, 32, length),))
    assert desk.admission.lengths.quantile("default", "bulk", MODEL, 0.5) == pytest.approx(50, rel=0.03)


def test_a_claim_that_wants_more_is_raised_at_once_where_there_is_room(desk):
    granted = runs(desk)
    (raised,) = wants(desk, granted, 6)
    assert isinstance(raised, RaiseClaim)
    assert (raised.claim, raised.blocks, desk.free("a")) == (granted.claim, 6, 4)


def test_a_raise_is_not_given_twice_while_it_is_on_its_way(desk):
    granted = runs(desk)
    wants(desk, granted, 6)
    assert wants(desk, granted, 6) == []


def test_a_worker_without_the_room_says_so_and_the_claim_goes_on_waiting(desk):
    granted = runs(desk)
    (raised,) = wants(desk, granted, 6)
    again = desk.report(
        "a",
        held(granted, answers=raised.number),
        wants=(WantedClaim(granted.claim, 6),),
        foreign=8,
    )
    assert again == []
    assert desk.admission.workers["a"].ledger.blocks.own == 2


def test_a_raise_that_a_lost_link_may_have_lost_is_repeated_on_the_next(desk):
    granted = runs(desk)
    (raised,) = wants(desk, granted, 6)
    desk.lose("a")
    assert desk.admission.resend_orders("a") == [raised]


def test_who_waits_to_grow_goes_before_newcomers(desk):
    first, second = runs(desk, 96), runs(desk, 96)
    assert wants(desk, first, 7) == []  # two are free; its equal may end by itself
    assert [type(answer) for answer in desk.ask(32, 32)] == [Queued]
    (raised, granted) = desk.report("a", ended=(EndedClaim(second.claim, EndReason.STOP),))
    assert (raised.claim, raised.blocks) == (first.claim, 7)
    assert granted.blocks == 2


def test_of_equals_the_youngest_gives_way_once_the_other_was_patient(desk):
    oldest = runs(desk, 96)
    desk.now += 0.1
    youngest = runs(desk, 96)
    wants(desk, oldest, 7)
    desk.now += PATIENCE - 0.01
    assert desk.tell(Ticked()) == []
    desk.now += 0.02
    (stop,) = desk.tell(Ticked())
    assert (stop.claim, stop.reason) == (youngest.claim, EndReason.PREEMPTED)


def test_a_lower_priority_gives_way_at_once(desk):
    low = runs(desk, 96)
    high = runs(desk, 96, tier="better")
    (stop,) = wants(desk, high, 7)
    assert stop.claim == low.claim


def test_a_higher_priority_never_gives_way_to_a_lower_one(desk):
    low = runs(desk, 96)
    high = runs(desk, 96, tier="better")
    wants(desk, low, 7)
    desk.now += LONG_PATIENCE - 0.1
    assert desk.tell(Ticked()) == []
    desk.now += 0.2
    (stop,) = desk.tell(Ticked())
    assert stop.claim == low.claim != high.claim


def test_where_everybody_waits_nobody_is_patient(desk):
    oldest = runs(desk, 96)
    desk.now += 0.1
    youngest = runs(desk, 96)
    wants(desk, oldest, 7)
    (stop,) = wants(desk, youngest, 7)
    assert stop.claim == youngest.claim


def test_what_was_stopped_is_charged_until_its_worker_says_that_it_is_over(desk):
    oldest, youngest = runs(desk, 96), runs(desk, 96)
    wants(desk, oldest, 7)
    wants(desk, youngest, 7)
    assert desk.admission.workers["a"].ledger.blocks.reclaiming == youngest.blocks
    (raised,) = desk.end(youngest, EndReason.PREEMPTED)
    assert (raised.claim, desk.free("a")) == (oldest.claim, 3)


def test_a_request_that_gave_way_goes_on_under_its_lease_with_what_it_produced(desk):
    oldest, youngest = runs(desk, 96), runs(desk, 96)
    wants(desk, oldest, 7)
    wants(desk, youngest, 7)
    desk.end(youngest, EndReason.PREEMPTED)
    desk.end(oldest)
    again = Again(youngest.claim, EndReason.PREEMPTED, "a", produced_tokens=40)
    ask = Ask("r2", MODEL, prompt_tokens=96, max_tokens=200, again=again)
    (granted,) = desk.tell(Asked(youngest.key, ask))
    assert granted.claim == Claim(youngest.claim.lease_id, 2)
    assert granted.max_tokens == 200
    assert granted.blocks == -(-(96 + 200) // 32)  # nobody knows of answers that are so long: in full
    assert desk.admission.preempted == 1


def test_a_request_that_gave_way_and_is_never_asked_for_again_is_forgotten(desk):
    oldest, youngest = runs(desk, 96), runs(desk, 96)
    wants(desk, oldest, 7)
    wants(desk, youngest, 7)
    desk.end(youngest, EndReason.PREEMPTED)
    desk.now += 31
    desk.tell(Ticked())
    assert desk.admission.leases.opened - desk.admission.leases.closed == 1


def test_a_request_of_a_higher_priority_takes_the_room_of_growing_ones(desk):
    bulk = [runs(desk, 96), runs(desk, 96)]
    answers = desk.ask(64, 64, tier="talk")
    assert [type(answer) for answer in answers] == [StopClaim, Queued]
    assert answers[0].claim == bulk[1].claim
    (granted,) = desk.end(bulk[1], EndReason.PREEMPTED)
    assert granted.tier == "talk"


def test_while_room_is_on_its_way_nobody_else_gives_way(desk):
    runs(desk, 96), runs(desk, 96)
    desk.ask(64, 64, tier="talk")
    desk.now += 0.1
    assert desk.tell(Ticked()) == []


def test_nobody_gives_way_to_a_request_that_finds_no_room_even_so(desk):
    runs(desk, 96)
    runs(desk, 96, tier="better")
    desk.grant(32, 32, tier="talk")  # holds in full, and stays
    assert [type(answer) for answer in desk.ask(300, 10, tier="talk")] == [Queued]


def test_a_claim_that_grew_by_itself_while_the_link_was_down_waits_no_longer(desk):
    oldest, youngest = runs(desk, 96), runs(desk, 96)
    wants(desk, oldest, 7)
    desk.lose("a")
    facts = desk.admission.workers["a"].facts
    desk.numbers["a"] = 0
    desk.report("a", held(oldest, 5), held(youngest), full=facts)
    assert desk.admission.workers["a"].ledger.wanted == 0
    assert desk.admission.workers["a"].growing.wanting == 0


def test_a_claim_of_a_former_life_grows_and_gives_way_like_any_other(facts, new_desk):
    desk = taught(new_desk(silent=("a",), rules=RULES))
    desk.numbers["a"] = 0
    desk.held["a"] = {}
    old = [HeldClaim(Claim(n, 1), 5, 1, grows=True) for n in (11, 12)]
    desk.report("a", *old, full=growing(facts, "a"))
    stops = desk.report("a", wants=tuple(WantedClaim(one.claim, 7) for one in old))
    assert [(type(stop), stop.claim) for stop in stops] == [(StopClaim, Claim(12, 1))]


def test_a_new_life_of_the_worker_forgets_who_wanted_to_grow(desk, facts):
    granted = runs(desk, 96)
    runs(desk, 96)
    wants(desk, granted, 7)
    desk.held["a"].clear()
    desk.numbers["a"] = 0
    desk.report("a", full=replace(growing(facts, "a"), boot=2))
    assert desk.admission.workers["a"].ledger.wanted == 0
    assert desk.free("a") == 10
