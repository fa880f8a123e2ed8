"""What a tenant may use: tokens a minute, and KV blocks at a time."""

from collections.abc import Callable
from typing import Any

import pytest

from diplex_core.events import Granted, Queued, Refused, Why
from diplex_core.quotas import Quotas
from diplex_core.words import Pattern, Rules, Tenant, Tier

NewDesk = Callable[..., Any]
MODEL = "qwen2.5-72b-instruct"
BULK = Tier("bulk", (Pattern.A,), max_output_tokens=8192)
ACME = Tenant("acme", "a", max_tokens_per_minute=6_000)
SMALL = Tenant("small", "s", max_concurrent_blocks=10)
OTHER = Tenant("other", "o")


def rules(*tenants: Tenant, enforce: bool = True) -> Rules:
    return Rules(frozenset({MODEL}), MODEL, {"bulk": BULK}, "bulk", tenants, enforce_limits=enforce)


def test_a_bucket_fills_evenly_and_holds_a_minutes_worth() -> None:
    quotas = Quotas()
    assert quotas.lacks(ACME, 6_000, 0.0, 100.0) is None
    quotas.take(1, ACME, 6_000, 100.0)
    assert quotas.lacks(ACME, 500, 0.0, 100.0) == pytest.approx(5.0)
    assert quotas.lacks(ACME, 500, 0.0, 105.0) is None
    assert quotas.lacks(ACME, 6_000, 0.0, 500.0) is None


def test_what_an_answer_really_came_to_is_taken_or_given_back() -> None:
    quotas = Quotas()
    quotas.take(1, ACME, 6_000, 0.0)
    quotas.true_up(1, 1_000, 0.0)
    assert quotas.lacks(ACME, 5_000, 0.0, 0.0) is None
    quotas.take(2, ACME, 5_000, 0.0)
    quotas.true_up(2, 8_000, 0.0)  # three thousand below nothing
    assert quotas.lacks(ACME, 100, 0.0, 0.0) == pytest.approx(31.0)


def test_a_request_of_more_than_a_minutes_worth_is_taken_when_the_bucket_is_full() -> None:
    quotas = Quotas()
    assert quotas.lacks(ACME, 20_000, 0.0, 0.0) is None
    quotas.take(1, ACME, 20_000, 0.0)
    assert quotas.lacks(ACME, 20_000, 0.0, 0.0) == pytest.approx(200.0)


def test_beyond_its_tokens_a_minute_a_request_is_refused_with_the_exact_time(
    new_desk: NewDesk, facts: Any
) -> None:
    desk = new_desk(facts("a", blocks=1_000, slots=9), rules=rules(ACME))
    desk.grant(5_000, 1_000, api_key="a")
    (refused,) = desk.ask(900, 100, api_key="a")
    assert isinstance(refused, Refused)
    assert (refused.refusal.why, refused.refusal.retry_after) == (Why.QUOTA_EXCEEDED, pytest.approx(10.0))
    desk.now += refused.refusal.retry_after
    desk.grant(900, 100, api_key="a")


def test_each_refusal_has_a_time_of_its_own_and_what_it_needs_is_kept_from_those_who_come_later(
    new_desk: NewDesk, facts: Any
) -> None:
    desk = new_desk(facts("a", blocks=1_000, slots=9), rules=rules(ACME))
    desk.grant(5_000, 1_000, api_key="a")
    waits = [desk.ask(900 + n, 100 - n, api_key="a")[0].refusal.retry_after for n in range(3)]
    assert waits == pytest.approx([10.0, 20.0, 30.0])
    for n, wait in enumerate(waits):
        desk.now = wait
        desk.grant(900 + n, 100 - n, api_key="a")


def test_behind_a_gateway_that_has_limits_none_hold_here(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a", blocks=1_000, slots=9), rules=rules(ACME, SMALL, enforce=False))
    desk.grant(5_000, 1_000, api_key="a")
    desk.grant(5_000, 1_000, api_key="a")
    desk.grant(320, 320, api_key="s")


def test_beyond_its_blocks_a_request_waits_and_holds_up_nobody_else(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a", slots=9), rules=rules(SMALL, OTHER))
    first = desk.grant(128, 128, api_key="s")  # 8 blocks of its 10
    (queued,) = desk.ask(64, 64, api_key="s")
    assert isinstance(queued, Queued)
    assert "holds 8 of the 10 KV blocks" in desk.admission.explain_request("r2", desk.now).reason
    desk.grant(64, 64, api_key="o")
    desk.start(first)
    (granted,) = desk.end(first)
    assert isinstance(granted, Granted)
    assert granted.request_id == "r2"


def test_a_request_that_alone_is_beyond_its_tenants_blocks_is_refused_at_once(
    new_desk: NewDesk, facts: Any
) -> None:
    desk = new_desk(facts("a"), rules=rules(SMALL))
    (refused,) = desk.ask(320, 32, api_key="s")
    assert (refused.refusal.why, refused.refusal.retry_after) == (Why.QUOTA_TOO_SMALL, None)
    assert refused.refusal.numbers == {"needed_blocks": "11", "max_concurrent_blocks": "10"}
