"""The least share of what is granted that a tier has while it waits."""

from diplex_core.shares import MEMORY, Shares
from diplex_core.words import Pattern, Promise, Target, Tier

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
