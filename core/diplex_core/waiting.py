"""Who waits, in which order: bounded queues, and in each a line for every tenant.

A queue is what waits for the same pools: one per (model, tier), and per set of packages where a tenant
is bound to some. So nobody waits behind a request that needs other pools; with one queue for all, a
request for an idle pool was measured to wait 3.6 s behind one for a full pool.

A tenant's line is in the order in which its requests are *due*. Between lines, those come first whose head is
*pressed*: less than half of the time to its target is left. Of these, and then of the others, the tenant that
has had least comes first (`fairness`), and of equals whoever is due first.

**Nobody starves.** Within a line only what is due earlier comes before: a request that came later does so
only if its target is as much shorter. Between lines a tenant that waits is passed while another's head is
pressed and its own is not, so for half its target at most; then by counters, which the other's grants raise
and its own waiting does not. So while a request waits, another tenant is granted no more than what waits
before the request in its own line, and the bound of `fairness` twice. A test holds this.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import islice
from math import inf
from typing import Final, NamedTuple

from diplex_core.fairness import Counters
from diplex_core.words import Blocks, Seconds, Tokens


class QueueKey(NamedTuple):
    """What a queue's requests have in common. `packages` None: any."""

    model: str
    tier: str
    packages: frozenset[str] | None = None


class Place(NamedTuple):
    """A request's place: by when it is due, then by its lease, so that asking again keeps it.

    Attributes:
        due: when its first token should come; where nothing is promised, its deadline or its arrival.
        pressed: from when on it comes before other tenants' requests; infinite: never.
        tokens: of its prompt and all its answers, as far as they can be told.
        blocks: that it may come to need; 0 where nobody bounds them.
    """

    due: Seconds
    lease_id: int
    arrived: Seconds = 0.0
    pressed: Seconds = inf
    tokens: Tokens = 0
    blocks: Blocks = 0


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

    def index(self, place: Place) -> int:
        """How many are ahead of it. It must be there."""
        at = bisect_left(self._lasts, place)
        return sum(map(len, self._pieces[:at])) + bisect_left(self._pieces[at], place)

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


@dataclass(slots=True, eq=False)
class Line:
    """What one tenant waits for in one queue. `aside`: it is passed over, for its tenant holds all it may."""

    tenant: str
    counter: float
    places: Places = field(default_factory=Places)
    aside: bool = False
    rank: "_Rank | None" = None


class _Rank(NamedTuple):
    """Where a line stands among those that are as pressed as it is."""

    counter: float
    due: Seconds
    tenant: str


class Queue:
    """One queue. `priority` is its tier's: queues of a higher one are served first.

    Attributes:
        lines: by tenant; none of them empty.
        tried: requests that were tried on every worker and found no room, and how many times room had opened
            anywhere by then.
        reserves: the lease of the head for which a worker may be kept; 0: nobody's.
        since: when that became the head.
        tokens, blocks: that those who wait may come to need; blocks only where they are bounded.
    """

    __slots__ = (
        *("_calm", "_len", "_pressed", "_pressing", "blocks", "key", "lines"),
        *("_in_vain", "priority", "reserves", "since", "tokens", "tried"),
    )

    def __init__(self, key: QueueKey, priority: int) -> None:
        self.key = key
        self.priority = priority
        self.lines: dict[str, Line] = {}
        self.tried: dict[int, int] = {}
        self._in_vain: list[
            tuple[Tokens, int]
        ] = []  # of late: how large it was, and how often room had opened
        self.reserves = 0
        self.since: Seconds = 0.0
        self.tokens: Tokens = 0
        self.blocks: Blocks = 0
        self._len = 0
        self._calm: list[_Rank] = []
        self._pressed: list[_Rank] = []
        self._pressing: list[tuple[Seconds, str]] = []  # heap of when calm lines come to be pressed

    def __len__(self) -> int:
        return self._len

    def __iter__(self) -> Iterator[Place]:
        """All of them, tenant by tenant."""
        for line in self.lines.values():
            yield from line.places

    @property
    def oldest(self) -> Seconds:
        """When the first of those at the head of their tenants' lines arrived."""
        return min(line.places[0].arrived for line in self.lines.values())

    @property
    def due(self) -> Seconds:
        """When the one is due that is served next; at no time where all are passed over."""
        ranks = self._pressed or self._calm
        return ranks[0].due if ranks else inf

    def head(self, now: Seconds) -> Place | None:
        """Who is served next; `None`: everyone's tenant is over its quota."""
        self._press(now)
        ranks = self._pressed or self._calm
        return self.lines[ranks[0].tenant].places[0] if ranks else None

    def first(self, most: int, now: Seconds) -> list[Place]:
        """The head and those behind it, so many in all: the head of each line, then whoever is second."""
        self._press(now)
        ranks = (
            self._pressed + self._calm[: most - len(self._pressed)] if self._pressed else self._calm[:most]
        )
        lines = [self.lines[rank.tenant] for rank in ranks[:most]]
        if len(lines) == 1:
            return list(islice(lines[0].places, most))
        found: list[Place] = []
        running = [iter(line.places) for line in lines]
        while running and len(found) < most:
            left = []
            for places in running:
                if (place := next(places, None)) is not None:
                    found.append(place)
                    left.append(places)
            running = left
        return found[:most]

    def add(self, tenant: str, counter: float, place: Place) -> int:
        """Take it in; answers about how many come before it."""
        line = self.lines.get(tenant)
        if line is None:
            line = self.lines[tenant] = Line(tenant, counter)
        before = line.places.add(place)
        self._len += 1
        self.tokens += place.tokens
        self.blocks += place.blocks
        if before == 0:
            self._file(line)
        return self._served_before(line, before)

    def tries(self, place: Place, opened: int) -> None:
        """One of those that wait was tried on every worker and found no room, when it had opened so many
        times."""
        self.tried[place.lease_id] = opened
        self._in_vain = [one for one in self._in_vain if one[0] < place.tokens]
        self._in_vain.append((place.tokens, opened))

    def tried_in_vain(self, place: Place) -> int | None:
        """How many times room had opened when it, or one that needs no more, found none; `None`: it has not
        been tried."""
        known = self.tried.get(place.lease_id, -1)
        for tokens, opened in self._in_vain:
            if tokens <= place.tokens and opened > known:
                known = opened
        return known if known >= 0 else None

    def forget_tries(self) -> None:
        """Time has passed: what found no room may find some."""
        self._in_vain.clear()

    def standing(self, tenant: str, place: Place) -> int:
        """About how many come before it."""
        line = self.lines[tenant]
        return self._served_before(line, line.places.index(place))

    def _served_before(self, line: Line, before: int) -> int:
        """About how many are served before one that has so many before it in its line: others are served in
        turn with these, and of as many heads some come first."""
        others = self._len - len(line.places)
        if not others:
            return before
        return before + min(others, before * (len(self.lines) - 1) + self._heads_before(line, before))

    def _heads_before(self, line: Line, before: int) -> int:
        if before:
            return len(self.lines) - 1
        if line.rank is None:
            return 0
        if line.rank in self._pressed[:1]:
            return 0
        return len(self._pressed) + bisect_left(self._calm, line.rank)

    def remove(self, tenant: str, place: Place) -> bool:
        """Let it go. It must be there. False: its tenant waits for others here."""
        line = self.lines[tenant]
        was_head = line.places[0] == place
        line.places.remove(place)
        self._len -= 1
        self.tokens -= place.tokens
        self.blocks -= place.blocks
        self.tried.pop(place.lease_id, None)
        if not line.places:
            self._unfile(line)
            del self.lines[tenant]
            return True
        if was_head:
            self._file(line)
        return False

    def recount(self, tenant: str, counter: float) -> None:
        """Its tenant's counter has changed."""
        line = self.lines[tenant]
        line.counter = counter
        self._file(line)

    def set_aside(self, tenant: str, aside: bool) -> None:
        """Its tenant's line is passed over, or not any more."""
        line = self.lines[tenant]
        line.aside = aside
        self._file(line)

    def _file(self, line: Line) -> None:
        """Put a line where it belongs by what is known of it now."""
        self._unfile(line)
        if line.aside:
            return
        head = line.places[0]
        line.rank = rank = _Rank(line.counter, head.due, line.tenant)
        insort(self._calm, rank)
        if head.pressed < inf:
            heappush(self._pressing, (head.pressed, line.tenant))
            if len(self._pressing) > 2 * len(self.lines) + 64:
                self._pressing = sorted(
                    (line.places[0].pressed, line.tenant)
                    for line in self.lines.values()
                    if line.places[0].pressed < inf
                )

    def _unfile(self, line: Line) -> None:
        rank, line.rank = line.rank, None
        if rank is None:
            return
        for ranks in (self._calm, self._pressed):
            at = bisect_left(ranks, rank)
            if at < len(ranks) and ranks[at] == rank:
                del ranks[at]
                return

    def _press(self, now: Seconds) -> None:
        """Move the lines whose head has come to be pressed."""
        while self._pressing and self._pressing[0][0] <= now:
            _, tenant = heappop(self._pressing)
            line = self.lines.get(tenant)
            if line is None or line.rank is None or line.places[0].pressed > now:
                continue  # its head is another by now
            at = bisect_left(self._calm, line.rank)
            if at < len(self._calm) and self._calm[at] == line.rank:
                insort(self._pressed, self._calm.pop(at))


class WaitingRoom:
    """All queues of a router.

    Attributes:
        counters: what each tenant has had.
    """

    def __init__(self) -> None:
        self.counters = Counters()
        self._queues: dict[QueueKey, Queue] = {}
        self._place_of: dict[int, tuple[Queue, str, Place]] = {}
        self._queues_of: dict[str, dict[QueueKey, Queue]] = {}  # by tenant, those in which it waits

    def __len__(self) -> int:
        return len(self._place_of)

    def __contains__(self, lease_id: int) -> bool:
        return lease_id in self._place_of

    def queue(self, key: QueueKey) -> Queue | None:
        """`None`: nobody waits there."""
        return self._queues.get(key)

    def enter(self, key: QueueKey, priority: int, tenant: str, place: Place) -> int:
        """Take a place; answers about how many come before it."""
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = Queue(key, priority)
        queue.priority = priority
        of_tenant = self._queues_of.get(tenant)
        if of_tenant is None:
            of_tenant = self._queues_of[tenant] = {}
            self.counters.waits(tenant)
        of_tenant[key] = queue
        self._place_of[place.lease_id] = (queue, tenant, place)
        return queue.add(tenant, self.counters.of(tenant), place)

    def leave(self, lease_id: int) -> None:
        """Give the place up. Leaving twice does nothing."""
        waits = self._place_of.pop(lease_id, None)
        if waits is None:
            return
        queue, tenant, place = waits
        if queue.remove(tenant, place):
            of_tenant = self._queues_of[tenant]
            del of_tenant[queue.key]
            if not of_tenant:
                del self._queues_of[tenant]
                self.counters.waits_no_more(tenant)
            if not queue.lines:
                del self._queues[queue.key]

    def recount(self, tenant: str) -> None:
        """Its counter has changed: its lines stand elsewhere."""
        if tenant in self._queues_of:
            for queue in self._queues_of[tenant].values():
                queue.recount(tenant, self.counters.of(tenant))

    def standing(self, lease_id: int) -> tuple[int, int]:
        """About how many come before it, and how many wait in its queue, itself included."""
        queue, tenant, place = self._place_of[lease_id]
        return queue.standing(tenant, place), len(queue)

    def headed(self, lease_id: int, now: Seconds) -> Seconds | None:
        """For how long it has been the next of its queue; `None`: it is not."""
        waits = self._place_of.get(lease_id)
        return now - waits[0].since if waits is not None and waits[0].reserves == lease_id else None

    def place_of(self, lease_id: int) -> Place:
        return self._place_of[lease_id][2]

    def is_aside(self, lease_id: int) -> bool:
        """Whether the line in which it waits is passed over."""
        queue, tenant, _ = self._place_of[lease_id]
        return queue.lines[tenant].aside

    def set_aside(self, lease_id: int) -> None:
        """The line in which it waits is passed over until its tenant holds less."""
        queue, tenant, _ = self._place_of[lease_id]
        queue.set_aside(tenant, True)

    def let_in(self, tenant: str) -> None:
        """A tenant holds less than before: none of its lines is passed over."""
        for queue in self._queues_of.get(tenant, {}).values():
            if queue.lines[tenant].aside:
                queue.set_aside(tenant, False)

    def queues(self, owed: Iterable[str] = ()) -> list[Queue]:
        """Non-empty queues in the order in which they are served: those of tiers that are owed their share,
        then by priority, then by who is due first."""
        queues = list(self._queues.values())
        if len(queues) > 1:
            owed = frozenset(owed)
            queues.sort(key=lambda queue: (queue.key.tier not in owed, -queue.priority, queue.due))
        return queues
