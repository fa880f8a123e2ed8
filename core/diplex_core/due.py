"""What time alone will bring about, by the moment at which it is due.

A hundred thousand requests may wait while a tick looks for the three whose deadline has passed: so the
moments lie on a heap, and only those that have come are touched.
"""

from heapq import heapify, heappop, heappush
from typing import Final

from diplex_core.words import Seconds

_SLACK: Final = 1024
"""So many moments that count no more may lie on the heap beside as many as do."""


class Due:
    """One moment for each lease, by its id."""

    def __init__(self) -> None:
        self._at: dict[int, Seconds] = {}
        self._heap: list[tuple[Seconds, int]] = []  # those that `_at` no longer agrees with count no more

    def __len__(self) -> int:
        return len(self._at)

    def expect(self, lease_id: int, at: Seconds | None) -> None:
        """The lease is to be looked at then, and not when it was expected before; `None`: not at all."""
        if at is None:
            self._at.pop(lease_id, None)
            return
        self._at[lease_id] = at
        heappush(self._heap, (at, lease_id))
        if len(self._heap) > 2 * len(self._at) + _SLACK:
            self._heap = [(at, lease_id) for lease_id, at in self._at.items()]
            heapify(self._heap)

    def by(self, now: Seconds) -> list[int]:
        """The leases whose moment has come, in the order of their ids. They are expected no more."""
        come = []
        while self._heap and self._heap[0][0] <= now:
            at, lease_id = heappop(self._heap)
            if self._at.get(lease_id) == at:
                del self._at[lease_id]
                come.append(lease_id)
        return sorted(come)
