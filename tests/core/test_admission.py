"""What a router decides, event by event, with invented time."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from diplex_core.admission import MOST_REFUSALS
from diplex_core.events import (
    Again,
    Ask,
    Asked,
    AskKey,
    EndedClaim,
    Granted,
    HeldClaim,
    Queued,
    Redial,
    Refused,
    Report,
    Reported,
    Revoked,
    SessionEnded,
    StopClaim,
    Ticked,
    Why,
    Withdrawn,
)
from diplex_core.words import Claim, EndReason, Pattern, Rules, Tenant, Tier

NewDesk = Callable[..., Any]
MODEL = "qwen2.5-72b-instruct"


def again(granted: Granted, reason: EndReason = EndReason.REFUSED, **more: Any) -> Again:
    return Again(granted.claim, reason, granted.worker.name, **more)


def test_what_fits_is_granted_at_once_with_the_blocks_it_may_come_to_hold(
    new_desk: NewDesk, facts: Any
) -> None:
    desk = new_desk(facts("a"))
    granted = desk.grant(prompt=33, max_tokens=31)
    assert (granted.blocks, granted.slots, granted.max_tokens) == (2, 1, 31)
    assert granted.start_by == 1005.0  # on the worker's clock, which was 1,000 s ahead of ours
    assert desk.free("a") == 98


def test_a_request_without_max_tokens_holds_its_tiers_cap(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a", blocks=1000))
    assert desk.grant(max_tokens=0).max_tokens == 8192
    assert desk.grant(max_tokens=9999).max_tokens == 8192


def test_a_cap_that_was_not_asked_for_shrinks_to_what_the_pool_has(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a", blocks=10))
    assert desk.grant(prompt=32, max_tokens=0).max_tokens == 288


def test_latency_traffic_prefers_c_and_bulk_a(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("c", Pattern.C), facts("a", Pattern.A))
    assert desk.grant(tier="interactive").worker.name == "c"
    assert desk.grant(tier="bulk").worker.name == "a"


def test_latency_traffic_goes_to_a_when_c_is_full(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("c", Pattern.C, slots=1), facts("a", Pattern.A))
    assert [desk.grant(tier="interactive").worker.name for _ in range(2)] == ["c", "a"]


def test_what_does_not_fit_now_waits_and_is_granted_when_the_worker_confirms_room(
    new_desk: NewDesk, facts: Any
) -> None:
    desk = new_desk(facts("a", slots=1))
    first = desk.grant()
    (queued,) = desk.ask()
    assert isinstance(queued, Queued)
    desk.start(first)
    (granted,) = desk.end(first)
    assert isinstance(granted, Granted)
    assert granted.key == queued.key


def test_blocks_of_an_ended_stream_stay_charged_until_the_worker_says_so(
    new_desk: NewDesk, facts: Any
) -> None:
    desk = new_desk(facts("a", slots=1))
    first = desk.grant()
    (stop,) = desk.tell(Withdrawn(first.key))
    assert isinstance(stop, StopClaim)
    assert desk.admission.workers["a"].ledger.blocks.reclaiming == first.blocks
    assert isinstance(desk.ask()[0], Queued)
    assert isinstance(desk.end(first, EndReason.REVOKED)[0], Granted)


def test_nobody_waits_behind_a_request_that_needs_another_pool(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a", slots=1), facts("c", Pattern.C))
    desk.grant(tier="bulk")
    assert isinstance(desk.ask(tier="bulk")[0], Queued)
    assert desk.grant(tier="interactive").worker.name == "c"


def test_within_a_tier_the_first_to_ask_is_served_first(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a", blocks=10, slots=8))
    first = desk.grant(prompt=192, max_tokens=64)
    (large,) = desk.ask(prompt=192, max_tokens=64)
    (small,) = desk.ask(prompt=1, max_tokens=1)
    assert (large.position, small.position) == (0, 1)
    desk.start(first)
    granted = desk.end(first)
    assert [x.key for x in granted] == [large.key, small.key]


@pytest.mark.parametrize(
    ("prompt", "fits"),
    [(3168, True), (3169, False)],
)
def test_what_fits_no_pool_even_when_empty_is_refused_at_once_with_the_numbers(
    new_desk: NewDesk, facts: Any, prompt: int, fits: bool
) -> None:
    desk = new_desk(facts("a", blocks=100))
    (decision,) = desk.ask(prompt=prompt, max_tokens=32)
    if fits:
        assert isinstance(decision, Granted)
    else:
        assert isinstance(decision, Refused)
        assert decision.refusal.why is Why.REQUEST_TOO_LARGE
        assert "101 KV blocks; the largest, a, has 100" in decision.refusal.message
        assert decision.refusal.numbers["fits_tokens"] == "3200"


def test_more_choices_than_any_engine_runs_at_once_are_refused_with_the_number(
    new_desk: NewDesk, facts: Any
) -> None:
    (refused,) = new_desk(facts("a", slots=4)).ask(choices=5)
    assert refused.refusal.why is Why.REQUEST_TOO_LARGE
    assert "needs 5 sequence slots, the engine has 4. Mend: n at most 4" in refused.refusal.message


def test_what_was_half_produced_goes_only_where_it_can_go_on(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a"), replace(facts("b"), can_resume=False))
    half = Again(Claim(99 << 32, 1), EndReason.FAILED, "a", produced_tokens=8)
    ask = Ask("r", MODEL, prompt_tokens=8, max_tokens=32, again=half)
    (granted,) = desk.tell(Asked(AskKey(1, 1), ask))
    assert granted.worker.name == "a"


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        (Ask("r", "gpt-9", prompt_tokens=1), Why.UNKNOWN_MODEL),
        (Ask("r", MODEL, tier="gold", prompt_tokens=1), Why.UNKNOWN_TIER),
        (Ask("r", MODEL, prompt_tokens=0), Why.REQUEST_INVALID),
        (Ask("r", "other", prompt_tokens=1), Why.NO_WORKER),
    ],
)
def test_what_the_rules_do_not_know_is_refused_by_name(
    new_desk: NewDesk, facts: Any, ask: Ask, why: Why
) -> None:
    (refused,) = new_desk(facts("a")).tell(Asked(AskKey(1, 1), ask))
    assert refused.refusal.why is why


def test_a_tier_without_any_worker_of_its_patterns_says_so(new_desk: NewDesk, facts: Any) -> None:
    (refused,) = new_desk(facts("b", Pattern.B)).ask(tier="interactive")
    assert refused.refusal.why is Why.NOT_PLACEABLE
    assert "pattern B; tier interactive allows C, A" in refused.refusal.message


def test_a_key_decides_the_tenant_and_the_tenant_the_tiers_and_packages(
    new_desk: NewDesk, facts: Any
) -> None:
    bulk = Tier("bulk", (Pattern.A,))
    acme = Tenant("acme", "k1", tiers=frozenset({"bulk"}), packages=frozenset({"a2"}))
    rules = Rules(
        frozenset({MODEL}), MODEL, {"bulk": bulk, "chat": Tier("chat", (Pattern.A,))}, "bulk", (acme,)
    )
    desk = new_desk(facts("a1"), facts("a2"), rules=rules)
    granted = desk.grant(api_key="k1")
    assert (granted.tenant, granted.worker.name) == ("acme", "a2")
    assert desk.ask(api_key="wrong")[0].refusal.why is Why.UNKNOWN_KEY
    assert desk.ask(api_key="k1", tier="chat")[0].refusal.why is Why.TIER_NOT_ALLOWED


def test_a_full_queue_refuses_with_a_retry_after_computed_from_the_drain_and_keeps_it(
    new_desk: NewDesk, facts: Any
) -> None:
    tier = Tier("bulk", (Pattern.A,), max_queue_requests=2)
    desk = new_desk(facts("a", slots=1), rules=Rules(frozenset({MODEL}), MODEL, {"bulk": tier}, "bulk"))
    running = desk.grant()
    for _ in range(4):  # one ends every five seconds
        desk.now += 5
        desk.start(running)
        desk.end(running)
        running = desk.grant()
    desk.ask()
    desk.ask()
    (refused,) = desk.ask()
    assert refused.refusal.why is Why.QUEUE_FULL
    assert refused.refusal.retry_after == pytest.approx(10.0)  # two are served until then
    for _ in range(2):
        desk.now += 5
        desk.start(running)
        (running,) = desk.end(running)
        (fresh,) = desk.ask(33)
        if desk.now < 30:
            assert isinstance(fresh, Queued)
    assert fresh.refusal.why is Why.QUEUE_FULL  # the place is kept for the one that was told to come
    (back,) = desk.ask()
    assert isinstance(back, Queued)


def test_a_queue_is_bounded_in_blocks_too(new_desk: NewDesk, facts: Any) -> None:
    tier = Tier("bulk", (Pattern.A,), max_queue_blocks=10)
    desk = new_desk(facts("a", slots=1), rules=Rules(frozenset({MODEL}), MODEL, {"bulk": tier}, "bulk"))
    desk.grant()
    assert isinstance(desk.ask(128, 64)[0], Queued)  # 6 blocks
    (refused,) = desk.ask(128, 64)
    assert refused.refusal.why is Why.QUEUE_FULL
    assert "need 6 KV blocks wait" in refused.refusal.message
    assert refused.refusal.retry_after >= 1.0
    assert isinstance(desk.ask(64, 64)[0], Queued)


def test_a_wait_ends_at_the_tiers_bound(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("c", Pattern.C, slots=1))
    desk.start(desk.grant(tier="interactive"))
    desk.ask(tier="interactive")
    desk.now = 0.19
    assert desk.tell(Ticked()) == []
    desk.now = 0.2
    (refused,) = desk.tell(Ticked())
    assert refused.refusal.why is Why.QUEUED_TOO_LONG


def test_a_wait_ends_at_the_requests_own_deadline(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a", slots=1))
    desk.start(desk.grant())
    desk.ask(timeout=1.0)
    desk.now = 1.0
    (refused,) = desk.tell(Ticked())
    assert refused.refusal.why is Why.DEADLINE_PASSED
    assert len(desk.admission.waiting) == 0


def test_a_grant_that_never_starts_is_taken_back(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a"))
    granted = desk.grant()
    desk.now = 6.0
    stop, revoked = desk.tell(Ticked())
    assert isinstance(stop, StopClaim)
    assert isinstance(revoked, Revoked)
    assert revoked.claim == granted.claim
    assert desk.free("a") == 98
    desk.end(granted, EndReason.REVOKED)
    assert desk.free("a") == 100


def test_a_running_lease_is_nobodys_but_its_workers(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a"))
    granted = desk.grant()
    desk.start(granted)
    assert desk.tell(SessionEnded(1)) == []
    assert desk.tell(Withdrawn(granted.key)) == []
    desk.now = 3600.0
    desk.report("a")
    assert desk.tell(Ticked()) == []
    desk.end(granted)
    assert (desk.admission.leases.opened, desk.admission.leases.closed) == (1, 1)


def test_a_session_takes_what_waits_and_what_was_not_started_with_it(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a", slots=1))
    granted = desk.grant()
    desk.ask()
    (stop,) = desk.tell(SessionEnded(1))
    assert stop.claim == granted.claim
    assert (desk.admission.leases.closed, len(desk.admission.waiting)) == (2, 0)


def test_a_refused_start_is_asked_for_again_under_the_same_lease_elsewhere(
    new_desk: NewDesk, facts: Any
) -> None:
    desk = new_desk(facts("a1"), facts("a2"))
    first = desk.grant()
    desk.end(first, EndReason.REFUSED)
    ask = Ask("r1", MODEL, prompt_tokens=40, exact=True, max_tokens=32, again=again(first))
    (second,) = desk.tell(Asked(first.key, ask))
    assert second.claim == Claim(first.claim.lease_id, 2)
    assert second.worker.name != first.worker.name
    assert second.blocks == 3
    assert (desk.admission.leases.opened, desk.admission.refused_by_worker) == (1, 1)


def test_the_worker_that_refused_is_asked_again_when_no_other_can_take_it(
    new_desk: NewDesk, facts: Any
) -> None:
    desk = new_desk(facts("a"))
    first = desk.grant()
    desk.end(first, EndReason.REFUSED)
    (second,) = desk.tell(
        Asked(first.key, Ask("r1", MODEL, prompt_tokens=32, max_tokens=32, again=again(first)))
    )
    assert second.worker.name == "a"


def test_asking_again_takes_the_place_of_the_first_arrival(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a", slots=1))
    first = desk.grant()
    desk.now = 1.0
    (later,) = desk.ask()
    request = Ask("r1", MODEL, prompt_tokens=32, max_tokens=32, again=again(first))
    stop, queued = desk.tell(Asked(first.key, request))
    assert isinstance(stop, StopClaim)
    assert queued.position == 0
    (granted,) = desk.end(first, EndReason.REFUSED)
    assert granted.key == first.key != later.key


def test_after_twenty_refusals_it_is_over(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a"))
    granted = desk.grant()
    for _ in range(MOST_REFUSALS):
        desk.end(granted, EndReason.REFUSED)
        request = Ask("r1", MODEL, prompt_tokens=32, max_tokens=32, again=again(granted))
        (granted,) = desk.tell(Asked(granted.key, request))
    desk.end(granted, EndReason.REFUSED)
    request = Ask("r1", MODEL, prompt_tokens=32, max_tokens=32, again=again(granted))
    (refused,) = desk.tell(Asked(granted.key, request))
    assert refused.refusal.why is Why.REFUSED_TOO_OFTEN
    assert desk.admission.leases.closed == 1


def test_a_preempted_request_counts_what_it_produced_as_prompt(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a"))
    first = desk.grant(prompt=32, max_tokens=64)
    desk.start(first)
    desk.end(first, EndReason.PREEMPTED)
    assert desk.admission.leases.closed == 0
    stopped = again(first, EndReason.PREEMPTED, produced_tokens=32)
    (second,) = desk.tell(Asked(first.key, Ask("r1", MODEL, prompt_tokens=32, max_tokens=64, again=stopped)))
    assert (second.blocks, second.max_tokens) == (3, 64)


def test_a_lease_that_the_router_does_not_know_is_taken_as_new_with_its_age(
    new_desk: NewDesk, facts: Any
) -> None:
    desk = new_desk(facts("a"))
    desk.now = 10.0
    lost = Again(Claim(99 << 32, 1), EndReason.FAILED, "gone")
    (granted,) = desk.tell(
        Asked(AskKey(1, 1), Ask("r", MODEL, prompt_tokens=1, max_tokens=1, age=4.0, again=lost))
    )
    assert granted.queued == 4.0
    assert granted.claim.attempt == 1


def test_nothing_is_admitted_before_every_worker_has_reported(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a"), silent=("b",))
    assert isinstance(desk.ask()[0], Queued)
    desk.held["b"] = {}
    (granted,) = desk.link(facts("b"))
    assert isinstance(granted, Granted)


def test_a_worker_that_stays_silent_is_waited_for_three_seconds(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a"), silent=("b",))
    desk.ask()
    desk.now = 2.9
    assert desk.tell(Ticked()) == []
    desk.now = 3.0
    assert isinstance(desk.tell(Ticked())[0], Granted)


def test_what_a_worker_holds_under_this_routers_name_is_adopted(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(silent=("a",))
    desk.held["a"] = {}
    old = HeldClaim(Claim(3 << 32 | 17, 2), 40, 1)
    desk.held["a"][old.claim] = old
    desk.link(facts("a"))
    assert desk.free("a") == 60
    assert desk.admission.leases.adopted == 1
    desk.report("a", ended=(EndedClaim(old.claim, EndReason.STOP),))
    assert desk.free("a") == 100
    assert desk.admission.leases.closed == desk.admission.leases.opened


def test_a_worker_without_a_link_is_given_up_after_three_seconds_and_its_claims_with_it(
    new_desk: NewDesk, facts: Any
) -> None:
    desk = new_desk(facts("a"))
    desk.start(desk.grant())
    desk.lose("a")
    desk.now = 2.9
    desk.tell(Ticked())
    assert desk.free("a") == 98
    desk.now = 3.0
    desk.tell(Ticked())
    assert desk.free("a") == 100
    assert desk.admission.leases.closed == 1
    assert desk.ask()[0].refusal.why is Why.NO_WORKER


def test_requests_wait_for_a_worker_that_is_lost_and_not_yet_given_up(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a"))
    desk.lose("a")
    assert isinstance(desk.ask()[0], Queued)
    assert isinstance(desk.link(facts("a", boot=2))[0], Granted)


def test_a_new_boot_frees_what_the_old_one_held(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a"))
    desk.start(desk.grant())
    desk.lose("a")
    desk.held["a"].clear()
    desk.link(facts("a", boot=2))
    assert desk.free("a") == 100
    assert desk.admission.leases.closed == 1


def test_a_full_report_ends_what_it_no_longer_lists_but_not_what_has_yet_to_start(
    new_desk: NewDesk, facts: Any
) -> None:
    desk = new_desk(facts("a"))
    ran, fresh = desk.grant(), desk.grant()
    desk.start(ran)
    desk.held["a"].clear()
    desk.report("a", full=facts("a"))
    assert ran.claim not in desk.admission.workers["a"].ledger
    assert fresh.claim in desk.admission.workers["a"].ledger


def test_a_claim_whose_request_went_on_elsewhere_is_stopped_when_it_turns_up(
    new_desk: NewDesk, facts: Any
) -> None:
    desk = new_desk(facts("a1"), facts("a2"))
    first = desk.grant()
    request = Ask("r1", MODEL, prompt_tokens=32, max_tokens=32, again=again(first, EndReason.FAILED))
    stop, second = desk.tell(Asked(first.key, request))
    assert stop.claim == first.claim
    assert second.claim.attempt == 2
    assert desk.start(first) == []  # it started after all, before the stop came
    assert desk.admission.workers[first.worker.name].ledger.blocks.reclaiming == first.blocks
    desk.end(first, EndReason.REVOKED)
    assert desk.free(first.worker.name) == 100


def test_an_older_attempt_that_a_lost_worker_still_holds_is_stopped_when_it_returns(
    new_desk: NewDesk, facts: Any
) -> None:
    desk = new_desk(facts("a1"), facts("a2"))
    first = desk.grant()
    desk.start(first)
    request = Ask("r1", MODEL, prompt_tokens=32, max_tokens=32, again=again(first, EndReason.FAILED))
    desk.tell(Asked(first.key, request))
    desk.lose(first.worker.name)
    desk.now = 3.0
    desk.tell(Ticked())
    assert desk.free(first.worker.name) == 100
    (stop,) = desk.link(first.worker)
    assert stop.claim == first.claim
    assert desk.admission.workers[first.worker.name].ledger.blocks.reclaiming == first.blocks


def test_a_gap_in_the_reports_opens_the_link_anew(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a"))
    (redial,) = desk.tell(Reported("a", Report(5, False, 0.0, 0, 0)))
    assert isinstance(redial, Redial)


def test_a_new_link_repeats_the_stops_that_the_old_one_may_have_lost(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a"))
    granted = desk.grant()
    desk.tell(Withdrawn(granted.key))
    assert [stop.claim for stop in desk.admission.resend_orders("a")] == [granted.claim]


def test_an_engine_that_is_silent_for_long_is_not_waited_for(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a"))
    desk.report("a", problem="llama.cpp exited with 137")
    assert isinstance(desk.ask()[0], Queued)
    desk.now = 3.0
    (refused,) = desk.tell(Ticked())
    assert refused.refusal.why is Why.NO_WORKER
    assert "llama.cpp exited with 137" in refused.refusal.message


def test_blocks_of_other_routers_lower_what_is_free(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a"))
    desk.report("a", foreign=99)
    assert isinstance(desk.ask()[0], Queued)
    assert isinstance(desk.report("a", foreign=98)[0], Granted)


def test_a_moment_over_capacity_is_counted(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a"))
    desk.tell(Reported("a", Report(2, False, 0.0, used_blocks=101, used_slots=0)))
    assert desk.admission.over_capacity == 1


def test_a_workers_sum_that_its_own_list_does_not_make_is_drift(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a"))
    granted = desk.grant()
    desk.start(granted)
    desk.report("a", full=facts("a"))
    assert desk.admission.drift_max == 0
    held = HeldClaim(granted.claim, granted.blocks, granted.slots)
    number = desk.numbers["a"] + 1
    desk.tell(Reported("a", Report(number, True, 0.0, granted.blocks + 5, 1, held=(held,), facts=facts("a"))))
    assert desk.admission.drift_max == 5


def test_explain_gives_each_filters_word_on_each_worker(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("b", Pattern.B), facts("c", Pattern.C))
    ask = Ask("r", MODEL, tier="interactive", prompt_tokens=10)
    explained = desk.admission.explain(ask, 0.0)
    assert (explained.outcome, explained.picked) == ("granted", "c")
    assert explained.words["b"].objections == {"pattern": "pattern B; tier interactive allows C, A"}
    assert explained.words["c"].scores["preferred_pattern"] == 1.0


def test_two_accounts_that_are_far_apart_raise_an_alarm(new_desk, facts):
    desk = new_desk(facts("a"))
    granted = desk.grant(32, 32)
    desk.start(granted)
    worker = desk.admission.workers["a"]
    assert (worker.drift, worker.drift_alarm) == (0, "")
    unknown = Report(2 + 1, True, 0.0, used_blocks=30, used_slots=1, held=tuple(desk.held["a"].values()))
    desk.tell(Reported("a", unknown))
    assert worker.drift == 28
    assert "28 of 100 KV blocks" in worker.drift_alarm
