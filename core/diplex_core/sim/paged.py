"""The simulated engine's own KV cache: numbered blocks that are handed out and come back."""

from collections.abc import Iterable

from diplex_core.words import Blocks


class Overrun(AssertionError):
    """A sequence came to more KV than it was admitted with: an account somewhere is wrong."""


class PagedCache:
    """A fixed number of blocks. What is out is what the engine observes."""

    def __init__(self, capacity: Blocks) -> None:
        self.capacity = capacity
        self.used: Blocks = 0
        self.peak: Blocks = 0
        self._returned: list[int] = []
        self._never_used = 0

    def take(self) -> int:
        """A free block's number.

        Raises:
            Overrun: every block is out.
        """
        if self._returned:
            block = self._returned.pop()
        elif self._never_used < self.capacity:
            block = self._never_used
            self._never_used += 1
        else:
            raise Overrun(f"all {self.capacity} KV blocks are in use, and a running sequence needs one more")
        self.used += 1
        self.peak = max(self.peak, self.used)
        return block

    def give_back(self, blocks: Iterable[int]) -> None:
        before = len(self._returned)
        self._returned.extend(blocks)
        self.used -= len(self._returned) - before
