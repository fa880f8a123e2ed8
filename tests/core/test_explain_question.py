"""What would become of a request, asked before it is made: what it would hear is what the answer says."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from diplex_core.events import Ask, Granted, Queued, Refused
from diplex_core.past import Explanation, Outcome
from diplex_core.words import Pattern, Rules, Tenant, Tier

MODEL = "qwen2.5-72b-instruct"
BULK = Tier("bulk", (Pattern.A,), max_output_tokens=8192)
RULES = Rules(frozenset({MODEL}), MODEL, {"bulk": BULK}, default_tier="bulk")


def rules(**of_tenant: Any) -> Rules:
    return replace(RULES, tenants=(Tenant("acme", "key", **of_tenant),))


@pytest.fixture
def desk(new_desk: Callable[..., Any], facts: Callable[..., Any]) -> Callable[..., Any]:
    """A worker of so many blocks, on which requests of 14 run as far as they fit."""

    def opened(held: int, under: Rules = RULES, blocks: int = 40) -> Any:
        made = new_desk(facts("w", blocks=blocks), rules=under)
        for _ in range(held):
            made.ask(192, 256, api_key="key")
        return made

    return opened


def question(desk: Any, prompt: int = 192, most: int = 256) -> Explanation:
    return desk.admission.explain(
        Ask("", MODEL, prompt_tokens=prompt, max_tokens=most, api_key="key"), desk.now
    )  # type: ignore[no-any-return]


def heard(desk: Any, prompt: int = 192, most: int = 256) -> list[type]:
    return [type(decision) for decision in desk.ask(prompt, most, api_key="key")]


@pytest.mark.parametrize(
    ("held", "prompt", "most", "outcome", "reason"),
    [
        (1, 192, 256, Outcome.GRANTED, ""),
        (
            2,
            192,
            256,
            Outcome.QUEUED,
            "it needs 14 KV blocks; w, which has most room, has 12 free, 2 too few",
        ),
        (3, 192, 256, Outcome.QUEUED, "1 of 2 in tier bulk comes before it; it needs 14 KV blocks"),
    ],
)
def test_one_that_waits_would_hear_what_it_lacks(
    desk: Callable[..., Any], held: int, prompt: int, most: int, outcome: Outcome, reason: str
):
    some = desk(held)
    said = question(some, prompt, most)
    assert said.outcome is outcome
    assert said.reason.startswith(reason)
    assert heard(some, prompt, most) == [Granted if outcome is Outcome.GRANTED else Queued]


def test_one_that_may_hold_no_more_at_a_time_would_wait_though_there_is_room(desk: Callable[..., Any]):
    some = desk(1, rules(max_concurrent_blocks=20))
    said = question(some)
    assert said.outcome is Outcome.QUEUED
    assert said.reason.endswith("its tenant acme holds 14 of the 20 KV blocks that it may hold at a time")
    assert heard(some) == [Queued]


@pytest.mark.parametrize(
    ("under", "held", "reason"),
    [
        (
            rules(max_concurrent_blocks=10),
            0,
            "the request needs 14 KV blocks; tenant acme may hold 10 at a time",
        ),
        (rules(max_tokens_per_minute=500), 1, "tenant acme has used up its 500 tokens a minute"),
        (
            replace(RULES, tiers={"bulk": replace(BULK, max_queue_requests=1)}),
            3,
            "1 requests of tier bulk wait for",
        ),
        (
            replace(RULES, tiers={"bulk": replace(BULK, max_queue_blocks=20)}),
            3,
            "requests of tier bulk that need 14 KV blocks wait for",
        ),
    ],
)
def test_one_that_would_not_be_taken_in_is_told_so(
    desk: Callable[..., Any], under: Rules, held: int, reason: str
):
    some = desk(held, under)
    said = question(some)
    assert (said.outcome, said.picked) == (Outcome.REFUSED, "")
    assert said.reason.startswith(reason)
    assert heard(some) == [Refused]


def test_where_limits_are_off_none_is_told(desk: Callable[..., Any]):
    some = desk(1, replace(rules(max_tokens_per_minute=500, max_concurrent_blocks=10), enforce_limits=False))
    assert question(some).outcome is Outcome.GRANTED
    assert heard(some) == [Granted]


def test_a_question_changes_nothing(desk: Callable[..., Any]):
    some = desk(3, rules(max_tokens_per_minute=5000))
    before = question(some)
    assert question(some).reason == before.reason
    assert len(some.admission.waiting) == 1
