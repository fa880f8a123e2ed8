"""The scorers, and the weights they have unless a configuration says otherwise."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from diplex_core.placement.rules import PoolView, Score, Wish, scorer
from diplex_core.words import Seconds, Tokens

# What a tier's rules may change. A worker that has just refused comes last; then broken promises count, at
# least 4 each: a neighbour's, who is there already, a little more than the request's own; then the tier's
# order of patterns (1/n of 2 for each place lost, so 1 for a tier that names two), what is cached of the
# prompt, balance, and room: all four together less than one promise.
# benchmarks/prefill_budget and benchmarks/prefix show what comes of them on a trace.
WEIGHTS: Final[Mapping[str, float]] = MappingProxyType(
    {
        "not_refused": 64.0,
        "ttft": 8.0,
        "tpot": 8.0,
        "neighbours": 10.0,
        "preferred_pattern": 2.0,
        "prefix": 1.0,
        "balance": 0.75,
        "room": 0.5,
    }
)

_LATE: Final = 0.5
"""The most that a prediction beyond its target scores; the later, the less."""
_AHEAD: Final = 0.1
"""By such a share of what its peers were given to read a worker may be ahead of them,"""
_A_FEW_PROMPTS: Final[Tokens] = 20_000
"""and by so much more: where little is read, one prompt is no imbalance."""
_HARDLY: Final = 0.1
"""So much of that speaks against nobody: half of all workers are ahead of the mean by something, and a search
ends with the first that nothing speaks against."""


@scorer("preferred_pattern")
def preferred_pattern(wish: Wish, pool: PoolView) -> Score:
    """The nearer the worker's pattern is to the head of the tier's list, the better."""
    patterns = wish.tier.patterns
    return 1 - patterns.index(pool.facts.pattern) / len(patterns) if pool.facts.pattern in patterns else 0.0


@scorer("room")
def room(wish: Wish, pool: PoolView) -> Score:
    """The share of the pool that is free, on the scarcer of its two axes."""
    return pool.ledger.room


@scorer("prefix")
def prefix(wish: Wish, pool: PoolView) -> Score:
    """The share of the prompt that is resident there, and need not be read."""
    if not wish.block_hashes:
        return 0.0
    return min(1.0, pool.cached(wish) * pool.facts.block_tokens / wish.prompt)


@scorer("balance")
def balance(wish: Wish, pool: PoolView) -> Score:
    """1 where hardly more was given to read of late than to its peers in the mean; 0 from a tenth more on.

    Up to there prompts go where they begin; beyond, one that is resident there in part goes elsewhere, and so
    its beginning comes to be in two places where one cannot bear it. A prompt that nobody hashed is drawn
    nowhere: it goes by room, and speaks neither for nor against a worker here.
    Source: Mirrokni, Thorup, Zadimoghaddam, "Consistent hashing with bounded loads" (SODA 2018), the bound;
        Srivatsa et al., "Preble" (2024), reading of late as the load.
    """
    if not wish.block_hashes:
        return 1.0
    own, mean = pool.given(wish)
    borne = _AHEAD * mean + _A_FEW_PROMPTS
    beyond = own - mean - _HARDLY * borne
    return 1.0 if beyond <= 0 else max(0.0, 1.0 - beyond / borne)


@scorer("not_refused")
def not_refused(wish: Wish, pool: PoolView) -> Score:
    """Not the worker that has just refused this request, while another can take it."""
    return 0.0 if pool.name == wish.avoid else 1.0


@scorer("ttft")
def ttft(wish: Wish, pool: PoolView) -> Score:
    """1 where the first token is predicted within its target; the later beyond it, the less. What nobody can
    predict, or nothing was promised of, speaks neither for nor against a worker."""
    return _against(wish.ttft_target, pool.ttft(wish))


@scorer("tpot")
def tpot(wish: Wish, pool: PoolView) -> Score:
    """The same of the time per output token."""
    return _against(wish.promise.tpot_p95, pool.tpot(wish))


@scorer("neighbours")
def neighbours(wish: Wish, pool: PoolView) -> Score:
    """Its prompt is read between the tokens of whoever is there: the fewer promises that breaks, of its own
    tier or a higher one, the better."""
    return 1.0 / (1 + pool.harmed(wish, wish.tier.priority))


def _against(target: Seconds | None, predicted: Seconds | None) -> Score:
    if target is None or predicted is None or predicted <= target:
        return 1.0
    return _LATE * target / predicted
