"""Who waits, in which order: bounded queues, first come first served within each.

A queue is what waits for the same pools: one per (model, tier), and per set of packages where a tenant
is bound to some. So nobody waits behind a request that needs other pools; with one queue for all, a
request for an idle pool was measured to wait 3.6 s behind one for a full pool.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

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


_PIECE: Final = 512


class Places:
    """Places in order, cut into pieces of some hundred, so that one comes or goes and the rest stay.

    Nearly all come at the end and leave at the front. Elsewhere the piece is found by bisection.
    """

    __slots__ = ("_lasts", "_len", "_pieces")

    def __init__(self) -> None:
        self._pieces: list[list[Place]] = []  # none of them empty
        self._lasts: list[Place] = []  # of each piece its last place
        self._len = 0

    def __len__(self) -> int:
        return self._len

    def __iter__(self) -> Iterator[Place]:
        for piece in self._pieces:
            yield from piece

    def __getitem__(self, index: int) -> Place:
        for piece in self._pieces:
            if index < len(piece):
                return piece[index]
            index -= len(piece)
        raise IndexError(index)

    def add(self, place: Place) -> int:
        """Take it in; answers how many are ahead."""
        self._len += 1
        if not self._lasts or place > self._lasts[-1]:
            if not self._pieces or len(self._pieces[-1]) >= _PIECE:
                self._pieces.append([])
                self._lasts.append(place)
            self._pieces[-1].append(place)
            self._lasts[-1] = place
            return self._len - 1
        at = bisect_left(self._lasts, place)
        piece = self._pieces[at]
        within = bisect_left(piece, place)
        piece.insert(within, place)
        ahead = sum(map(len, self._pieces[:at])) + within
        if len(piece) > 2 * _PIECE:
            self._pieces[at : at + 1] = [piece[:_PIECE], piece[_PIECE:]]
            self._lasts.insert(at, piece[_PIECE - 1])
        return ahead

    def remove(self, place: Place) -> None:
        """Let it go. It must be there."""
        at = bisect_left(self._lasts, place)
        piece = self._pieces[at]
        del piece[bisect_left(piece, place)]
        self._len -= 1
        if piece:
            self._lasts[at] = piece[-1]
        else:
            del self._pieces[at], self._lasts[at]


@dataclass(slots=True)
class Queue:
    """One queue. `priority` is its tier's: queues of a higher one are served first.

    Attributes:
        tried: the lease at its head that was tried on every worker, and found no room.
        tried_at: how many times room had opened anywhere by then.
    """

    key: QueueKey
    priority: int
    places: Places = field(default_factory=Places)
    tried: int = 0
    tried_at: int = 0

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

    def standing(self, lease_id: int) -> tuple[int, int]:
        """How many come before it, and how many wait in its queue, itself included."""
        queue, mine = self._place_of[lease_id]
        return sum(place < mine for place in queue.places), len(queue.places)

    def waiting(self, key: QueueKey) -> int:
        queue = self._queues.get(key)
        return len(queue.places) if queue else 0

    def enter(self, key: QueueKey, priority: int, place: Place) -> int:
        """Take a place in the order of first arrivals; answers how many are ahead."""
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = Queue(key, priority)
        queue.priority = priority
        self._place_of[place.lease_id] = (queue, place)
        return queue.places.add(place)

    def leave(self, lease_id: int) -> None:
        """Give the place up. Leaving twice does nothing."""
        queue, place = self._place_of.pop(lease_id, (None, None))
        if queue is not None and place is not None:
            queue.places.remove(place)
            if not queue.places:
                del self._queues[queue.key]

    def queues(self) -> list[Queue]:
        """Non-empty queues in the order in which they are served: priority, then oldest head."""
        queues = list(self._queues.values())
        if len(queues) > 1:
            queues.sort(key=lambda queue: (-queue.priority, queue.places[0]))
        return queues
