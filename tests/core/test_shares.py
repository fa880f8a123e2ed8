"""The least share of what is granted that a tier has while it waits."""

from collections.abc import Callable
from typing import Any

from diplex_core.events import EndedClaim, Granted
from diplex_core.shares import MEMORY, Shares
from diplex_core.words import EndReason, Pattern, Promise, Rules, Target, Tier

MODEL = "qwen2.5-72b-instruct"

BULK = Tier("bulk", (Pattern.A,))
CHAT = Tier("chat", (Pattern.A,), Promise(Target(1.0)))


def test_a_tier_that_promises_no_first_token_is_owed_a_twentieth_while_it_waits() -> None:
    shares = Shares()
    shares.granted("chat", 9_600, 0.0)
    shares.granted("bulk", 400, 0.0)
    assert shares.owed([BULK, CHAT], 0.0) == ["bulk"]
    shares.granted("bulk", 200, 0.0)
    assert shares.owed([BULK, CHAT], 0.0) == []


def test_nobody_is_owed_anything_before_anything_was_granted() -> None:
    assert Shares().owed([BULK], 0.0) == []


def test_what_was_granted_long_ago_counts_ever_less() -> None:
    shares = Shares()
    shares.granted("bulk", 1_000, 0.0)
    shares.granted("chat", 1_000, 5 * MEMORY)
    share = shares.of("bulk", 5 * MEMORY)
    assert share is not None and share < 0.01


def test_a_tier_that_waits_gets_its_least_share_whatever_comes_for_higher_ones(
    new_desk: Callable[..., Any], facts: Any
) -> None:
    chat = Tier("chat", (Pattern.A,), Promise(Target(60.0)), priority=9)
    bulk = Tier("bulk", (Pattern.A,), min_share=0.1, filters=())
    rules = Rules(frozenset({MODEL}), MODEL, {"chat": chat, "bulk": bulk}, "bulk")
    desk = new_desk(facts("a", blocks=1_000, slots=2), rules=rules)
    running = [desk.grant(32, 32, tier="chat") for _ in range(2)]
    for granted in running:
        desk.start(granted)
    for _ in range(300):
        desk.ask(32, 32, tier="bulk")
        desk.ask(32, 32, tier="chat")
    served = []
    for _ in range(200):
        desk.now += 0.1
        over = running.pop(0)
        ended = EndedClaim(over.claim, EndReason.STOP, 32, 32)
        decisions = desk.report("a", ended=(ended,))
        (granted,) = [one for one in decisions if isinstance(one, Granted)]
        desk.start(granted)
        running.append(granted)
        served.append(granted.tier)
    assert 0.08 < served.count("bulk") / len(served) < 0.12
