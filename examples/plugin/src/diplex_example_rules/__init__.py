"""Three rules that a tier may name once this package is installed beside diplex."""

from collections.abc import Sequence
from hashlib import blake2b

from diplex_core.placement.rules import Candidate, PoolView, Score, Wish, Word, need_on


def leaves_a_quarter(wish: Wish, pool: PoolView) -> Word:
    """A quarter of the pool stays free for other tiers, whatever this one asks for."""
    left = pool.ledger.blocks.free - need_on(wish, pool).blocks
    least = pool.facts.usable_blocks // 4
    return None if left >= least else f"would leave {max(0, left)} KV blocks free, {least} stay for others"


def home(wish: Wish, pool: PoolView) -> Score:
    """Each tenant has favourites among the workers: there it meets its own cached prompts again."""
    drawn = blake2b(f"{wish.tenant.name} {pool.name}".encode(), digest_size=8).digest()
    return int.from_bytes(drawn) / 2**64


def two_choices(wish: Wish, candidates: Sequence[Candidate]) -> Candidate:
    """The better of two that are drawn by the request's id: routers that share workers do not all run to one.

    Source: Mitzenmacher, The power of two choices in randomized load balancing, IEEE TPDS 12(10), 2001.
    """
    first, second = wish.lot % len(candidates), wish.lot // 2**32 % len(candidates)
    return max(candidates[first], candidates[second], key=lambda candidate: candidate.total)
