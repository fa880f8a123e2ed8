"""When a tier's promise of a first token can no longer be kept, and where a late request may go instead."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from diplex_core.fleet import Worker
from diplex_core.placement.place import Choice, Placement
from diplex_core.placement.rules import Wish
from diplex_core.words import Rules, Seconds, Tier

_CLEARLY: Final = 1.5
"""A prediction may be off by some tens of percent, and a promise at the 95th percentile forgives one request
in twenty: only what is predicted this many times its target is late for certain."""


def late_by(wish: Wish, choice: Choice, before: Seconds = 0.0) -> Seconds | None:
    """By how much the wish will miss its target wherever it goes now; `None`: it may still be kept.

    With no pool to go to, or with one whose speed nobody knows, it is late once it has waited too long.

    Args:
        before: time that those will take who were told to come back about now, and are served before it.
    """
    target = wish.ttft_target
    if target is None:
        return None
    predicted = choice.picked.ttft(wish) if choice.picked is not None else None
    expected = wish.waited if predicted is None else predicted + before
    return expected - target if expected > _CLEARLY * target else None


def lowered(wish: Wish, rules: Rules, pools: Sequence[Worker], placement: Placement) -> Wish | None:
    """The same wish in the tier that its own gives way to; `None`: there is none that could ever serve it.

    That is the tier's `degrade_to`, or the one with the next lower priority that the tenant may use.
    """
    for tier in _below(wish.tier, rules):
        if wish.tenant.tiers is not None and tier.name not in wish.tenant.tiers:
            continue
        lower = replace(
            wish,
            tier=tier,
            max_tokens=min(wish.max_tokens, max(1, tier.max_output_tokens - wish.produced)),
            degraded_from=wish.degraded_from or wish.tier.name,
        )
        if any(placement.can_ever(lower, pool) and not pool.gone(wish.now) for pool in pools):
            return lower
    return None


def _below(tier: Tier, rules: Rules) -> Sequence[Tier]:
    if tier.degrade_to:
        named = rules.tiers.get(tier.degrade_to)
        return [named] if named is not None else []
    lower = [other for other in rules.tiers.values() if other.priority < tier.priority]
    return sorted(lower, key=lambda other: -other.priority)
