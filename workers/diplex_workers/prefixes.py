"""The prefix blocks that are resident on this worker, on whose word, and what its routers are told of them.

Where the engine publishes events, it is the authority (`residency`). Where it keeps what it reads for as long
as there is room, as simulated engines do, the worker itself keeps the account. Of other engines nobody knows;
routers go by their own history there.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import worker_pb2
from diplex_core.pool import NoRoom, Pool
from diplex_core.sim.prefix_cache import PrefixCache
from diplex_core.words import BlockHash, Blocks, Claim, Slots, Tokens, salted
from diplex_workers.engines.engine import Facts
from diplex_workers.residency import BlockEvent, Residency

Tell: TypeAlias = Callable[[Sequence[BlockHash], Sequence[BlockHash]], None]
"""Told which blocks were stored, and which removed."""


def blocks_of(start: worker_pb2.Start, grant: pb.Grant, block_tokens: Tokens) -> tuple[BlockHash, ...]:
    """What the prompt's whole blocks are known by here, its tenant's salt included. None where the client
    hashed blocks of another size: those are no blocks of this pool."""
    if start.hash_block_tokens not in (0, block_tokens):
        return ()
    return tuple(salted(block, grant.prefix_salt) for block in start.block_hashes)


class Prefixes:
    """What is resident in one pool, for as long as its engine lives.

    Args:
        tell: hears of every change.
        facts: the engine's; `None`: it was never ready.
    """

    def __init__(self, pool: Pool, tell: Tell, facts: Facts | None = None) -> None:
        self._pool = pool
        self._tell = tell
        self._cache = PrefixCache(pool) if facts is not None and facts.keeps_prefixes else None
        self._engine = Residency(facts.block_tokens) if facts is not None and facts.tells_prefixes else None

    @property
    def problem(self) -> str:
        """Why what is told is not to be believed now; empty: it is."""
        return self._engine.problem if self._engine is not None else ""

    @property
    def kept(self) -> Iterable[BlockHash]:
        """All that is resident."""
        if self._cache is not None:
            return self._cache.kept
        return self._engine.kept if self._engine is not None else ()

    def take(
        self,
        claim: Claim,
        blocks: Blocks,
        slots: Slots,
        owner: str,
        hits: Sequence[BlockHash],
        wanted: Blocks,
    ) -> NoRoom | None:
        """Hold what a grant says for its claim, or say why not, and what it then needs.

        Args:
            hits: the leading blocks of its prompt that the grant counts on finding resident, as far as they
                are known by name.
            wanted: how many those are.
        """
        pool = self._pool
        if len(hits) < wanted or (wanted and self.problem):
            return NoRoom(blocks + wanted, pool.free_blocks, slots, pool.free_slots, wanted)
        no_room = pool.take(claim, blocks, slots, owner, hits)
        if no_room is None:
            self.took(hits)
        return no_room

    def took(self, hits: Sequence[BlockHash] = ()) -> None:
        """Claims hold more than before: what nobody uses has to go where its room is needed."""
        if self._cache is not None:
            self._cache.took(hits)
            self._tell_news(self._cache)

    def read(self, own: Sequence[BlockHash]) -> None:
        """A prompt is read, and these of its blocks by itself: whoever comes now can hit them."""
        if self._cache is not None:
            self._cache.read(own)
            self._tell_news(self._cache)

    def left(self, hits: Sequence[BlockHash], own: Sequence[BlockHash]) -> None:
        """A request is over, and its claim released. `own`: what it had read itself."""
        if self._cache is not None:
            self._cache.left(hits, own)

    def heard(self, event: BlockEvent) -> None:
        """The engine says what became of its blocks."""
        if self._engine is None:
            return
        change = self._engine.take(event)
        self._pool.resident.removed(change.removed)
        self._pool.resident.stored(change.stored)
        self._tell(change.stored, change.removed)

    def _tell_news(self, cache: PrefixCache) -> None:
        stored, removed = cache.news()
        if stored or removed:
            self._tell(stored, removed)
