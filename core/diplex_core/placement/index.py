"""A fleet in order: what rarely changes is looked up, and who has most room or least to read comes first.

Workers of one *kind* say the same of themselves (`WorkerFacts.kind`), so a filter that looks at facts is
asked once for all of them. Within a kind two orders are kept: by the share of the pool that is free, and by
the moment at which everything granted will have been read. The first answers "nobody has room" with its
first entry, the second bounds from below when a first token can come anywhere.

What changes on a worker is said (`touched`), and taken over when the next request is placed. An order is a
sorted list: an entry is found by bisection, and the rest moved by the C library, which for some thousand
workers is little beside all else that a request costs.

What opens somewhere is numbered, so that whoever was tried in vain before is tried there, and nowhere else.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Protocol, TypeAlias

from diplex_core.events import WorkerFacts
from diplex_core.placement.rules import PoolView, Score, Wish
from diplex_core.prefixes import Leading, Prefixes
from diplex_core.value import value
from diplex_core.words import BlockHash, Blocks, Seconds, Slots, Tier, Tokens

Packages: TypeAlias = frozenset[str] | None
"""Those that a tenant is bound to; `None`: all."""


class Member(PoolView, Protocol):
    """A worker as the index has it."""

    @property
    def order(self) -> int:
        """Its place in the fleet."""

    @property
    def known(self) -> WorkerFacts | None: ...
    @property
    def read_by(self) -> Seconds:
        """When it will have read every prompt that was granted here; long ago where it has."""

    @property
    def bit(self) -> int:
        """Its bit among the holders of prefix blocks."""

    def gone(self, now: Seconds) -> bool: ...
    def keeps(self, wish: Wish) -> bool:
        """Whether, as far as anybody knows, its promises will be kept here, and those made to its neighbours
        of its own tier and higher ones; not on a worker that has just refused it."""


class Order:
    """Members by a figure, the least first, and of equals the first of the fleet."""

    __slots__ = ("_figures", "entries")

    def __init__(self) -> None:
        self.entries: list[tuple[float, int]] = []
        self._figures: dict[int, float] = {}

    def __contains__(self, who: int) -> bool:
        return who in self._figures

    def of(self, who: int) -> float | None:
        """The member's figure."""
        return self._figures.get(who)

    def put(self, who: int, figure: float | None) -> None:
        """Move a member to its figure; `None`: it has none and leaves."""
        old = self._figures.get(who)
        if old == figure:
            return
        entries = self.entries
        if old is not None:
            del entries[bisect_left(entries, (old, who))]
        if figure is None:
            del self._figures[who]
        else:
            self._figures[who] = figure
            insort(entries, (figure, who))


class Group:
    """Workers of one kind, as far as a tenant may use them.

    Attributes:
        kind: what they say of themselves.
        members: by their places in the fleet.
        rooms: those that take requests and have room, by their free share made negative: roomiest first.
    """

    def __init__(self, kind: WorkerFacts) -> None:
        self.kind = kind
        self.members: dict[int, Member] = {}
        self.rooms = Order()
        self._up: set[int] = set()  # those that take requests, with or without room
        self._slots: dict[int, Slots] = {}  # free, of each of `rooms`; and the other way round:
        self._with: dict[Slots, set[int]] = {}
        self._reads = Order()
        self._unread: set[int] = set()  # those whose place among `reads` may be another by now
        self._bits: dict[int, int] = {}  # by member; the other way round:
        self._of_bit: dict[int, Member] = {}
        self._all_bits = 0
        self._sizes: tuple[Member, bool, Blocks, Tokens] | None = None

    def settle(self, member: Member) -> None:
        """Take over what may have changed on a member, or take it in."""
        who, bit = member.order, member.bit
        if who not in self.members:
            self.members[who] = member
            self._sizes = None
        room = 0.0
        if member.trouble:
            self._up.discard(who)
        else:
            self._up.add(who)
            room = member.ledger.room
        self.rooms.put(who, -room or None)
        self._put_slots(who, member.ledger.slots.free if room else 0)
        self._unread.add(who)
        if self._bits.get(who, 0) != bit:
            self._rename(who, member)

    def _put_slots(self, who: int, free: Slots) -> None:
        """Note how many slots are free on a member of `rooms`; 0: it is none of them."""
        before = self._slots.get(who, 0)
        if before == free:
            return
        if before:
            alike = self._with[before]
            alike.discard(who)
            if not alike:
                del self._with[before]
        if free:
            self._slots[who] = free
            self._with.setdefault(free, set()).add(who)
        else:
            del self._slots[who]

    def with_slots(self, slots: Slots) -> Iterator[int]:
        """Those of `rooms` that have so many slots free, the roomiest first where they are not few."""
        having = [alike for free, alike in self._with.items() if free >= slots]
        if 4 * sum(map(len, having)) < len(self.rooms.entries):
            yield from sorted(chain.from_iterable(having))
        else:
            yield from [who for _, who in self.rooms.entries if self._slots[who] >= slots]

    def some_with_slots(self, slots: Slots) -> bool:
        """Whether one of `rooms` has so many slots free."""
        return any(free >= slots for free in self._with)

    def forget(self, who: int) -> None:
        """It is of another kind now, or of another size."""
        self._drop_bit(who, self.members.pop(who))
        self._up.discard(who)
        self.rooms.put(who, None)
        self._put_slots(who, 0)
        self._reads.put(who, None)
        self._unread.discard(who)
        self._sizes = None

    def _rename(self, who: int, member: Member) -> None:
        self._drop_bit(who, member)
        self._bits[who] = member.bit
        self._of_bit[member.bit] = member
        self._all_bits |= member.bit

    def _drop_bit(self, who: int, member: Member) -> None:
        bit = self._bits.pop(who, 0)
        if self._of_bit.get(bit) is member:  # it may be another's by now
            del self._of_bit[bit]
            self._all_bits &= ~bit

    def reads_changed(self, who: int) -> None:
        self._unread.add(who)

    @property
    def reads(self) -> Order:
        """Those of `rooms` by the moment at which they will have read everything: the soonest first."""
        for who in self._unread:
            self._reads.put(who, self.members[who].read_by if who in self.rooms else None)
        self._unread.clear()
        return self._reads

    @property
    def some_up(self) -> int:
        """One that takes requests, or any."""
        return next(iter(self._up or self.members))

    @property
    def stands(self) -> bool:
        """The largest takes requests, or one that is as large."""
        largest, uniform = self._measured()[:2]
        return largest.order in self._up or (uniform and bool(self._up))

    @property
    def largest(self) -> Member:
        """The one with the largest pool, of equals the first."""
        return self._measured()[0]

    @property
    def most_blocks(self) -> Blocks:
        """The capacity of the largest pool, the guard included."""
        return self._measured()[2]

    @property
    def least_tokens(self) -> Tokens:
        """What the smallest pool holds."""
        return self._measured()[3]

    def _measured(self) -> tuple[Member, bool, Blocks, Tokens]:
        if self._sizes is None:
            members = sorted(self.members.values(), key=lambda member: member.order)
            sizes = [member.facts.usable_blocks for member in members]
            self._sizes = (
                members[sizes.index(max(sizes))],
                max(sizes) == min(sizes),
                max(member.facts.capacity_blocks for member in members),
                min(member.facts.usable_tokens for member in members),
            )
        return self._sizes

    def standing(self, now: Seconds) -> list[Member]:
        """Two that stand for all: the largest, and the largest of those worth waiting for, if any is."""
        largest = self.largest
        there = largest if largest.order in self._up else None
        if there is None and self.stands:
            there = self.members[self.some_up]
        if there is None:
            able = (m for m in self.members.values() if not m.gone(now))
            there = max(able, key=lambda m: (m.facts.usable_blocks, -m.order), default=None)
        return [largest] if there is None or there is largest else [largest, there]

    def holders(self, bits: int) -> Iterator[Member]:
        """The members whose bits are among these."""
        bits &= self._all_bits
        while bits:
            least = bits & -bits
            yield self._of_bit[least]
            bits ^= least

    def having(self, bits: int) -> int:
        """How many of the members have their bits among these."""
        return (bits & self._all_bits).bit_count()


@value
class Kind:
    """A group that a tier's rules allow.

    Attributes:
        largest: the one of them with the largest pool.
        facts: what that one says of itself.
        most: what one of them scores at most, but for resident prefix and room.
    """

    group: Group
    largest: Member
    facts: WorkerFacts
    most: float
    scores: Sequence[Score]  # that come to this


@value
class Vain:
    """A search that came to nothing: every worker with room objected.

    Attributes:
        tier, prompt, blocks, choices, headed: of the request.
        at: when all of them had objected.
        opened: how many times something had opened when the last of them did.
    """

    tier: Tier
    at: Seconds
    prompt: Tokens
    blocks: Blocks
    choices: int
    headed: Seconds
    opened: int


class _View:
    """The fleet as far as some packages go."""

    def __init__(self, packages: Packages) -> None:
        self.packages = packages
        self.groups: dict[WorkerFacts, Group] = {}
        self.of: dict[int, Group] = {}

    def take_in(self, member: Member, kind: WorkerFacts) -> None:
        package = member.facts.package
        if self.packages is not None and package not in self.packages:
            return
        group = self.groups.get(kind)
        if group is None:
            group = self.groups[kind] = Group(kind)
        self.of[member.order] = group
        group.settle(member)

    def let_go(self, who: int) -> None:
        group = self.of.pop(who, None)
        if group is not None:
            group.forget(who)
            if not group.members:
                del self.groups[group.kind]


class Index:
    """The workers of a router.

    Attributes:
        version: counts the changes of what workers say of themselves.
        opened: counts how many times something opened anywhere.
        vain: the last searches for a queue's requests that came to nothing, by what was searched for.
        allowed: which groups a tier's rules allow, as far as it was asked since the last change.
    """

    def __init__(self, prefixes: Prefixes) -> None:
        self.version = 0
        self.opened = 0
        self.vain: dict[object, Sequence[Vain]] = {}
        self.allowed: dict[object, tuple[Tier, Sequence[Kind]]] = {}
        self._prefixes = prefixes
        self._members: dict[int, Member] = {}
        self._kinds: dict[int, WorkerFacts] = {}
        self._views: dict[Packages, _View] = {None: _View(None)}
        self._touched: dict[int, None] = {}
        self._opened: dict[int, int] = {}  # by member, when it last opened: the newest at the end

    def __len__(self) -> int:
        return len(self._members)

    def introduced(self, member: Member) -> None:
        """A worker says what it is, for the first time or anew."""
        who, kind = member.order, member.facts.kind
        for view in self._views.values():
            view.let_go(who)
            view.take_in(member, kind)
        self._members[who], self._kinds[who] = member, kind
        self._changed()

    def touched(self, member: Member) -> None:
        """Something on a worker may be another than it was: what is free, whether it takes requests."""
        if member.order in self._members:
            self._touched[member.order] = None

    def read(self, member: Member) -> None:
        """A worker will be done with reading at another moment."""
        for view in self._views.values():
            group = view.of.get(member.order)
            if group is not None:
                group.reads_changed(member.order)

    def opens(self, member: Member) -> None:
        """A worker may take a request that it did not take before."""
        self.opened += 1
        self._opened.pop(member.order, None)
        self._opened[member.order] = self.opened
        self.touched(member)

    def opened_after(self, opened: int, who: int) -> bool:
        """Whether something opened on a member after so many times."""
        return self._opened.get(who, 0) > opened

    def since(self, opened: int) -> list[int]:
        """The members on which something opened after so many times."""
        found = []
        for who, at in reversed(self._opened.items()):
            if at <= opened:
                break
            if who in self._members:
                found.append(who)
        return found

    def room_since(self, opened: int) -> bool:
        """Whether anybody has room of those on which something opened after so many times."""
        for who, at in reversed(self._opened.items()):
            if at <= opened:
                break
            member = self._members.get(who)
            if member is not None and member.ledger.room and not member.trouble:
                return True
        return False

    def rules_changed(self) -> None:
        """Tenants may be bound to other packages than before."""
        self._views = {None: self._views[None]}
        self._changed()

    def _changed(self) -> None:
        self.version += 1
        self.allowed.clear()
        self.vain.clear()

    def groups(self, packages: Packages) -> Sequence[Group]:
        """The workers of some packages by kind, as they are now."""
        self.settle()
        return list(self._view(packages).groups.values())

    def of(self, packages: Packages) -> Mapping[int, Group]:
        """The group of each worker of some packages."""
        self.settle()
        return self._view(packages).of

    def standing(self, packages: Packages, now: Seconds) -> list[Member]:
        """A few workers that stand for all: of each kind the largest, and one worth waiting for; first those
        of the packages, then of all."""
        found = [member for group in self.groups(packages) for member in group.standing(now)]
        if packages is not None:
            found += [m for group in self.groups(None) for m in group.standing(now) if m not in found]
        return sorted(found, key=lambda member: member.order)

    def leading(self, hashes: Sequence[BlockHash]) -> Leading:
        """Who has how many of a prompt's leading blocks."""
        return self._prefixes.leading(hashes)

    def _view(self, packages: Packages) -> _View:
        view = self._views.get(packages)
        if view is None:
            view = self._views[packages] = _View(packages)
            for who in sorted(self._members):
                view.take_in(self._members[who], self._kinds[who])
        return view

    def settle(self) -> None:
        """Take over what was said to have changed."""
        if not self._touched:
            return
        for view in self._views.values():
            for who in self._touched:
                group = view.of.get(who)
                if group is not None:
                    group.settle(self._members[who])
        self._touched.clear()
