"""The rules change while requests wait and run: each keeps those it was asked under."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from diplex_core.events import (
    Again,
    Ask,
    Asked,
    AskKey,
    Decision,
    Granted,
    Queued,
    Refused,
    RulesChanged,
    StopClaim,
    Ticked,
    Why,
)
from diplex_core.words import EndReason, Pattern, Promise, Rules, Target, Tenant, Tier, WhenLate

NewDesk = Callable[..., Any]
MODEL = "qwen2.5-72b-instruct"
STANDARD = Tier("standard", (Pattern.A,), max_output_tokens=64)
LEGACY = Tier("legacy", (Pattern.A,), max_output_tokens=96, max_queue=10.0)
ACME, GLOBEX = Tenant("acme", "sesame"), Tenant("globex", "poppy")
OLD = Rules(
    frozenset({MODEL}), MODEL, {"standard": STANDARD, "legacy": LEGACY}, "standard", tenants=(ACME, GLOBEX)
)
# The tier and the tenant of every request below are gone; a cap is lower.
NEW = replace(OLD, tiers={"standard": replace(STANDARD, max_output_tokens=8)}, tenants=(GLOBEX,))
ASKED = {"max_tokens": 0, "tier": "legacy", "api_key": "sesame"}


def change(desk: Any, rules: Rules = NEW) -> list[Decision]:
    decisions: list[Decision] = desk.tell(RulesChanged(rules))
    return decisions


def ask_again(desk: Any, granted: Granted, **more: Any) -> list[Decision]:
    again = Again(granted.claim, EndReason.REFUSED, granted.worker.name, produced_tokens=16)
    ask = Ask("r1", MODEL, prompt_tokens=32, again=again, **{**ASKED, **more})
    decisions: list[Decision] = desk.tell(Asked(AskKey(1, 1), ask))
    return decisions


def test_the_next_request_is_judged_by_the_new_rules(new_desk: NewDesk, facts: Any):
    desk = new_desk(facts("a"), rules=OLD)
    change(desk)
    assert desk.admission.rules_version == 1
    whys = [
        desk.ask(api_key="sesame")[0].refusal.why,
        desk.ask(api_key="poppy", tier="legacy")[0].refusal.why,
    ]
    assert whys == [Why.UNKNOWN_KEY, Why.UNKNOWN_TIER]
    assert desk.grant(api_key="poppy", max_tokens=0).max_tokens == 8


def test_what_waits_is_served_as_it_was_asked_for(new_desk: NewDesk, facts: Any):
    desk = new_desk(facts("a", slots=1), rules=OLD)
    first = desk.grant(**ASKED)
    desk.start(first)
    (queued,) = desk.ask(**ASKED)
    assert isinstance(queued, Queued)
    assert change(desk) == []
    *_, granted = desk.end(first)
    assert isinstance(granted, Granted)
    assert (granted.tier, granted.tenant, granted.max_tokens) == ("legacy", "acme", 96)


def test_what_waits_keeps_the_bound_of_its_tier(new_desk: NewDesk, facts: Any):
    desk = new_desk(facts("a", slots=1), rules=OLD)
    desk.start(desk.grant(**ASKED))
    desk.ask(**ASKED)
    change(desk, replace(OLD, tiers={"standard": STANDARD, "legacy": replace(LEGACY, max_queue=1.0)}))
    desk.now = 9.0
    assert desk.tell(Ticked()) == []
    desk.now = 10.0
    (refused,) = desk.tell(Ticked())
    assert isinstance(refused, Refused)
    assert refused.refusal.why is Why.QUEUED_TOO_LONG


def test_what_runs_is_not_stopped(new_desk: NewDesk, facts: Any):
    desk = new_desk(facts("a"), rules=OLD)
    granted = desk.grant(**ASKED)
    desk.start(granted)
    assert change(desk) == []
    assert desk.admission.leases.get(granted.claim.lease_id) is not None


def test_a_request_that_is_asked_for_again_keeps_its_tier_its_tenant_and_its_cap(
    new_desk: NewDesk, facts: Any
):
    desk = new_desk(facts("a"), rules=OLD)
    granted = desk.grant(**ASKED)
    desk.start(granted)
    desk.end(granted, EndReason.REFUSED)
    change(desk)
    (once_more,) = ask_again(desk, granted)
    assert isinstance(once_more, Granted)
    assert (once_more.claim.lease_id, once_more.claim.attempt) == (granted.claim.lease_id, 2)
    assert (once_more.tier, once_more.tenant, once_more.max_tokens) == ("legacy", "acme", 96)


def test_another_key_does_not_get_what_the_old_rules_gave_to_the_first(new_desk: NewDesk, facts: Any):
    desk = new_desk(facts("a"), rules=OLD)
    granted = desk.grant(**ASKED)
    change(desk)
    *_, refused = ask_again(desk, granted, api_key="poppy")
    assert isinstance(refused, Refused)
    assert refused.refusal.why is Why.UNKNOWN_TIER


@pytest.mark.parametrize("count", [{"prompt_tokens": 0}, {"choices": 0}])
def test_what_is_asked_for_again_must_still_be_a_request(
    new_desk: NewDesk, facts: Any, count: dict[str, int]
):
    desk = new_desk(facts("a"), rules=OLD)
    granted = desk.grant(**ASKED)
    again = Again(granted.claim, EndReason.REFUSED, "a")
    decisions = desk.tell(
        Asked(AskKey(1, 1), Ask("r1", MODEL, **{"prompt_tokens": 1, **ASKED, **count}, again=again))
    )
    assert any(isinstance(one, StopClaim) for one in decisions)
    assert decisions[-1].refusal.why is Why.REQUEST_INVALID


def test_a_late_request_is_degraded_by_the_rules_that_it_was_asked_under(new_desk: NewDesk, facts: Any):
    fast = Tier("fast", (Pattern.A,), Promise(Target(0.1)), priority=9, when_late=WhenLate.DEGRADE)
    rules = replace(OLD, tiers={"fast": fast, **OLD.tiers}, tenants=())
    desk = new_desk(facts("a", slots=1), rules=rules)
    first = desk.grant(tier="standard")
    desk.start(first)
    (queued,) = desk.ask(tier="fast", max_tokens=0)
    changed = replace(rules, tiers={"fast": fast, "standard": replace(STANDARD, max_output_tokens=8)})
    change(desk, changed)
    desk.now = 1.0
    (granted,) = [one for one in desk.end(first) if isinstance(one, Granted)]
    assert granted.key == queued.key
    assert (granted.tier, granted.degraded_from, granted.max_tokens) == ("standard", "fast", 64)
