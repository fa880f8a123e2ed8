"""How claims grow: when a sequence asks for more, what a raise changes, and what happens while nobody raises.

A claim that grows holds less than its request may come to need (`diplex_core.growth`). Some tokens before its
limit the sequence asks for its next size. Its router answers with a raise; where the router is not linked,
the claim helps itself from what the pool has free. An engine that can pause lets a sequence wait at its
limit; on one that cannot, it gives way there, and its client asks again with what was produced.
"""

from collections.abc import Callable

from diplex_core import growth
from diplex_core.words import Blocks, Claim, Tokens, blocks_needed
from diplex_workers.account import Account
from diplex_workers.engines.engine import Facts
from diplex_workers.sequence import Sequence


class Growing:
    """The claims of one worker that hold less than they may need.

    Args:
        give_way: ends a sequence that came to its limit, on an engine that cannot pause it.
    """

    def __init__(self, account: Account, give_way: Callable[[Sequence], None]) -> None:
        self._account = account
        self._give_way = give_way
        self._wanting: dict[Claim, Sequence] = {}

    def bound(self, sequence: Sequence, blocks: Blocks) -> Tokens:
        """It holds so many blocks from now on, and may go as far as they last.

        Returns:
            Prompt and output tokens, together, for which that is enough.
        """
        facts = self._facts
        most = blocks_needed(
            sequence.to_read,
            sequence.max_tokens - sequence.from_index,
            facts.block_tokens,
            cached=sequence.cached,
            draft=facts.draft_tokens,
        )
        room = growth.limit(blocks, facts.block_tokens, cached=sequence.cached, draft=facts.draft_tokens)
        self._wanting.pop(sequence.claim, None)
        sequence.wanted, sequence.limit = 0, room if blocks < most else 0
        sequence.asks_at = room - growth.LEAD
        return room

    def came_to(self, sequence: Sequence) -> None:
        """A sequence with a limit is so long that it asks for more, or has to end for want of it."""
        if not sequence.wanted:
            self._want(sequence)
        if sequence.limit and sequence.length >= sequence.limit and not self._facts.can_pause:
            self._give_way(sequence)

    def grew(self, sequence: Sequence) -> None:
        """Its claim has another size: its engine may go on, and in time it asks for the next."""
        self._account.prefixes.took()
        holding = self._account.pool.holding(sequence.claim)
        if holding is None or not sequence.limit:
            return
        self._account.engine.limit(sequence.claim, self.bound(sequence, holding.blocks))
        if sequence.limit and sequence.length >= sequence.asks_at:
            self._want(sequence)

    def ended(self, sequence: Sequence) -> None:
        """What it held is free: those whose router is not there may take it."""
        self._wanting.pop(sequence.claim, None)
        self.help_themselves()

    def help_themselves(self) -> None:
        """Claims whose router is not linked grow from what is free, those that asked first before others."""
        account = self._account
        for sequence in list(self._wanting.values()):
            alone = account.wanted(sequence.claim) and sequence.owner not in account.feeds
            if alone and account.pool.resize(sequence.claim, sequence.wanted) is None:
                self.grew(sequence)

    def _want(self, sequence: Sequence) -> None:
        facts, account = self._facts, self._account
        holding = account.pool.holding(sequence.claim)
        if holding is None or sequence.verdict is not None:
            return
        sequence.wanted = growth.next_size(
            holding.blocks,
            sequence.to_read,
            sequence.max_tokens - sequence.from_index,
            facts.block_tokens,
            cached=sequence.cached,
            draft=facts.draft_tokens,
        )
        self._wanting[sequence.claim] = sequence
        feed = account.feeds.get(sequence.owner)
        if feed is not None:
            feed.wants(sequence.claim)
        else:
            self.help_themselves()

    @property
    def _facts(self) -> Facts:
        if self._account.facts is None:
            raise LookupError("a claim grows before the engine was ready")
        return self._account.facts
