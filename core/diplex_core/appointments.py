"""When to come back: a refusal's `Retry-After` is an appointment, and what it needs is kept until then.

A time that is merely predicted is told to everyone who is refused at that moment, and they all come back at
once. So each refusal books what its request will use, at the rate at which that is served: the next comes
after it. Whoever comes back at its time is known by what it asks for (a fingerprint), and let in ahead of
those who come for the first time; and these do not take what is kept for those due about now. Who does not
come back within `GRACE` is expected no longer; where few come back, little is kept.

Memory is bounded: beyond `MOST` appointments, or `LONGEST` from now, times are told and nothing is kept.
"""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final, NamedTuple, TypeAlias

from diplex_core.words import Seconds, Tokens

EARLY: Final[Seconds] = 0.1
"""A clock may run so much fast while its client waits."""
GRACE: Final[Seconds] = 3.0
"""HTTP tells whole seconds, rounded up, and a message takes its time."""
_LATE: Final[Seconds] = 0.25
"""From then on nothing but a place in the queue is kept for it."""
LONGEST: Final[Seconds] = 600.0
MOST: Final = 65_536
_WORTH_IT: Final = 0.25
_MOST_FAITH: Final = 64.0


class Fingerprint(NamedTuple):
    """What a request that comes back has in common with the one that was refused."""

    tenant: str
    tier: str
    model: str
    prompt: Tokens
    max_tokens: Tokens
    choices: int


_Key: TypeAlias = tuple[Hashable, Fingerprint]
"""Whose an appointment is, and whom it is made with."""


@dataclass(slots=True, eq=False)
class Appointment:
    """A request that was told to come back.

    Attributes:
        at: when.
        since: when it first came.
        tokens: that it will use.
        over: it came, or is expected no longer.
    """

    at: Seconds
    since: Seconds
    tokens: Tokens
    key: _Key
    near: bool = False
    late: bool = False
    over: bool = False


class Kept(NamedTuple):
    """What is kept for those due about now, as far as they are likely to come.

    Attributes:
        requests: these, and those who are late.
        tokens: of those who are due, and not late yet. None where so few come back that room would stand
            empty for them.
    """

    requests: float
    tokens: float


class _Faith:
    """The share of those who were told to come back and did, of late. At first it is small: where nobody
    comes back, nobody is turned away for their sake."""

    def __init__(self) -> None:
        self._came = 0.25
        self._expected = 8.0

    def note(self, came: bool) -> None:
        self._came += came
        self._expected += 1.0
        if self._expected > _MOST_FAITH:
            self._came /= 2
            self._expected /= 2

    @property
    def share(self) -> float:
        return self._came / self._expected


class _Book:
    """The appointments of one queue, or of one tenant's quota, in the order of their times.

    Attributes:
        coming, near, late: those who are due later, about now, and were.
        tokens: of the near ones.
        requests: near and late ones; `all_tokens`: of all.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.tokens: Tokens = 0
        self.all_tokens: Tokens = 0
        self.coming: list[tuple[Seconds, int, Appointment]] = []  # a heap
        self.near: deque[Appointment] = deque()
        self.late: deque[Appointment] = deque()

    @property
    def empty(self) -> bool:
        return not (self.coming or self.near or self.late)

    def look(self, now: Seconds, ahead: Seconds) -> list[Appointment]:
        """Take those near that are due within a while; answers those that are expected no longer."""
        missed = []
        while self.coming and self.coming[0][0] <= now + ahead:
            one = heappop(self.coming)[2]
            if not one.over:
                self.near.append(one)
                self._count(one, 1)
        while self.near and (self.near[0].over or self.near[0].at < now - _LATE):
            one = self.near.popleft()
            if not one.over:
                self._count(one, -1)
                self.late.append(one)
                one.late = True
                self.requests += 1
        while self.late and (self.late[0].over or self.late[0].at < now - GRACE):
            one = self.late.popleft()
            if not one.over:
                self.close(one)
                missed.append(one)
        return missed

    def _count(self, one: Appointment, sign: int) -> None:
        one.near = sign > 0
        self.requests += sign
        self.tokens += sign * one.tokens

    def close(self, one: Appointment) -> None:
        """It is over; it was due by now, or about to be."""
        one.over = True
        self.all_tokens -= one.tokens
        if one.near:
            self._count(one, -1)
        elif one.late:
            self.requests -= 1


class Appointments:
    """All that were made and are not over. Each book is somebody's: a queue's or a quota's."""

    def __init__(self) -> None:
        self._books: dict[Hashable, _Book] = {}
        self._faith: dict[Hashable, _Faith] = {}
        self._made: dict[_Key, deque[Appointment]] = {}
        self._len = 0
        self._made_so_far = 0

    def __len__(self) -> int:
        return self._len

    def make(
        self,
        whose: Hashable,
        mark: Fingerprint,
        tokens: Tokens,
        *,
        rate: float,
        earliest: Seconds,
        now: Seconds,
        starts: Seconds | None = None,
        since: Seconds | None = None,
    ) -> Seconds:
        """When to come back, in seconds from now.

        Args:
            tokens: that the request will use.
            rate: tokens a second that are served.
            earliest: not before this time.
            starts: from when on those are served that were told to come back; `None`: they are already.
            since: when it first came, if it has come back already.
        """
        book = self._books.get(whose)
        if book is None:
            book = self._books[whose] = _Book()
        at = max(earliest, (now if starts is None else starts) + book.all_tokens / rate)
        if at - now > LONGEST or self._len >= MOST:
            return min(at - now, LONGEST)
        key = whose, mark
        self._made_so_far += 1
        one = Appointment(at, now if since is None else since, tokens, key)
        heappush(book.coming, (at, self._made_so_far, one))
        book.all_tokens += tokens
        self._made.setdefault(key, deque()).append(one)
        self._len += 1
        return at - now

    def next(self, whose: Hashable, *, rate: float, earliest: Seconds, now: Seconds) -> Seconds:
        """When the next one would be told to come, not before this time."""
        book = self._books.get(whose)
        return earliest if book is None else max(earliest, now + book.all_tokens / rate)

    def come(self, whose: Hashable, mark: Fingerprint, now: Seconds) -> Appointment | None:
        """A request comes: its appointment if it has one now, which is over with this. `None`: it is new."""
        made = self._made.get((whose, mark))
        if made is None:
            return None
        self._look(whose, now, 0.0)  # whoever is expected no longer
        if not made or made[0].at > now + EARLY:
            return None
        one = made[0]
        self._books[whose].close(one)
        self._forget(one, came=True)
        return one

    def kept(self, whose: Hashable, now: Seconds, ahead: Seconds) -> Kept:
        """What is kept for those that are due now, or will be within a while."""
        book = self._look(whose, now, ahead)
        if book is None or not book.requests:
            return _NOTHING
        share = self._share(whose)
        room = share if share >= _WORTH_IT else 0.0
        return Kept(book.requests * share, book.tokens * room)

    def _share(self, whose: Hashable) -> float:
        faith = self._faith.get(whose)
        return faith.share if faith is not None else _Faith().share

    def all_kept(self, whose: Hashable, now: Seconds) -> float:
        """Tokens that are kept for all who are to come back, whenever."""
        book = self._look(whose, now, 0.0)
        return book.all_tokens * self._share(whose) if book is not None else 0.0

    def tick(self, now: Seconds) -> None:
        """Forget those who did not come."""
        for whose in list(self._books):
            self._look(whose, now, 0.0)

    def _look(self, whose: Hashable, now: Seconds, ahead: Seconds) -> _Book | None:
        book = self._books.get(whose)
        if book is None:
            return None
        for one in book.look(now, ahead):
            self._forget(one, came=False)
        if book.empty:
            del self._books[whose]
            return None
        return book

    def _forget(self, one: Appointment, *, came: bool) -> None:
        """Of those with one fingerprint the first mostly is over before the others."""
        faith = self._faith.get(one.key[0])
        if faith is None:
            faith = self._faith[one.key[0]] = _Faith()
        faith.note(came)
        made = self._made[one.key]
        made.remove(one)
        self._len -= 1
        if not made:
            del self._made[one.key]


_NOTHING: Final = Kept(0.0, 0.0)
