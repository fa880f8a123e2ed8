"""The scorers, and the weights they have unless a configuration says otherwise."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from diplex_core.placement.rules import PoolView, Score, Wish, scorer

# A tier's order of patterns stands above everything that room can add: 1/n of 2 for each place lost is
# never made up by a share of 1, as long as a tier names two patterns.
WEIGHTS: Final[Mapping[str, float]] = MappingProxyType(
    {"preferred_pattern": 2.0, "room": 1.0, "not_refused": 4.0}
)


@scorer("preferred_pattern")
def preferred_pattern(wish: Wish, pool: PoolView) -> Score:
    """The nearer the worker's pattern is to the head of the tier's list, the better."""
    patterns = wish.tier.patterns
    return 1 - patterns.index(pool.facts.pattern) / len(patterns) if pool.facts.pattern in patterns else 0.0


@scorer("room")
def room(wish: Wish, pool: PoolView) -> Score:
    """The share of the pool that is free, on the scarcer of its two axes."""
    axes = (pool.ledger.blocks, pool.ledger.slots)
    return min(axis.free / axis.capacity if axis.capacity else 0.0 for axis in axes)


@scorer("not_refused")
def not_refused(wish: Wish, pool: PoolView) -> Score:
    """Not the worker that has just refused this request, while another can take it."""
    return 0.0 if pool.name == wish.avoid else 1.0
