"""What a lower tier leaves for the next request of a higher one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from diplex_core.demand import Demand
from diplex_core.events import Queued
from diplex_core.placement.rules import Wish
from diplex_core.words import DEFAULT_TENANT, Pattern, Promise, Rules, Target, Tier

NewDesk = Callable[..., Any]
MODEL = "qwen2.5-72b-instruct"
CHAT = Tier("chat", (Pattern.A,), Promise(Target(0.1, 0.05), 0.02), max_output_tokens=1_024, priority=9)
BULK = Tier("bulk", (Pattern.A,), max_output_tokens=8_192, min_share=0.0)
RULES = Rules(frozenset({MODEL}), MODEL, {"chat": CHAT, "bulk": BULK}, "bulk")


def wish(tier: Tier = CHAT, *, prompt: int = 1_000, now: float = 0.0) -> Wish:
    return Wish(MODEL, tier, DEFAULT_TENANT, prompt, 100, now=now)


def test_only_tiers_that_promise_a_first_token_are_remembered_and_only_for_a_while() -> None:
    demand = Demand()
    demand.asked(wish(), 1_100, 0.0)
    demand.asked(wish(BULK), 1_100, 0.0)
    assert [wanted.tier.name for wanted in demand.above(0, 10.0)] == ["chat"]
    assert demand.above(9, 10.0) == []
    assert demand.above(0, 31.0) == []


def test_what_the_next_one_is_like_is_what_the_last_ones_were() -> None:
    demand = Demand()
    demand.asked(wish(prompt=1_000), 1_100, 0.0)
    for _ in range(100):
        demand.asked(wish(prompt=3_000), 3_100, 0.0)
    (wanted,) = demand.above(0, 0.0)
    assert wanted.prompt == pytest.approx(3_000, rel=0.01)


def test_workers_that_they_hardly_go_to_count_once_the_others_are_late() -> None:
    demand = Demand()
    demand.asked(wish(), 1_100, 0.0)
    for _ in range(40):
        demand.granted(wish(), Pattern.C, 0.05)
    (wanted,) = demand.above(0, 0.0)
    assert wanted.counts_on(Pattern.C, 0.0)
    assert not wanted.counts_on(Pattern.A, 0.0)
    demand.granted(wish(now=5.0), Pattern.C, 0.5)
    assert wanted.counts_on(Pattern.A, 6.0)
    assert not wanted.counts_on(Pattern.A, 60.0)


def test_bulk_leaves_a_slot_where_requests_of_a_higher_tier_come(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a", blocks=1_000, slots=8), rules=RULES)
    desk.grant(320, 320, tier="chat")
    for _ in range(6):
        desk.grant(32, 32)
    (queued,) = desk.ask(32, 32)
    assert isinstance(queued, Queued)
    assert "would leave no sequence slot for tier chat" in desk.admission.explain_request("r8", 0.0).reason
    desk.grant(320, 320, tier="chat")


def test_where_none_of_them_came_bulk_takes_all(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a", blocks=1_000, slots=8), rules=RULES)
    for _ in range(8):
        desk.grant(32, 32)


def test_a_prompt_that_would_hold_up_the_next_first_token_waits(new_desk: NewDesk, facts: Any) -> None:
    known = replace(
        facts("a", blocks=20_000, slots=32),
        calibration="chapter",
        gpu="b200",
        profile="qwen2.5-72b",
        weights="mxfp4-mixed",
        kv_cache="mxfp8",
        context=65_536,
    )
    desk = new_desk(known, rules=RULES)
    chat = desk.grant(1_000, 100, tier="chat")
    desk.start(chat)
    (queued,) = desk.ask(30_000, 100)
    assert isinstance(queued, Queued)
    assert "would hold up the first token" in desk.admission.explain_request("r2", 0.0).reason
    desk.grant(1_000, 100)
