"""What the hostile world found in queues and quotas: each a few steps that went wrong once."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from diplex_core.events import (
    Again,
    Ask,
    Asked,
    AskKey,
    EndedClaim,
    Granted,
    HeldClaim,
    Queued,
    RulesChanged,
    Ticked,
    WantedClaim,
    Withdrawn,
)
from diplex_core.words import (
    Claim,
    EndReason,
    Pattern,
    Promise,
    Reserve,
    Rules,
    Target,
    Tenant,
    Tier,
    WhenLate,
)

MODEL = "qwen2.5-72b-instruct"
BULK = Tier("bulk", (Pattern.A,), max_output_tokens=1024, reserve=Reserve.EXPECTED, preemptible=True)
RULES = Rules(
    frozenset({MODEL}),
    MODEL,
    {"bulk": BULK},
    default_tier="bulk",
    tenants=(Tenant("acme", "key", max_concurrent_blocks=10), Tenant("other", "other")),
)


@pytest.fixture
def desk(new_desk: Callable[..., Any], facts: Callable[..., Any]) -> Any:
    """A worker of forty blocks, of which one tenant may hold ten."""
    return new_desk(replace(facts("a", blocks=40), can_grow=True), rules=RULES)


def known(desk: Any) -> Any:
    """Answers mostly come to 32 tokens."""
    for _ in range(30):
        desk.admission.lengths.saw("acme", "bulk", MODEL, 32)
    return desk


def held(granted: Granted, blocks: int, answers: int = 0) -> HeldClaim:
    return HeldClaim(granted.claim, blocks, 1, tenant="acme", grows=granted.grows, answers_raise=answers)


def is_queued(decisions: list[Any]) -> bool:
    return [type(decision) for decision in decisions] == [Queued]


def test_what_a_tenant_may_never_hold_is_refused_though_it_was_asked_for_before_anybody_was_known(
    new_desk: Any, facts: Any
) -> None:
    desk = new_desk(rules=RULES, silent=("a",))
    assert is_queued(desk.ask(320, 64, api_key="key"))
    (refused,) = desk.link(facts("a"))
    assert refused.refusal.why == "QUOTA_TOO_SMALL"


def test_a_request_that_turns_out_larger_than_its_tenant_may_hold_is_refused(desk: Any) -> None:
    granted = desk.grant(64, 64, api_key="key")
    again = Again(granted.claim, EndReason.REFUSED, "a", needed_blocks=11)
    ask = Ask("r1", MODEL, api_key="key", prompt_tokens=64, max_tokens=64, again=again)
    desk.end(granted, EndReason.REFUSED)
    (refused,) = desk.tell(Asked(granted.key, ask))
    assert refused.refusal.why == "QUOTA_TOO_SMALL"


def test_a_worker_whose_blocks_are_too_small_for_the_quota_is_not_waited_for(
    new_desk: Any, facts: Any
) -> None:
    fine = replace(facts("fine", blocks=900), block_tokens=16)
    desk = new_desk(fine, facts("coarse", blocks=12), rules=RULES)
    assert desk.grant(160, 160, api_key="key").worker.name == "coarse"


def test_what_a_claim_has_grown_by_counts(desk: Any) -> None:
    granted = known(desk).grant(32, 200, api_key="key")
    desk.report("a", held(granted, granted.blocks))
    (raised,) = desk.report("a", wants=(WantedClaim(granted.claim, 6),))
    assert is_queued(desk.ask(160, 32, api_key="key"))
    desk.report("a", held(granted, 6, raised.number))
    assert desk.tell(Ticked()) == []


def test_what_a_claim_was_lowered_by_lets_others_of_its_tenant_in(desk: Any) -> None:
    first = desk.grant(64, 192, api_key="key")
    assert first.blocks == 8
    assert is_queued(desk.ask(64, 64, api_key="key"))
    (second,) = desk.report("a", held(first, 4))
    assert isinstance(second, Granted)


def test_claims_of_a_former_life_count(desk: Any) -> None:
    claim = Claim(99 << 32, 1)
    desk.report("a", HeldClaim(claim, 8, 1, tenant="acme"))
    assert is_queued(desk.ask(64, 64, api_key="key"))
    (granted,) = desk.report("a", ended=(EndedClaim(claim, EndReason.STOP),))
    assert isinstance(granted, Granted)


def test_claims_from_before_there_was_a_quota_count(desk: Any) -> None:
    unbounded = replace(RULES, tenants=(Tenant("acme", "key"),))
    desk.tell(RulesChanged(unbounded))
    first = desk.grant(64, 192, api_key="key")
    desk.report("a", HeldClaim(Claim(99 << 32, 1), 1, 1, tenant="acme"), held(first, 8))
    desk.tell(RulesChanged(RULES))
    assert isinstance(desk.grant(20, 10, api_key="key"), Granted)
    assert is_queued(desk.ask(64, 32, api_key="key"))


def test_one_that_moves_to_a_lower_tier_takes_no_worker_along_that_was_kept_for_it(
    new_desk: Any, facts: Any
) -> None:
    talk = Tier(
        "talk",
        (Pattern.A,),
        Promise(Target(1.0)),
        priority=100,
        when_late=WhenLate.DEGRADE,
        degrade_to="bulk",
    )
    rules = Rules(frozenset({MODEL}), MODEL, {"talk": talk, "bulk": replace(BULK, priority=0)}, "bulk")
    desk = new_desk(facts("a", blocks=10), rules=rules)
    running = desk.grant(224, 32)
    desk.start(running)
    assert is_queued(desk.ask(128, 32))
    assert is_queued(desk.ask(256, 32, tier="talk"))
    desk.now = 2.0
    desk.tell(Ticked())
    first, *_ = desk.end(running)
    assert isinstance(first, Granted) and first.key.ask_id == 2


def test_one_that_was_tried_in_vain_behind_another_is_kept_a_worker_as_soon_as_it_is_the_head(
    new_desk: Any, facts: Any
) -> None:
    desk = new_desk(facts("a", blocks=10))
    desk.start(desk.grant(160, 32))
    for prompt in (224, 64):
        assert is_queued(desk.ask(prompt, 32))
    desk.tell(Ticked())
    desk.grant(32, 32, tier="interactive")
    desk.tell(Withdrawn(AskKey(1, 2)))
    assert is_queued(desk.ask(32, 32)), "it would put off the one before it"


def test_who_passes_beside_a_reservation_uses_up_what_was_spare_there(new_desk: Any, facts: Any) -> None:
    known = {"gpu": "b200", "profile": "qwen2.5-72b", "weights": "mxfp4-mixed", "kv_cache": "mxfp8"}
    desk = new_desk(replace(facts("a", blocks=20, slots=9), calibration="chapter", **known))
    desk.start(desk.grant(368, 16))
    assert is_queued(desk.ask(416, 32))
    assert desk.grant(32, 128).blocks == 5  # of the six that are spare
    assert is_queued(desk.ask(24, 40))


def test_a_queue_that_is_full_days_after_the_start_refuses_with_a_time(new_desk: Any, facts: Any) -> None:
    known = {"gpu": "b200", "profile": "qwen2.5-72b", "weights": "mxfp4-mixed", "kv_cache": "mxfp8"}
    few = Tier("bulk", (Pattern.A,), max_output_tokens=1024, max_queue_requests=1)
    rules = Rules(frozenset({MODEL}), MODEL, {"bulk": few}, "bulk")
    desk = new_desk(replace(facts("a", blocks=10), calibration="chapter", **known), rules=rules)
    desk.now = 1e6
    desk.start(desk.grant(224, 32))
    assert is_queued(desk.ask(224, 32))
    (refused,) = desk.ask(224, 32)
    assert refused.refusal.why == "QUEUE_FULL"
    assert 1.0 <= refused.refusal.retry_after < 10.0
