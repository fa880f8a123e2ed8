"""Outcomes and tiers to make reports of."""

from collections.abc import Callable
from typing import Any

import pytest

from diplex_core.report import Ending, Outcome
from diplex_core.words import Pattern, Promise, Target, Tier

MODEL = "m"
INTERACTIVE = Tier(
    "interactive",
    (Pattern.C, Pattern.A),
    promise=Promise(Target(0.1, 0.05), 0.01),
    promises_by_model={"small": Promise(Target(3.0))},
)
BULK = Tier("bulk", (Pattern.A,), deadline=600.0)
TIERS = {tier.name: tier for tier in (INTERACTIVE, BULK)}


def one_outcome(tier: str = "interactive", ended: Ending = Ending.COMPLETED, **more: Any) -> Outcome:
    """A completed interactive request that met its targets, but for what is said otherwise."""
    served: dict[str, Any] = {}
    if ended is Ending.COMPLETED:
        served = {
            "served_tier": tier,
            "tenant": "acme",
            "worker": "pkg0",
            "queued": 0.001,
            "ttft": 0.1,
            "tpot": 0.005,
            "e2e": 0.2,
            "prompt_tokens": 1000,
            "output_tokens": 21,
        }
    return Outcome(**{"request_id": "r", "model": MODEL, "tier": tier, "arrived": 0.0, "ended": ended,
                      **served, **more})  # fmt: skip


@pytest.fixture
def outcome() -> Callable[..., Outcome]:
    return one_outcome


@pytest.fixture
def tiers() -> dict[str, Tier]:
    return dict(TIERS)
