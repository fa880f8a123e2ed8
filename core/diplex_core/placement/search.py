"""The best worker of a large fleet, without asking each.

All promises kept, a score is bounded by what the index knows already: the pattern, the room, what is cached.
So workers are looked at in the order of that bound, and the search is over once nobody's bound beats the best
that was seen. While promises are kept that is the first look, whatever the size of the fleet; and it is the
same worker that would be picked if all were asked.

Where promises break the bound is far away, and looking at all is dear. Up to `Placement.thorough` workers it
is done. In larger fleets a few of each kind are looked at: those with the longest resident prefix, the
roomiest, and the one that will first have read what it has. That the first of two orders come near the best
of all is seen in benchmarks/core/README.md; nothing is left to chance.

A request is not made to wait, nor refused, because the few were no use: then everyone that has room is asked,
until one does not object. The order by room says who that is, mostly nobody. Where they all object, requests
of the same tier that ask no less need not ask them again at once: only where something has opened since, or
after a moment.
"""

from collections.abc import Sequence
from heapq import nsmallest
from math import inf
from operator import attrgetter, itemgetter
from typing import Final, Protocol, TypeAlias

from diplex_core.placement.filters import PATIENCE, ever_fits, slots_for_others
from diplex_core.placement.index import Group, Index, Kind, Member, Vain
from diplex_core.placement.place import Choice, Look, Placement, TierRules, Words
from diplex_core.placement.rules import Candidate, Wish, held_from_the_start, need_on, whole
from diplex_core.prefixes import NOTHING
from diplex_core.words import Blocks, Seconds, Slots

_A_MOMENT: Final[Seconds] = 0.09
"""A router looks at what time has changed ten times a second."""
_FEW: Final = 3
"""So many workers of a kind are looked at for the sake of their resident prefix,"""
_MANY: Final = 64
"""if no more than so many have it; else those that are looked at anyway will be among them."""
_REMEMBERED: Final = 8
"""So many searches in vain are known for a moment, of requests that ask for more or less."""
_HANDFUL: Final = 8
_SOONER: Final = 8
"""So many more are looked at where the best that was seen is late, and another may not be."""

Key: TypeAlias = tuple[float, int]
"""A total, or a bound of it, and a worker's place made negative: of equals the first of the fleet is best."""


def search(placement: Placement, wish: Wish, index: Index, since: int | None = None) -> Choice:
    """The best of the workers that can take the wish now; of equals the first.

    Args:
        since: all objected when so many times something had opened; `None`: nobody was asked.
    """
    return _Search(placement, wish, index).run(since)


def allowed_kinds(placement: Placement, wish: Wish, index: Index) -> Sequence[Kind]:
    """The kinds of workers that may take requests of its model, tier and tenant, whatever their size."""
    packages = wish.tenant.packages
    index.settle()
    what = (wish.model, wish.tier.name, packages, wish.produced > 0)
    known = index.allowed.get(what)
    if known is None or known[0] is not wish.tier:
        groups = index.groups(packages)
        allowed = [g for g in groups if not any(rule(wish, g.largest) for rule in placement.by_rule)]
        rules = placement.rules_of(wish.tier)
        found = []
        for group in allowed:
            scores, most = rules.best(wish, group.largest)
            found.append(Kind(group, group.largest, group.largest.facts, most, scores))
        known = index.allowed[what] = wish.tier, found
    return known[1]


def kinds_for(placement: Placement, wish: Wish, index: Index) -> list[tuple[Kind, Blocks]]:
    """Of these, the ones that could take the wish at some time, going by their largest pool, and the blocks
    that it holds there from its start."""
    kinds: list[tuple[Kind, Blocks]] = []
    least, of_size, needed = wish.least_blocks, (0, 0), 0
    for kind in allowed_kinds(placement, wish, index):
        facts = kind.facts
        size = facts.block_tokens, facts.draft_tokens
        if size != of_size or not wish.stated:
            of_size, needed = size, whole(wish, facts)
        if not ever_fits(wish, facts, needed if needed > least else least):
            continue
        if placement.by_size and any(rule(wish, kind.largest) for rule in placement.by_size):
            continue
        first = needed if wish.expected is None else held_from_the_start(wish, facts)
        kinds.append((kind, first if first > least else least))
    return kinds


def opened_in_vain(placement: Placement, wish: Wish, index: Index, since: int) -> bool:
    """Whether all object on which something opened after so many times. False: one does not, or they are too
    many to ask here."""
    if index.opened - since > _HANDFUL:
        return False
    groups = [kind.group for kind in allowed_kinds(placement, wish, index)]
    rules, of = placement.rules_of(wish.tier), index.of(wish.tenant.packages)
    for who in index.since(since):
        group = of.get(who)
        if group is None or group not in groups or who not in group.rooms:
            continue
        member = group.members[who]
        slots = wish.choices + (slots_for_others(wish, member) if rules.leaves_room else 0)
        if not _has_room(wish, held_from_the_start(wish, member.facts), slots, member):
            continue
        if not any(rule(wish, member) for _, rule in rules.own):
            return False
    return True


class _Search:
    __slots__ = (
        "able", "begun", "best", "index", "key", "leading", "looks", "placement", "rules", "seen", "thorough",
        "wish",
    )  # fmt: skip

    def __init__(self, placement: Placement, wish: Wish, index: Index) -> None:
        self.placement = placement
        self.wish = wish
        self.index = index
        self.rules: TierRules = placement.rules_of(wish.tier)
        self.leading = NOTHING
        self.thorough = len(index) <= placement.thorough
        self.looks: list[Look] = []
        self.seen: set[int] = set()
        self.best: Member | None = None
        self.begun: Group | None = None  # of this kind the roomiest was looked at
        self.able: list[tuple[int, Candidate]] = []  # each with its place, for a tier's own picker
        self.key: Key = (-inf, 0)

    def run(self, since: int | None) -> Choice:
        kinds = kinds_for(self.placement, self.wish, self.index)
        if since is None:
            if self._sees_at_once(kinds):
                return Choice(self.best, Words(self.looks))
            lanes = [_Lane(self, kind, blocks) for kind, blocks in kinds if kind.group.rooms.entries]
            lanes = [lane for lane in lanes if lane.group.some_with_slots(lane.slots)]
            if lanes:
                self._try_all(lanes)
            if self.best is None:
                self._hear_some([kind.group for kind, _ in kinds])
        else:
            self._try_opened(since, [_Lane(self, kind, blocks) for kind, blocks in kinds])
        picker = self.rules.picker
        if picker is not None and self.able:
            able_ones = [candidate for _, candidate in sorted(self.able, key=_BY_PLACE)]
            return Choice(picker(self.wish, able_ones).pool, Words(self.looks))
        able = self.best is None and any(kind.group.stands for kind, _ in kinds)
        return Choice(self.best, Words(self.looks), able)

    def _sees_at_once(self, kinds: Sequence[tuple[Kind, Blocks]]) -> bool:
        """Look at the one with the highest bound of all; False: another may be better."""
        wish, rules = self.wish, self.rules
        if rules.picker is not None or (wish.block_hashes and self.index.leading(wish.block_hashes).levels):
            return False
        highest, at, needed = self.key, None, 0
        for kind, blocks in kinds:
            entries = kind.group.rooms.entries
            if entries:
                figure, who = entries[0]
                bound = kind.most - rules.of_room * figure, -who
                if bound > highest:
                    highest, at, needed = bound, kind, blocks
        if at is None:
            return False
        self.begun, member = at.group, at.group.members[-highest[1]]
        if not wish.stated:
            needed = held_from_the_start(wish, member.facts)
        if not _has_room(wish, needed, self.slots_on(member), member):
            return False
        self.look(member, at)
        return self.key >= highest

    def slots_on(self, member: Member) -> Slots:
        """What must be free on a worker like this one: what the wish needs, and leaves to others."""
        choices = self.wish.choices
        return choices + slots_for_others(self.wish, member) if self.rules.leaves_room else choices

    def _try_all(self, lanes: "list[_Lane]") -> None:
        """Find the best. Where all of a large fleet have objected a moment ago to one that asked no more,
        look only at those on which something has opened since."""
        wish, index = self.wish, self.index
        if self.thorough:
            self._try_best(lanes)
            return
        what, blocks = (wish.model, wish.tier.name, wish.tenant.packages), max(lane.blocks for lane in lanes)
        vains = [vain for vain in index.vain.get(what, ()) if wish.now - vain.at < _A_MOMENT]
        same = [vain for vain in vains if _asks_no_less(wish, blocks, vain)]
        at = wish.now
        if same:
            newest = max(same, key=_BY_OPENED)
            at = newest.at
            self._try_opened(newest.opened, lanes, enough=1)
        else:
            self._try_best(lanes)
            if self.best is None:
                self._try_rest(lanes)
            else:
                self._try_sooner(lanes)
        if self.best is None and self.looks:  # somebody has room, and objects
            vain = Vain(wish.tier, at, wish.prompt, blocks, wish.choices, wish.headed, index.opened)
            index.vain[what] = [vain, *vains[: _REMEMBERED - 1]]

    def _try_opened(self, since: int, lanes: "list[_Lane]", *, enough: float = inf) -> None:
        """Look at those on which something opened after so many times, until so many do not object."""
        index = self.index
        if index.opened - since < _MANY:  # no more than so many
            of = index.of(self.wish.tenant.packages)
            lane_of = {lane.group: lane for lane in lanes}
            for who in index.since(since):
                group = of.get(who)
                lane = lane_of.get(group) if group is not None else None
                if lane is not None and who in lane.group.rooms and who not in self.seen:
                    enough -= self._look_at(who, lane)
                    if enough <= 0:
                        return
            return
        for lane in lanes:
            for who in lane.group.with_slots(lane.slots):
                if who not in self.seen and index.opened_after(since, who):
                    enough -= self._look_at(who, lane)
                    if enough <= 0:
                        return

    def _look_at(self, who: int, lane: "_Lane") -> bool:
        """False: it has no room, or objects."""
        member = lane.group.members[who]
        if not lane.has_room(member):
            return False
        self.look(member)
        return not self.looks[-1].filter

    def _try_best(self, lanes: "list[_Lane]") -> None:
        """Look at workers in the order of their bounds, until none can be better than the best seen. A tier's
        own picker has all of them to choose from, in a large fleet those few that its lanes give."""
        queue: list[_Candidates] = []
        for lane in lanes:
            if lane.opens():
                queue.append(lane)
            queue += lane.holders
        choosy = self.rules.picker is None
        while queue:
            first = queue[0] if len(queue) == 1 else max(queue, key=_BY_KEY)
            if choosy and self.key >= first.key:
                return
            member = first.take()
            if member is not None:
                self.look(member)
            # Where one was as good as its bound, those behind it are no better.
            if (choosy and self.key >= first.key) or not first.advance():
                queue.remove(first)

    def _try_sooner(self, lanes: "list[_Lane]") -> None:
        """The best that was seen is late: look at those that have less to read before."""
        wish, target = self.wish, self.wish.ttft_target
        if self.best is None or target is None:
            return
        predicted, left = self.best.ttft(wish), _SOONER
        if predicted is None or predicted <= target:
            return
        by = wish.now + target - wish.waited
        for lane in lanes:
            for read_by, who in lane.group.reads.entries:
                if read_by > by or not left:
                    break  # too late there, even if it had nothing else to do
                if who not in self.seen and lane.has_room(member := lane.group.members[who]):
                    left -= 1
                    self.look(member)

    def _try_rest(self, lanes: "list[_Lane]") -> None:
        """Ask everyone that has room, until one does not object."""
        for lane in lanes:
            for who in lane.group.with_slots(lane.slots):
                if who not in self.seen:
                    self._look_at(who, lane)
                    if self.best is not None:
                        return

    def _hear_some(self, groups: Sequence[Group]) -> None:
        """Nobody takes it: let one of each kind say why, if it has not."""
        few = [group.members[group.some_up] for group in groups or self.index.groups(None)]
        for member in few[: self.placement.everyone]:
            if member.order not in self.seen:
                objection = self.placement.objection(self.wish, member)
                if objection is not None:
                    self.looks.append(objection)

    def look(self, member: Member, kind: Kind | None = None) -> None:
        """Hear the tier's own filters on a worker that has room, then all scorers.

        Args:
            kind: its own. Where it keeps all promises, and nothing of the prompt is resident, they say of it
                what they say at most of one of that kind, and of its room.
        """
        wish, rules = self.wish, self.rules
        self.seen.add(member.order)
        for name, rule in rules.own:
            if word := rule(wish, member):
                self.looks.append(Look(member.name, name, word, rules))
                return
        if kind is not None and rules.plain and not wish.block_hashes and member.keeps(wish):
            look = rules.praise(wish, member, kind.scores, kind.most)
        else:
            look = rules.look(wish, member)
        self.looks.append(look)
        if rules.picker is not None:
            self.able.append((member.order, Candidate(member, look.total)))
        key = (look.total, -member.order)
        if key > self.key:
            self.best, self.key = member, key


class _Candidates(Protocol):
    """Workers that are looked at one by one. `key`: what the next one's can be at most."""

    key: Key

    def take(self) -> Member | None:
        """The next one, if it has room after all."""

    def advance(self) -> bool:
        """Make the one after it the next; False: there is none."""


_BY_KEY: Final = attrgetter("key")
_BY_OPENED: Final = attrgetter("opened")
_BY_PLACE: Final = itemgetter(0)


class _Lane:
    """The workers of one kind, in the order in which one search looks at them.

    Attributes:
        holders: of these, the few with most of the prompt, each on its own.
        blocks: what the wish needs where nothing is resident.
        slots: that must be free.
        floor: who has less of the pool free has no room for it.
    """

    __slots__ = (
        "_alike", "_at", "_left", "_most", "_share", "_turn", "blocks", "floor", "group", "holders", "key",
        "search", "slots",
    )  # fmt: skip

    def __init__(self, search: _Search, kind: Kind, blocks: Blocks) -> None:
        wish, group = search.wish, kind.group
        self.search = search
        self.group = group
        self.blocks = blocks
        self.key: Key = (inf, 0)
        # Where a pool leaves less than the tier's cap, the wish shrinks to it: each is to be counted itself.
        self._alike = wish.stated or group.least_tokens >= wish.prompt + wish.max_tokens
        self._turn = 1 if group is search.begun else 0
        self._at = self._turn  # in the order by room, of the first that was not looked at
        self._left = inf if search.thorough else search.placement.looks - self._turn
        self._most = kind.most
        self._share = 0.0
        self.slots = search.slots_on(kind.largest)
        self.holders: list[_Holder] = []
        self.floor = 0.0

    def opens(self) -> bool:
        """Get ready to give workers one by one; False: but for its holders there is none."""
        search, cached = self.search, 0
        wish = search.wish
        if wish.block_hashes:
            search.leading = search.index.leading(wish.block_hashes)
            if search.leading.levels:
                cached, common = self._find_holders()
                self._share = self._share_of(common)
        if self._alike:
            group, least = self.group, self.blocks - cached
            of_blocks = (least if least > 1 else 1) / group.most_blocks
            of_slots = self.slots / group.kind.capacity_slots
            self.floor = of_blocks if of_blocks < of_slots else of_slots
        return self.advance()

    def has_room(self, member: Member) -> bool:
        wish = self.search.wish
        return _has_room(
            wish, self.blocks if self._alike else held_from_the_start(wish, member.facts), self.slots, member
        )

    def bound(self, room: float, share: float) -> float:
        """The total of one that keeps all promises: summed up as scores are, so that equals are equal."""
        rules = self.search.rules
        return self._most + rules.of_prefix * share + rules.of_room * room

    def advance(self) -> bool:
        entries, seen = self.group.rooms.entries, self.search.seen
        at = self._at
        while at < len(entries) and entries[at][1] in seen:
            at += 1
        self._at = at
        if at == len(entries) or self._left <= 0:
            return False
        figure, who = entries[at]
        if -figure < self.floor:
            return False
        self.key = (self.bound(-figure, self._share), -who)
        return True

    def take(self) -> Member | None:
        """In a large fleet in turn the roomiest, and the one that will first have read all."""
        group, seen, self._turn = self.group, self.search.seen, self._turn + 1
        self._left -= 1
        who = group.rooms.entries[self._at][1]
        if not self.search.thorough and self._turn % 2 == 0:
            who = next((other for _, other in group.reads.entries[: self._turn] if other not in seen), who)
        else:
            self._at += 1
        member = group.members[who]
        return member if who not in seen and self.has_room(member) else None

    def _find_holders(self) -> tuple[Blocks, Blocks]:
        """Find those with most of the prompt. Answers how many blocks of it others have at most, and for how
        many of them it is worth looking among the others."""
        group, taken = self.group, 0
        levels = self.search.leading.levels
        for at in reversed(range(len(levels))):
            blocks, workers = levels[at]
            left = _FEW - len(self.holders)
            having = group.having(workers & ~taken)
            able = (
                [(f, m) for m in group.holders(workers & ~taken) if (f := group.rooms.of(m.order))]
                if (having <= _MANY)
                else []
            )
            if having > left and (self.search.thorough or having > _MANY):
                return blocks, blocks
            for figure, member in nsmallest(left, able, key=_figure_and_order):
                self._hold(member, -figure, blocks)
            if having > left:  # those that are left have less room, and no more of the prompt
                return blocks, levels[at - 1].blocks if at else 0
            taken |= workers
        return 0, 0

    def _hold(self, member: Member, room: float, blocks: Blocks) -> None:
        self.holders.append(_Holder(self, member, (self.bound(room, self._share_of(blocks)), -member.order)))

    def _share_of(self, blocks: Blocks) -> float:
        prompt, block = self.search.wish.prompt, self.group.kind.block_tokens
        return min(1.0, min(blocks, prompt // block) * block / prompt)


class _Holder:
    """A worker that has much of the prompt."""

    __slots__ = ("key", "lane", "member")

    def __init__(self, lane: _Lane, member: Member, key: Key) -> None:
        self.lane = lane
        self.member = member
        self.key = key

    def take(self) -> Member | None:
        return self.member if self.lane.has_room(self.member) else None

    def advance(self) -> bool:
        return False


def _has_room(wish: Wish, blocks: Blocks, slots: Slots, member: Member) -> bool:
    """Nothing stands against it but what the tier's own filters may say.

    Args:
        blocks: what the wish needs there where nothing is resident.
        slots: that must be free.
    """
    ledger = member.ledger
    if slots > ledger.slots.free:
        return False
    if blocks <= ledger.open_blocks:
        return True
    if not wish.block_hashes:
        return False
    need = need_on(wish, member)
    return ledger.fits(need.blocks, need.slots, need.hits)


def _figure_and_order(one: tuple[float, Member]) -> tuple[float, int]:
    return one[0], one[1].order


def _asks_no_less(wish: Wish, blocks: Blocks, vain: Vain) -> bool:
    """Whether everyone who objected to the other a moment ago will object to this one too."""
    return (
        wish.tier is vain.tier
        and wish.prompt >= vain.prompt
        and blocks >= vain.blocks
        and wish.choices >= vain.choices
        and (wish.headed <= vain.headed or wish.headed < PATIENCE)
    )
