"""Who there is, what the rules are and what is asked for: the world at its usual, and one that is crowded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from diplex_core.events import WorkerFacts
from diplex_core.placement.place import Placement
from diplex_core.words import Pattern, Promise, Reserve, Rules, Target, Tenant, Tier, Tokens, WhenLate

M, K = "model-m", "model-k"


def facts(
    name: str, pattern: Pattern, models: set[str], *, block: int, blocks: int, slots: int, **more: Any
) -> WorkerFacts:
    more = {"context": 512, "can_grow": True, "reports_residency": True, **more}
    return WorkerFacts(name, f"pkg-{name}", pattern, frozenset(models), 0, name, block, blocks, slots, **more)


# Their step times are known, so that admission predicts; of the others it knows nothing.
PREDICTED = {
    "calibration": "chapter",
    "gpu": "b200",
    "profile": "qwen2.5-72b",
    "weights": "mxfp4-mixed",
    "kv_cache": "mxfp8",
}
FLEET = (
    facts("c", Pattern.C, {M}, block=32, blocks=18, slots=5, **PREDICTED),
    facts("a", Pattern.A, {M, K}, block=32, blocks=24, slots=7, guard_blocks=2, **PREDICTED),
    facts(
        "small",
        Pattern.A,
        {M},
        block=16,
        blocks=26,
        slots=3,
        draft_tokens=3,
        tiers=frozenset({"bulk", "night"}),
    ),
    facts("eagle", Pattern.A_EAGLE, {K}, block=32, blocks=14, slots=2, can_resume=False),
)

INTERACTIVE = Tier(
    "interactive",
    (Pattern.C, Pattern.A),
    # Nothing is slow in this world but waiting: so it is what makes a request late.
    Promise(Target(0.4), 0.008),
    max_output_tokens=96,
    priority=9,
    when_late=WhenLate.DEGRADE,
    max_queue=4.0,
    max_queue_requests=6,
)
BULK = Tier(
    "bulk",
    (Pattern.A, Pattern.A_EAGLE, Pattern.C),
    max_output_tokens=200,
    max_queue_requests=8,
    reserve=Reserve.EXPECTED,
    preemptible=True,
    expected_quantile=0.5,
)
NIGHT = Tier(
    "night",
    (Pattern.A,),
    max_output_tokens=300,
    priority=-1,
    reserve=Reserve.EXPECTED,
    preemptible=True,
    expected_quantile=0.2,
    max_queue_blocks=30,
    min_share=0.1,
)


def rules(*tiers: Tier, tenants: tuple[Tenant, ...] = (), **more: Any) -> Rules:
    return Rules(frozenset({M, K}), M, {tier.name: tier for tier in tiers}, "bulk", tenants, **more)


BOUNDED = (
    Tenant("one", "key-1", weight=2.0, max_concurrent_blocks=14),
    Tenant("two", "key-2", max_tokens_per_minute=600, isolate_prefixes=True),
    Tenant("three", "key-3", weight=0.5, max_concurrent_blocks=9, max_tokens_per_minute=2000),
)


@dataclass(frozen=True, slots=True)
class Scene:
    """What a world is made of.

    Attributes:
        prompts, outputs: lengths that are asked for.
        experience: output lengths that a router may know of from the start.
    """

    fleet: tuple[WorkerFacts, ...]
    rules: tuple[Rules, ...]
    prompts: tuple[Tokens, ...]
    outputs: tuple[Tokens, ...]
    experience: tuple[Tokens, ...]


USUAL = Scene(
    FLEET,
    (
        rules(INTERACTIVE, BULK, NIGHT),
        rules(
            replace(INTERACTIVE, patterns=(Pattern.A,), when_late=WhenLate.REJECT),
            replace(BULK, reserve=Reserve.FULL),  # though it is preemptible
            replace(NIGHT, preemptible=False),  # so it holds in full
        ),
        rules(
            replace(INTERACTIVE, reserve=Reserve.EXPECTED, preemptible=True, when_late=WhenLate.WAIT),
            replace(BULK, expected_quantile=0.1),
            replace(NIGHT, priority=0),
        ),
        rules(
            INTERACTIVE,
            replace(BULK, patterns=(Pattern.A_EAGLE, Pattern.A), max_output_tokens=40),
            tenants=(
                Tenant("one", "key-1", packages=frozenset({"pkg-a", "pkg-c"})),
                Tenant("two", "key-2", tiers=frozenset({"bulk"}), isolate_prefixes=True),
                Tenant("three", "key-3"),
            ),
        ),
        rules(INTERACTIVE, BULK, NIGHT, tenants=BOUNDED),
        rules(INTERACTIVE, BULK, NIGHT, tenants=BOUNDED, enforce_limits=False),
    ),
    prompts=(1, 20, 31, 32, 33, 64, 90, 150, 200, 260),
    outputs=(0, 0, 1, 16, 33, 64, 120, 180, 250, 400),
    experience=(1, 8, 8, 16, 16, 16, 33, 64, 120),
)
# Small pools and many slots: what is asked for begins small and comes to more than there is.
CROWDED = Scene(
    (
        facts("a", Pattern.A, {M, K}, block=32, blocks=16, slots=9, **PREDICTED),
        facts("small", Pattern.A, {M}, block=16, blocks=30, slots=7, draft_tokens=3),
    ),
    (
        rules(BULK, replace(NIGHT, max_output_tokens=200)),
        rules(replace(BULK, max_output_tokens=300), replace(NIGHT, priority=0)),
        rules(replace(INTERACTIVE, reserve=Reserve.EXPECTED, preemptible=True), BULK),
        rules(BULK, NIGHT, tenants=BOUNDED),
    ),
    prompts=(1, 8, 20, 31, 33, 64, 90),
    outputs=(0, 64, 180, 250, 400),
    experience=(1, 8, 8, 16),
)
# As in a small fleet, in one that is searched for the best, and in one of which a few are looked at.
PLACEMENTS = (
    Placement,
    lambda: Placement(everyone=0),
    lambda: Placement(everyone=0, thorough=0, looks=2),
)
TIERS = ("interactive", "bulk", "bulk", "night", "", "unknown")
KEYS = ("key-1", "key-2", "key-3", "key-3", "key-unknown")
HASHED = (32, 32, 16)
"""Tokens of the blocks that a client hashes; a pool of others has none of them."""
FAMILIES = 2
"""Prompts of one family begin alike, so that they share the blocks of their prefix."""
AT_MOST = 28
"""Requests that are alive at one moment, so that a walk does not drown in asks."""
