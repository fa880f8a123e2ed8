"""The filters. The first group says what a pool is, and rarely changes; the second, how it is now."""

from diplex_core.events import WorkerFacts
from diplex_core.placement.rules import PoolView, Wish, Word, filter_, need_on, output_with, whole
from diplex_core.words import Blocks, Seconds, Slots

# These look at a request's model, tier and tenant and at a worker's facts, and at no size.
BY_RULE = ("model", "pattern", "tier", "tenant", "can_resume")
# Objections of these never go away by waiting either: they look at a request's size, and at facts.
BY_SIZE = ("context_fits", "pool_fits", "slots_fit")
LASTING = (*BY_RULE, *BY_SIZE)
# Objections of these may. The index answers for the first three.
INDEXED = ("healthy", "kv_fits", "slot_free")
PASSING = (*INDEXED, "spares_reserved")
# Objections of the others too; they are asked where a tier names them.

PATIENCE: Seconds = 1.0
"""So long a request waits for streams that its prompt would slow: it is put off, never starved."""
LONG_PATIENCE: Seconds = 10.0
"""So long the next of a queue leaves room for requests of a higher tier that have not come yet."""


@filter_("model")
def model(wish: Wish, pool: PoolView) -> Word:
    """The worker serves the model."""
    return None if wish.model in pool.facts.models else f"serves {', '.join(sorted(pool.facts.models))}"


@filter_("pattern")
def pattern(wish: Wish, pool: PoolView) -> Word:
    """The tier allows the worker's pattern."""
    if pool.facts.pattern in wish.tier.patterns:
        return None
    return f"pattern {pool.facts.pattern}; tier {wish.tier.name} allows {', '.join(wish.tier.patterns)}"


@filter_("tier")
def tier(wish: Wish, pool: PoolView) -> Word:
    """The worker is open to the tier."""
    if not pool.facts.tiers or wish.tier.name in pool.facts.tiers:
        return None
    return f"serves tiers {', '.join(sorted(pool.facts.tiers))} only"


@filter_("tenant")
def tenant(wish: Wish, pool: PoolView) -> Word:
    """The tenant may use the package."""
    packages = wish.tenant.packages
    if packages is None or pool.facts.package in packages:
        return None
    return f"tenant {wish.tenant.name} is bound to {', '.join(sorted(packages))}"


@filter_("can_resume")
def can_resume(wish: Wish, pool: PoolView) -> Word:
    """The engine can go on behind what an earlier attempt produced."""
    return "cannot go on behind given output" if wish.produced and not pool.facts.can_resume else None


@filter_("context_fits")
def context_fits(wish: Wish, pool: PoolView) -> Word:
    """Prompt and output fit the engine's context."""
    want, have = wish.prompt + output_with(wish, pool.facts), pool.facts.context
    return None if not have or want <= have else f"needs a context of {want} tokens, has {have}"


@filter_("pool_fits")
def pool_fits(wish: Wish, pool: PoolView) -> Word:
    """The empty pool could hold it."""
    # What it hits lies in the same pool, and what grows may come to need it all.
    blocks, have = max(whole(wish, pool.facts), wish.least_blocks), pool.facts.usable_blocks
    return None if blocks <= have else f"needs {blocks} KV blocks, the whole pool has {have}"


@filter_("slots_fit")
def slots_fit(wish: Wish, pool: PoolView) -> Word:
    """The engine runs as many sequences at once as the request has choices."""
    have = pool.facts.capacity_slots
    return None if wish.choices <= have else f"needs {wish.choices} sequence slots, the engine has {have}"


def ever_fits(wish: Wish, facts: WorkerFacts, blocks: Blocks) -> bool:
    """What the three above say together; `blocks`: what it needs where nothing is resident."""
    return (
        (not facts.context or wish.prompt + output_with(wish, facts) <= facts.context)
        and blocks <= facts.usable_blocks
        and wish.choices <= facts.capacity_slots
    )


@filter_("healthy")
def healthy(wish: Wish, pool: PoolView) -> Word:
    """The worker is linked, its engine answers, and it is not draining."""
    return pool.trouble or None


@filter_("kv_fits")
def kv_fits(wish: Wish, pool: PoolView) -> Word:
    """The pool has the blocks that the tier's reserve policy asks for."""
    need = need_on(wish, pool)
    if pool.ledger.fits(need.blocks, 0, need.hits):
        return None
    return f"needs {need.blocks} KV blocks, {pool.ledger.open_blocks} are free"


@filter_("slot_free")
def slot_free(wish: Wish, pool: PoolView) -> Word:
    """The engine has a sequence slot for each choice."""
    free = pool.ledger.slots.free
    return None if wish.choices <= free else f"needs {wish.choices} sequence slots, {free} are free"


@filter_("spares_reserved")
def spares_reserved(wish: Wish, pool: PoolView) -> Word:
    """It does not put off a request that the pool is kept for."""
    kept = pool.reserved
    if kept is None or not kept.binds(wish.lease_id, wish.tier.priority, wish.owed):
        return None
    need = need_on(wish, pool)
    if kept.leaves(need.blocks, need.slots, pool.over(wish)):
        return None
    return f"kept for one that needs {kept.blocks} KV blocks, and leaves {kept.start.spare_blocks} beside it"


@filter_("keeps_ttft")
def keeps_ttft(wish: Wish, pool: PoolView) -> Word:
    """The first token is predicted within the tier's target."""
    return _late("first token", wish.ttft_target, pool.ttft(wish))


@filter_("keeps_tpot")
def keeps_tpot(wish: Wish, pool: PoolView) -> Word:
    """The time per output token is predicted within the tier's target."""
    return _late("token", wish.promise.tpot_p95, pool.tpot(wish))


@filter_("spares_streams")
def spares_streams(wish: Wish, pool: PoolView) -> Word:
    """Its prompt would not slow a resident stream of a higher tier beyond what that was promised, or it has
    waited a second for that."""
    harmed = pool.harmed(wish, wish.tier.priority + 1) if wish.headed < PATIENCE else 0
    return f"would slow {harmed} streams of a higher tier beyond their promise" if harmed else None


@filter_("leaves_room")
def leaves_room(wish: Wish, pool: PoolView) -> Word:
    """It leaves room for the next request of a higher tier, where such came of late; unless its tier is owed
    its least share, it has been the next for ten seconds, or it was of such a tier itself."""
    return (pool.crowds(wish) or None) if _is_to_leave_room(wish) else None


def slots_for_others(wish: Wish, pool: PoolView) -> Slots:
    """By the least that `leaves_room` asks for: sequence slots that are to stay free on such a worker."""
    return pool.slots_for_others(wish) if _is_to_leave_room(wish) else 0


def _is_to_leave_room(wish: Wish) -> bool:
    return not wish.owed and not wish.degraded_from and wish.headed < LONG_PATIENCE


def _late(what: str, target: Seconds | None, predicted: Seconds | None) -> Word:
    if target is None or predicted is None or predicted <= target:
        return None
    return f"{what} in {predicted * 1000:.0f} ms predicted, {target * 1000:.0f} ms promised"
