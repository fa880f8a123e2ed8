"""Who waits, in which order: bounded queues, first come first served within each.

A queue is what waits for the same pools: one per (model, tier), and per set of packages where a tenant
is bound to some. So nobody waits behind a request that needs other pools; with one queue for all, a
request for an idle pool was measured to wait 3.6 s behind one for a full pool.
"""

from bisect import insort
from dataclasses import dataclass, field
from typing import NamedTuple

from diplex_core.words import Seconds


class QueueKey(NamedTuple):
    """What a queue's requests have in common. `packages` None: any."""

    model: str
    tier: str
    packages: frozenset[str] | None = None


class Place(NamedTuple):
    """A request's place: by its first arrival, then by its lease, so that asking again keeps it."""

    arrived: Seconds
    lease_id: int


@dataclass(slots=True)
class Queue:
    """One queue. `priority` is its tier's: queues of a higher one are served first."""

    key: QueueKey
    priority: int
    places: list[Place] = field(default_factory=list)

    @property
    def head(self) -> Place | None:
        return self.places[0] if self.places else None


class WaitingRoom:
    """All queues of a router."""

    def __init__(self) -> None:
        self._queues: dict[QueueKey, Queue] = {}
        self._place_of: dict[int, tuple[Queue, Place]] = {}

    def __len__(self) -> int:
        return len(self._place_of)

    def __contains__(self, lease_id: int) -> bool:
        return lease_id in self._place_of

    def waiting(self, key: QueueKey) -> int:
        queue = self._queues.get(key)
        return len(queue.places) if queue else 0

    def enter(self, key: QueueKey, priority: int, place: Place) -> int:
        """Take a place in the order of first arrivals; answers how many are ahead."""
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = Queue(key, priority)
        queue.priority = priority
        insort(queue.places, place)
        self._place_of[place.lease_id] = (queue, place)
        return queue.places.index(place)

    def leave(self, lease_id: int) -> None:
        """Give the place up. Leaving twice does nothing."""
        queue, place = self._place_of.pop(lease_id, (None, None))
        if queue is not None and place is not None:
            queue.places.remove(place)
            if not queue.places:
                del self._queues[queue.key]

    def queues(self) -> list[Queue]:
        """Non-empty queues in the order in which they are served: priority, then oldest head."""
        return sorted(self._queues.values(), key=lambda queue: (-queue.priority, queue.places[0]))
