"""What a tier says of requests whose promise can no longer be kept."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from diplex_core.events import EndedClaim, Granted, HeldClaim, Queued, Refused, Why
from diplex_core.past import Outcome
from diplex_core.words import EndReason, Pattern, Promise, Rules, Target, Tenant, Tier, WhenLate

NewDesk = Callable[..., Any]
MODEL = "qwen2.5-72b-instruct"
FAST = Tier(
    "fast",
    (Pattern.A,),
    Promise(Target(0.1), 0.010),
    max_output_tokens=512,
    priority=9,
    when_late=WhenLate.REJECT,
)
SLOW = Tier("slow", (Pattern.A,), Promise(Target(60.0)), max_output_tokens=64, priority=5)
LAST = Tier("last", (Pattern.A, Pattern.B), max_output_tokens=4096, priority=0)


def rules(fast: Tier = FAST, *others: Tier, tenants: tuple[Tenant, ...] = ()) -> Rules:
    tiers = {tier.name: tier for tier in (fast, *(others or (SLOW, LAST)))}
    return Rules(frozenset({MODEL}), MODEL, tiers, "fast", tenants)


@pytest.fixture
def simulated(facts: Callable[..., Any]) -> Any:
    """A worker whose step times are known: it reads 30,000 prompt tokens in about half a second."""
    return replace(
        facts("a", blocks=20_000, slots=32),
        calibration="chapter",
        gpu="b200",
        profile="qwen2.5-72b",
        weights="mxfp4-mixed",
        kv_cache="mxfp8",
        context=65_536,
    )


def test_a_request_that_would_be_late_is_rejected_with_the_time_after_which_it_would_not(
    new_desk: NewDesk, simulated: Any
) -> None:
    desk = new_desk(simulated, rules=rules())
    desk.grant(prompt=30_000, tier="last")
    (refused,) = desk.ask(prompt=100, tier="fast")
    assert isinstance(refused, Refused)
    assert refused.refusal.why is Why.TOO_LATE
    assert refused.refusal.retry_after == pytest.approx(0.4, abs=0.15)
    desk.now += refused.refusal.retry_after
    (granted,) = desk.ask(prompt=100, tier="fast")
    assert isinstance(granted, Granted)
    assert granted.predicted_ttft is not None
    assert granted.predicted_ttft <= 0.1 + 1e-6


def test_what_may_still_be_kept_is_tried(new_desk: NewDesk, simulated: Any) -> None:
    desk = new_desk(simulated, rules=rules())
    desk.grant(prompt=6_500, tier="last")
    granted = desk.grant(prompt=100, tier="fast")
    assert 0.1 < granted.predicted_ttft < 0.15  # beyond the target by less than a prediction is worth


def test_where_nobody_knows_a_workers_speed_only_a_wait_makes_late(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a", blocks=2000, slots=2), rules=rules())
    first = desk.grant(prompt=30_000, tier="last")
    desk.start(first)
    assert desk.grant(prompt=100, tier="fast").predicted_ttft is None
    desk.ask(prompt=100, tier="fast")
    desk.now = 0.3
    (refused,) = desk.end(first)
    assert isinstance(refused, Refused)
    assert refused.refusal.why is Why.TOO_LATE


def test_a_tier_may_serve_its_requests_late(new_desk: NewDesk, simulated: Any) -> None:
    desk = new_desk(simulated, rules=rules(replace(FAST, when_late=WhenLate.WAIT)))
    desk.grant(prompt=30_000, tier="last")
    assert desk.grant(prompt=100, tier="fast").predicted_ttft > 0.3


def test_a_late_request_is_degraded_to_the_next_tier_below(new_desk: NewDesk, simulated: Any) -> None:
    desk = new_desk(simulated, rules=rules(replace(FAST, when_late=WhenLate.DEGRADE)))
    desk.grant(prompt=30_000, tier="last")
    granted = desk.grant(prompt=100, max_tokens=500, tier="fast")
    assert (granted.tier, granted.degraded_from, granted.priority) == ("slow", "fast", 5)
    assert granted.max_tokens == 64  # no more than the tier gives that serves it
    desk.start(granted)
    desk.end(granted)
    (served,) = desk.served
    assert (served.tier, served.degraded_from, served.met) == ("slow", "fast", False)
    assert desk.admission.outcomes["degraded", "slow"] == 1


def test_a_tier_names_where_its_late_requests_go(new_desk: NewDesk, simulated: Any) -> None:
    down = replace(FAST, when_late=WhenLate.DEGRADE, degrade_to="last")
    desk = new_desk(simulated, rules=rules(down))
    desk.grant(prompt=30_000, tier="last")
    assert desk.grant(prompt=100, tier="fast").tier == "last"


def test_a_request_is_not_degraded_to_a_tier_that_its_tenant_may_not_use(
    new_desk: NewDesk, simulated: Any
) -> None:
    acme = Tenant("acme", "sesame", tiers=frozenset({"fast", "last"}))
    desk = new_desk(simulated, rules=rules(replace(FAST, when_late=WhenLate.DEGRADE), tenants=(acme,)))
    desk.grant(prompt=30_000, tier="last", api_key="sesame")
    assert desk.grant(prompt=100, tier="fast", api_key="sesame").tier == "last"


def test_with_no_tier_below_a_late_request_is_served_late(new_desk: NewDesk, simulated: Any) -> None:
    only = replace(FAST, when_late=WhenLate.DEGRADE)
    desk = new_desk(simulated, rules=rules(only, replace(LAST, patterns=(Pattern.B,))))
    desk.grant(prompt=30_000, tier="fast")
    assert desk.grant(prompt=100, tier="fast").tier == "fast"


def test_a_degraded_request_keeps_its_arrival_and_waits_in_the_lower_queue(
    new_desk: NewDesk, simulated: Any
) -> None:
    desk = new_desk(
        replace(simulated, capacity_slots=1), rules=rules(replace(FAST, when_late=WhenLate.DEGRADE))
    )
    first = desk.grant(prompt=100, tier="last")
    desk.start(first)
    (queued,) = desk.ask(prompt=100, tier="fast")
    assert isinstance(queued, Queued)
    desk.now = 0.3
    (granted,) = [one for one in desk.end(first) if isinstance(one, Granted)]
    assert (granted.key, granted.tier, granted.degraded_from) == (queued.key, "slow", "fast")
    assert granted.queued == pytest.approx(0.3)


def test_what_waits_beyond_its_target_is_rejected_where_its_tier_says_so(
    new_desk: NewDesk, simulated: Any
) -> None:
    desk = new_desk(replace(simulated, capacity_slots=1), rules=rules())
    first = desk.grant(prompt=100, tier="fast")
    desk.start(first)
    (queued,) = desk.ask(prompt=100, tier="fast")
    assert isinstance(queued, Queued)
    desk.now = 0.3
    decisions = desk.end(first)
    refused = [one for one in decisions if isinstance(one, Refused)]
    assert [one.refusal.why for one in refused] == [Why.TOO_LATE]


def test_the_past_says_why_a_request_went_where_it_went(new_desk: NewDesk, simulated: Any) -> None:
    desk = new_desk(simulated, rules=rules())
    desk.grant(prompt=30_000, tier="last")
    desk.ask(prompt=100, tier="fast")
    granted, refused = desk.admission.past.of("r1"), desk.admission.past.of("r2")
    assert (granted.outcome, granted.picked) == (Outcome.GRANTED, "a")
    assert (refused.outcome, refused.picked) == (Outcome.REFUSED, "a")
    assert refused.words["a"].ttft > 0.3
    assert desk.admission.past.of("r3") is None


def test_what_was_served_says_whether_the_promise_was_kept(new_desk: NewDesk, simulated: Any) -> None:
    desk = new_desk(simulated, rules=rules())
    for first, each, met in ((0.05, 0.005, True), (0.15, 0.005, False), (0.05, 0.015, False)):
        granted = desk.grant(prompt=100, max_tokens=11, tier="fast")
        desk.start(granted)
        desk.now += first
        held = HeldClaim(granted.claim, granted.blocks, granted.slots, prefilled=True, prompt_tokens=100)
        desk.report("a", held)
        assert desk.admission.workers["a"].ledger.prefill.own == 0
        desk.now += 10 * each
        ended = EndedClaim(granted.claim, EndReason.LENGTH, 100, 11, first, first + 10 * each)
        desk.report("a", ended=(ended,))
        served = desk.served[-1]
        assert served.ttft == pytest.approx(first)
        assert served.tpot == pytest.approx(each)
        assert served.met is met


def test_prompt_tokens_are_in_flight_until_the_first_token(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a"))
    granted = desk.grant(prompt=100)
    axis = desk.admission.workers["a"].ledger.prefill
    assert axis.reserved == 100
    desk.start(granted)
    assert axis.reserved == 100
    desk.report("a", HeldClaim(granted.claim, granted.blocks, granted.slots, prefilled=True))
    assert axis.reserved == 0
    desk.end(granted)
    assert axis.own == 0
