"""What an engine that tells nobody probably keeps: the prompts that were sent there last.

Most engines keep the blocks of what they have read until they need the room, and give up first what was
longest unused. So a router that hears nothing of it can remember what it sent where, and forget as they do:
then prompts that begin alike still meet. It is a guess. Placement goes by it, and so do predictions; no claim
is charged less for it, since what is not there after all would have to be read into blocks of its own.

A prompt counts from when it is sent, not from when it is read: whoever comes next is read behind it.
"""

from collections.abc import Sequence
from itertools import islice

from diplex_core.resident import Kept
from diplex_core.words import BlockHash, Blocks


class History:
    """One worker's probable prefix blocks.

    Args:
        kept: where they are written down; nothing else writes there meanwhile.
    """

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._order: dict[BlockHash, None] = {}  # the longest unused first

    def __len__(self) -> int:
        return len(self._order)

    def sent(self, hashes: Sequence[BlockHash], room: Blocks) -> None:
        """A prompt goes there.

        Args:
            room: blocks that the pool can have of prompts, this one's included, beside what else is held.
        """
        order = self._order
        for block in reversed(hashes):  # of one prompt the last goes first: what is left is a prefix
            order.pop(block, None)
            order[block] = None
        self._kept.take_in(hashes)
        if len(order) > room:
            gone = list(islice(order, len(order) - max(0, room)))
            for block in gone:
                del order[block]
            self._kept.let_go(gone)
