"""The workers as a router knows them: their links, their words of themselves, and their pools' accounts."""

from collections import Counter
from dataclasses import dataclass, field, replace
from math import inf
from typing import Final

from diplex_core.backfill import Reservation
from diplex_core.demand import Demand, Wanted
from diplex_core.events import EndedClaim, Report, WorkerFacts
from diplex_core.growing import Growing
from diplex_core.guests import Guest, Guests
from diplex_core.history import History
from diplex_core.ledger import PoolLedger
from diplex_core.lessons import Lessons
from diplex_core.model.forecast import Forecast, Load, Outlook
from diplex_core.peers import Share
from diplex_core.placement.filters import PATIENCE
from diplex_core.placement.rules import Need, Wish, need_on
from diplex_core.prefixes import Shelf
from diplex_core.resident import Alone
from diplex_core.words import Blocks, Claim, Seconds, Slots, Tokens

GIVEN_UP_AFTER: Seconds = 3.0
"""A worker without a link for this long is given up: its claims are freed, its leases closed."""

_DRIFT_BORNE: Final = 0.05
"""A share of the pool by which two accounts may differ: reports are on their way, and claims with them."""

_SPARE: Final = 0.8
"""Of a promised time per token so much may be used up by a lower tier: predictions are off by some percent,
and prompts that come a moment later slow everybody once more."""
_SMALL: Final = 8
"""Room for one more is left where it is no more than so small a part of all."""
_A_MOMENT: Seconds = 1e-4
_LIKELY_OUTPUT: Tokens = 128
"""An answer's length is not known before it ends; it is taken to be no longer than this."""


@dataclass(slots=True)
class Worker:
    """One worker's record. Its claims are charged in `ledger`, from one boot of the worker to the next."""

    name: str
    order: int = 0  # its place in the fleet: of equals the first is picked
    shelf: Shelf | None = None  # its part of the index of prefix blocks
    known: WorkerFacts | None = None
    ledger: PoolLedger = field(default_factory=lambda: PoolLedger(0, 0))
    guests: Guests = field(default_factory=Guests)
    demand: Demand = field(default_factory=Demand)  # of all workers together
    reserved: Reservation | None = None  # it is kept for a request that waits for room
    growing: Growing = field(default_factory=Growing)
    forecast: Forecast | None = None  # nobody knows how fast a worker without one is
    lessons: Lessons = field(default_factory=Lessons)
    share: Share = field(default_factory=Share)
    history: History | None = None  # of what goes on its shelf, where it does not say what it keeps
    linked: bool = False
    given_up: bool = False
    lost_at: Seconds = 0.0
    problem: str = "no link yet"
    engine_problem: str = ""
    engine_alarm: str = ""  # what is wrong with its engine although it answers, as it says
    residency_problem: str = ""  # why its prefix blocks are guessed; empty: it tells them, or never does
    engine_lost_at: Seconds = 0.0
    draining: bool = False
    last_number: int = 0
    reported_at: Seconds | None = None
    uptime_offset: Seconds = 0.0  # the worker's clock less ours
    peak_blocks: int = 0
    peak_slots: int = 0
    requests: int = 0
    requests_by_tier: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    output_tokens: int = 0
    mismatched: int = 0  # requests whose prompt was hashed in blocks of another size than its own
    drift: Blocks = 0  # by which its last full report and this account differ
    facts: WorkerFacts = field(init=False)  # `known`, where it has said anything
    _seen: tuple[Wish, Outlook] | None = None

    def __post_init__(self) -> None:
        if self.known is not None:
            self.facts = self.known

    def introduce(self, facts: WorkerFacts) -> None:
        """It says what it is."""
        self.known = self.facts = facts

    def open_account(self) -> None:
        """It has started anew, or its pool has another size: nothing is charged, and nothing resident."""
        facts, self.history = self.facts, None
        if self.shelf is not None:
            self.shelf.clear()
        self.ledger = PoolLedger(facts.capacity_blocks, facts.capacity_slots, facts.guard_blocks, self.shelf)
        if not facts.reports_residency:
            self._guess()

    def _guess(self) -> None:
        """Nobody can tell from now on what is resident: go by what is sent there, and charge nothing less."""
        if self.shelf is not None:
            self.shelf.clear()
        self.history = History(self.shelf if self.shelf is not None else Alone())
        self.ledger.counts_on(Alone())

    @property
    def trouble(self) -> str:
        """Why it takes nothing new, as a user may read it; empty: it does."""
        if self.given_up or not self.linked:
            return self.problem or "no link"
        if self.engine_problem:
            return self.engine_problem
        return "draining" if self.draining else ""

    def gone(self, now: Seconds) -> bool:
        """Not worth waiting for: given up, or its engine has been silent for as long."""
        return self.given_up or (bool(self.engine_problem) and now - self.engine_lost_at >= GIVEN_UP_AFTER)

    # What placement asks.

    def ttft(self, wish: Wish) -> Seconds | None:
        """From its first ask to its first token, if it is granted here now; `None`: nobody knows."""
        seen = self._seen
        outlook = seen[1] if seen is not None and seen[0] is wish else self._outlook(wish)
        return wish.now - wish.arrived + outlook.ttft if outlook is not None else None

    def tpot(self, wish: Wish) -> Seconds | None:
        """Time per output token after the first; `None`: nobody knows."""
        seen = self._seen
        outlook = seen[1] if seen is not None and seen[0] is wish else self._outlook(wish)
        return outlook.tpot if outlook is not None else None

    def harmed(self, wish: Wish, priority: int) -> int:
        """Resident streams of this priority or a higher one whose promised time per output token reading the
        wish's prompt would break, as far as anybody knows."""
        outlook = self._outlook(wish)
        return self.guests.harmed(outlook.reading, priority, wish.now) if outlook is not None else 0

    def keeps(self, wish: Wish) -> bool:
        """Whether, as far as anybody knows, its promises will be kept here, and those made to its neighbours
        of its own tier and higher ones; not on a worker that has just refused it."""
        if self.name == wish.avoid:
            return False
        outlook = self._outlook(wish)
        if outlook is None:
            return True
        target, tpot, now = wish.ttft_target, wish.promise.tpot_p95, wish.now
        return (
            (target is None or now - wish.arrived + outlook.ttft <= target)
            and (tpot is None or outlook.tpot <= tpot)
            and not self.guests.harmed(outlook.reading, wish.tier.priority, now)
        )

    def slots_for_others(self, wish: Wish) -> Slots:
        """Sequence slots that it has to leave free for the next request of a higher tier."""
        if self.facts.capacity_slots < _SMALL:
            return 0
        above = self.demand.above(wish.tier.priority, wish.now)
        return 1 if any(self._may_serve(wanted) for wanted in above) else 0

    def _may_serve(self, wanted: Wanted) -> bool:
        facts, tier = self.facts, wanted.tier
        return (
            wanted.model in facts.models
            and facts.pattern in tier.patterns
            and (not facts.tiers or tier.name in facts.tiers)
        )

    def crowds(self, wish: Wish) -> str:
        """What it would leave too little of for the next request of a higher tier; empty: nothing."""
        facts, ledger = self.facts, self.ledger
        for wanted in self.demand.above(wish.tier.priority, wish.now):
            if not self._may_serve(wanted):
                continue
            if ledger.slots.free <= wish.choices and facts.capacity_slots >= _SMALL:
                return f"would leave no sequence slot for tier {wanted.tier.name}"
            left = ledger.open_blocks - need_on(wish, self).blocks
            if left * facts.block_tokens < wanted.tokens <= facts.usable_tokens / _SMALL:
                return f"would leave {left} KV blocks, too few for tier {wanted.tier.name}"
            if late := self._delays(wish, wanted):
                return late
        return ""

    def _delays(self, wish: Wish, wanted: Wanted) -> str:
        """What the next request of a higher tier would be promised in vain beside it."""
        outlook = self._outlook(wish)
        if outlook is None:
            return ""
        promise = wanted.tier.promise_for(wanted.model)
        runs = wanted.counts_on(self.facts.pattern, wish.now)
        if runs and promise.tpot_p95 is not None and outlook.tpot > _SPARE * promise.tpot_p95:
            return f"would slow the next of tier {wanted.tier.name} beyond its time per token"
        if promise.ttft_p95 is None:
            return ""
        prompt = int(wanted.prompt)
        own = outlook.reading.seconds * prompt / wish.prompt
        # One that is too long by itself goes when nothing else is to be read there, after a little wait.
        alone = self.guests.read_by <= wish.now and wish.waited >= PATIENCE
        if outlook.ttft + own > promise.ttft_p95.at(prompt) and not alone:
            return f"would hold up the first token of the next of tier {wanted.tier.name}"
        return ""

    def over(self, wish: Wish) -> Seconds | None:
        """When it will be over, if it is granted here now; `None`: nobody knows."""
        outlook = self._outlook(wish)
        return wish.now + self._takes(wish, outlook) if outlook is not None else None

    def serves(self, wish: Wish, tokens: Tokens) -> float | None:
        """Tokens a second that it serves of such requests, of so many tokens each, when it is full of them;
        `None`: nobody knows. Either its room bounds that, or the time in which it reads their prompts."""
        outlook = self._outlook(wish)
        if outlook is None:
            return None
        room = min(self.facts.usable_tokens, self.facts.capacity_slots * tokens)
        alone = self._takes(wish, outlook) - self.guests.backlog(wish.now)
        return min(room / max(alone, _A_MOMENT), tokens / max(outlook.reading.seconds, _A_MOMENT))

    def _takes(self, wish: Wish, outlook: Outlook) -> Seconds:
        """From its grant to its last token, by the length of such answers, or the most that was asked for."""
        output = wish.max_tokens if wish.likely is None else min(wish.likely, wish.max_tokens)
        return outlook.ttft + (output - 1) * outlook.tpot

    def cached(self, wish: Wish) -> Blocks:
        """Leading blocks of its prompt that are resident here, or probably are."""
        size = self.facts.block_tokens
        hashes = wish.hashes_of(size)
        if not hashes or self.shelf is None:
            return 0
        return min(self.shelf.leading(hashes), wish.prompt // size)

    def given(self, wish: Wish) -> tuple[float, float]:
        """Prompt tokens that it was given to read of late, and the mean of the workers of its kind."""
        return self.share.beside(wish.now)

    def receive(self, claim: Claim, wish: Wish, need: Need) -> None:
        """A wish is granted here: charged, and a guest from now on, on whom others depend."""
        outlook, promised = self._outlook(wish), wish.promise.tpot_p95
        to_read = wish.prompt - self._resident_tokens(len(need.hits), wish)
        guest = Guest(wish.tier.priority)
        if outlook is not None:
            self.lessons.granted(claim, outlook, wish.now, choices=wish.choices, produced=wish.produced)
            later = min(need.max_tokens, _LIKELY_OUTPUT) - 1
            guest.due = wish.now + outlook.ttft
            guest.ends = guest.due + later * outlook.undisturbed
            if promised is not None:
                guest.promised, guest.allowance = promised, (promised - outlook.undisturbed) * later
        reading = outlook.reading if outlook is not None else None
        self.guests.came(claim, guest, prompt=to_read, reading=reading, now=wish.now)
        if need.grows:
            self.growing.came(claim, wish.tier.priority, wish.arrived)
        over = inf if outlook is None else wish.now + self._takes(wish, outlook)
        self.ledger.charge(claim, need.blocks, need.slots, need.hits, to_read, over)
        if wish.block_hashes:
            to_read -= self._remember(wish)
        self.share.given(to_read, wish.now)

    def _remember(self, wish: Wish) -> Tokens:
        """Its prompt's blocks will be resident here. Answers how many tokens of it probably were before; none
        where that is known."""
        size, history = self.facts.block_tokens, self.history
        hashes = wish.hashes_of(size)
        self.mismatched += not hashes
        if history is None or not hashes:
            return 0
        probably = self._resident_tokens(self.cached(wish), wish)
        hashes = hashes[: wish.prompt // size]
        history.sent(hashes, self.ledger.blocks.free + len(hashes))
        return probably

    def read(self, claim: Claim, now: Seconds) -> None:
        """The first token of one of its claims is out."""
        self.guests.read(claim, now)
        self.lessons.read(claim, now)

    def want_back(self, claim: Claim, *, gives_way: bool = False) -> bool:
        """One of its claims is to end, and waits to grow no longer. False: it was to end before."""
        if not self.ledger.reclaim(claim, gives_way=gives_way):
            return False
        self.growing.left(claim)
        return True

    def left(self, claim: Claim) -> None:
        """A claim is over. Leaving twice does nothing."""
        self.guests.left(claim)
        self.lessons.left(claim)
        self.growing.left(claim)

    def ended(self, ended: EndedClaim) -> None:
        """The worker's last word on a claim, before it leaves."""
        self.lessons.ended(ended)
        self.output_tokens += ended.output_tokens

    def _resident_tokens(self, blocks: Blocks, wish: Wish) -> Tokens:
        """Of its prompt. The last token is always read: what it says is the first of the answer."""
        return min(blocks * self.facts.block_tokens, wish.prompt - 1)

    def load(self, now: Seconds) -> Load:
        """What is on it now. Where claims will not grow, they are counted at their full size."""
        ledger, guests = self.ledger, self.guests
        sequences, foreign = ledger.slots.used, ledger.prefill.foreign
        context = ledger.blocks.used * self.facts.block_tokens / sequences if sequences else 0.0
        load = Load(sequences, guests.unread, context, guests.backlog(now), guests.intake(now))
        if self.forecast is None or not foreign:
            return load
        # Nobody tells in which order it will be read: all of it first, at the worst.
        more = self.forecast.reading(foreign, load, self.lessons.learned)
        return replace(load, backlog=load.backlog + more)

    def _outlook(self, wish: Wish) -> Outlook | None:
        """What is predicted of a wish. Several rules look at it at one moment: predicted once."""
        if self.forecast is None:
            return None
        seen = self._seen
        if seen is not None and seen[0] is wish:
            return seen[1]
        cached = self._resident_tokens(self.cached(wish), wish) if wish.block_hashes else 0
        outlook = self.forecast.outlook(
            wish.prompt,
            self.load(wish.now),
            choices=wish.choices,
            cached=cached,
            learned=self.lessons.learned,
        )
        self._seen = wish, outlook
        return outlook

    @property
    def drift_alarm(self) -> str:
        """What is wrong where its own account and this one are too far apart; empty: nothing is."""
        if self.known is None or self.drift <= _DRIFT_BORNE * self.facts.capacity_blocks:
            return ""
        return (
            f"its account and the ledger's differ by {self.drift} of {self.facts.capacity_blocks} KV blocks. "
            "Mend: restart it, if that lasts"
        )

    @property
    def read_by(self) -> Seconds:
        """When it will have read every prompt that was granted here; long ago where it has."""
        return self.guests.read_by

    @property
    def bit(self) -> int:
        """Its bit among the holders of prefix blocks."""
        return self.shelf.bit if self.shelf is not None else 0

    @property
    def state(self) -> str:
        if self.known is None:
            return "down" if self.given_up else "connecting"
        if not self.linked:
            return "down" if self.given_up else "lost"
        if self.engine_problem:
            return "down"
        return "draining" if self.draining else "up"

    def note(self, report: Report, now: Seconds) -> bool:
        """Take over the figures of a report; claims are admission's business. True: it takes requests now and
        did not, or the other way round."""
        self.last_number = report.number
        self.reported_at = now
        self.uptime_offset = report.uptime - now
        self.peak_blocks, self.peak_slots = report.peak_blocks, report.peak_slots
        self.ledger.prefill.foreign = report.foreign_prefill_tokens
        self.ledger.observed, self.engine_alarm = report.observed_blocks, report.engine_alarm
        if (
            self.linked
            and not self.given_up
            and report.engine_problem == self.engine_problem
            and report.draining == self.draining
        ):
            return False
        self.linked, self.given_up, self.problem = True, False, ""
        if report.engine_problem and not self.engine_problem:
            self.engine_lost_at = now
        self.engine_problem = report.engine_problem
        self.draining = report.draining
        self.share.counts(not self.trouble, now)
        return True

    def note_others(self, report: Report) -> bool:
        """Take over which prefix blocks are resident, and what others hold, once its claims are read. True:
        they hold more or less than before, or more blocks are resident. Pinned blocks beyond this account's
        are others'."""
        ledger, self.residency_problem = self.ledger, report.residency_problem
        begins = False
        if report.residency_problem or not self.facts.reports_residency:
            begins = self.history is None
            if begins:  # until a full report says what there is
                self._guess()
        elif report.full:
            if self.history is not None and self.shelf is not None:
                self.history = None
                ledger.counts_on(self.shelf)
            ledger.resident_is(report.stored)
        elif self.history is None and (report.removed or report.stored):
            ledger.removed(report.removed)
            ledger.stored(report.stored)
        blocks, pinned = report.foreign_blocks, report.pinned_blocks - ledger.blocks.pinned
        if pinned > 0:
            blocks += pinned
        if blocks == ledger.blocks.foreign and report.foreign_slots == ledger.slots.foreign:
            return bool(report.stored)
        ledger.blocks.foreign, ledger.slots.foreign = blocks, report.foreign_slots
        return True
