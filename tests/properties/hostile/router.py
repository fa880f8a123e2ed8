"""A router: the core, driven as the router's shell drives it. What it grants is looked at as it is granted.

The shell's rules are those of `diplex_router.driver` and `.links`: a link that ends is told before the next
is dialled, an order without a link is dropped, and a new link's first report is followed by the orders that
are still open. What must be true of a grant, a raise and a stop is worked out from what this router was told,
beside the core's own record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from diplex_core.admission import REBUILD_WITHIN, Admission
from diplex_core.events import (
    Ask,
    Asked,
    AskKey,
    Decision,
    Event,
    Granted,
    LinkLost,
    Queued,
    RaiseClaim,
    Redial,
    Refused,
    Report,
    Reported,
    Revoked,
    RulesChanged,
    Served,
    SessionEnded,
    StopClaim,
    Ticked,
    Withdrawn,
)
from diplex_core.growing import PATIENCE
from diplex_core.lease import State
from diplex_core.placement.place import Placement
from diplex_core.words import (
    Blocks,
    Claim,
    EndReason,
    Reserve,
    Rules,
    Seconds,
    Tenant,
    Tokens,
    blocks_needed,
    salted,
)

from .book import Book
from .wire import Wire
from .words import Answer, AskSaid, Grant, Hello, WithdrawSaid


@dataclass(frozen=True, slots=True)
class Told:
    """An ask as this router has it, and the rules that held when it came."""

    ask: Ask
    rules: Rules


class SessionEnd:
    """A router's end of one client's session."""

    def __init__(self, router: Router, number: int) -> None:
        self.router = router
        self.number = number

    def hear(self, wire: Wire, message: object) -> None:
        match message:
            case AskSaid():
                self.router.asked(AskKey(self.number, message.ask_id), message.ask)
            case WithdrawSaid():
                self.router.tell(Withdrawn(AskKey(self.number, message.ask_id)))

    def lost(self, wire: Wire) -> None:
        del self.router.sessions[self.number]
        self.router.tell(SessionEnded(self.number))


class LinkEnd:
    """A router's end of one link."""

    def __init__(self, router: Router, worker: str) -> None:
        self.router = router
        self.worker = worker
        self.number = 0
        self.last: Report | None = None

    def hear(self, wire: Wire, message: object) -> None:
        assert isinstance(message, Report)
        self.router.report_came(self, wire, message)

    def lost(self, wire: Wire) -> None:
        self.router.link_over(self, wire)


class Router:
    """One router's life, from a start to the next.

    Args:
        started: on the world's clock.
        zero: what the router's own clock shows then.
        stopped_wrongly: says whether a claim is one that a client reads and nobody wanted ended.
    """

    def __init__(
        self,
        name: str,
        rules: Rules,
        workers: Sequence[str],
        *,
        epoch: int,
        now: Callable[[], Seconds],
        zero: Seconds,
        seen: Counter[str],
        stopped_wrongly: Callable[[Router, StopClaim], bool],
        placement: Placement,
    ) -> None:
        self.name = name
        self.epoch = epoch
        self.seen = seen
        self._now = now
        self._stopped_wrongly = stopped_wrongly
        self.ahead = zero - now()  # of its clock; never made smaller, so that it never goes back
        self.admission = Admission(rules, workers, epoch=epoch, now=self.clock(), placement=placement)
        self.started = self.clock()
        self.sessions: dict[int, Wire] = {}
        self.links: dict[str, tuple[LinkEnd, Wire]] = {}
        self.ports: dict[str, Wire] = {}  # links whose first report has come: they take orders
        self.told: dict[AskKey, Told] = {}
        self.reported: set[str] = set()
        self.books = {worker: Book(lost_at=self.started) for worker in workers}
        self.served: set[Claim] = set()
        self.raises: set[int] = set()  # their numbers
        self._asked_under: dict[int, Rules] = {}  # by lease
        self._last_session = 0

    def clock(self) -> Seconds:
        return self._now() + self.ahead

    # What the world calls.

    def session(self, client: Callable[[SessionEnd], Wire]) -> Wire:
        """A client has dialled."""
        self._last_session += 1
        wire = client(SessionEnd(self, self._last_session))
        self.sessions[self._last_session] = wire
        return wire

    def dial(self, worker: str, call: Callable[[LinkEnd], Wire | None]) -> None:
        end = LinkEnd(self, worker)
        wire = call(end)
        if wire is None:
            self.tell(LinkLost(worker, "nobody answers"))
            return
        self.links[worker] = (end, wire)
        wire.call(Hello(self.name, self.epoch))

    def asked(self, key: AskKey, ask: Ask) -> None:
        """An ask has come. One that is asked for again keeps the rules of its first ask, if that is known."""
        leases, rules = self.admission.leases, self.admission.rules
        older = leases.get(ask.again.claim.lease_id) if ask.again else None
        if older is not None and older.ask is not None:
            rules = self._asked_under[older.lease_id]
        self.told[key] = Told(ask, rules)
        self.tell(Asked(key, ask))
        if (lease := leases.at(key)) is not None:
            self._asked_under[lease.lease_id] = rules

    def tick(self) -> None:
        self.tell(Ticked())

    def new_rules(self, rules: Rules) -> None:
        self.tell(RulesChanged(rules))

    # Reports.

    def report_came(self, end: LinkEnd, wire: Wire, report: Report) -> None:
        gap = report.number not in (1, end.number + 1)
        decisions = self.tell(Reported(end.worker, report))
        if gap:
            self.seen["a gap was answered by a new link"] += 1
            assert [type(d) for d in decisions] == [Redial], f"report {report.number} after {end.number}"
            return
        end.number, end.last = report.number, report
        self.reported.add(end.worker)
        if report.number == 1 and self.links.get(end.worker, (None, None))[1] is wire:
            self.ports[end.worker] = wire
            for order in self.admission.resend_orders(end.worker):
                self.seen["orders repeated"] += 1
                charged = self.books[end.worker].charged[order.claim]
                if isinstance(order, StopClaim):
                    assert order.reason is charged.stopped, f"{order} repeats another of {charged}"
                else:
                    assert (order.number, order.blocks) == (charged.raised, charged.blocks), f"{order}"
                self._order(order)

    def link_over(self, end: LinkEnd, wire: Wire) -> None:
        if self.ports.get(end.worker) is wire:
            del self.ports[end.worker]
        del self.links[end.worker]
        self.tell(LinkLost(end.worker))

    # The core, and what it decides.

    def tell(self, event: Event) -> list[Decision]:
        decisions = self.admission.step(event, self.clock())
        self._note(event, decisions)
        for decision in decisions:
            self._carry_out(decision, event)
        return decisions

    def _note(self, event: Event, decisions: list[Decision]) -> None:
        """What the event says of what must be charged; grants are noted as they are carried out."""
        match event:
            case Ticked():
                for book in self.books.values():
                    book.time_passes(self.clock())
            case LinkLost():
                self.books[event.worker].link_lost(self.clock())
            case Reported() if not any(isinstance(decision, Redial) for decision in decisions):
                self.books[event.worker].report(event.report, self.clock())

    def _carry_out(self, decision: Decision, event: Event) -> None:
        match decision:
            case Queued():
                self.seen["queued"] += 1
                self._answer(decision)
            case Granted():
                self.seen["granted"] += 1
                self.seen["granted in a lower tier"] += bool(decision.degraded_from)
                self.seen["granted with a prediction"] += decision.predicted_ttft is not None
                self.seen["granted to grow"] += decision.grows
                self._look_at(decision, event)
                self._note_grant(decision)
                self._answer(decision, Grant(decision, self.name, self.epoch))
            case Refused():
                self.seen[f"refused: {decision.refusal.why}"] += 1
                self._answer(decision)
            case Revoked():
                self.seen["revoked"] += 1
                self._answer(decision)
            case StopClaim():
                assert not self._stopped_wrongly(self, decision), f"{decision}: its client reads it"
                self._look_at_stop(decision)
                self.books[decision.worker].stop(decision)
                self._order(decision)
            case RaiseClaim():
                self.seen["raised"] += 1
                self._look_at_raise(decision)
                self.books[decision.worker].raise_(decision)
                self._order(decision)
            case Redial():
                self.seen["redialled"] += 1
                _, wire = self.links[decision.worker]
                wire.cut = True
                wire.to_caller.clear()
            case Served():
                assert decision.claim is not None
                assert decision.claim not in self.served, f"{decision} was served before"
                assert decision.reason is not EndReason.PREEMPTED, f"{decision} goes on"
                self.served.add(decision.claim)
                self.seen["served"] += 1
            case _:
                raise AssertionError(f"the model of a router does not know {decision}")

    def _answer(self, decision: Queued | Granted | Refused | Revoked, grant: Grant | None = None) -> None:
        wire = self.sessions.get(decision.key.session)
        if wire is not None:
            wire.answer(Answer(decision.key.ask_id, decision, grant))

    def _order(self, order: StopClaim | RaiseClaim) -> None:
        wire = self.ports.get(order.worker)
        what = "stops" if isinstance(order, StopClaim) else "raises"
        self.seen[f"{what} sent" if wire is not None else f"{what} that found no link"] += 1
        if wire is not None:
            wire.call(order)

    def _note_grant(self, granted: Granted) -> None:
        lease = self.admission.leases.at(granted.key)
        assert lease is not None, f"{granted} is nobody's"
        book = self.books[granted.worker.name]
        book.granted(granted, lease.arrived)
        axis = self.admission.workers[granted.worker.name].ledger.blocks
        if book.wanted:
            taken = axis.own + axis.stray + axis.foreign
            assert taken + book.wanted <= axis.capacity, f"{granted} takes what {book} waits for"

    def _look_at_quota(self, granted: Granted, tenant: Tenant) -> None:
        """It fits beside what its tenant holds, by the rules that it was asked under and by those of now."""
        rules = self.admission.rules
        now = next((t for t in rules.tenants if t.name == tenant.name), None)
        if not rules.enforce_limits or now is None or now.max_concurrent_blocks is None:
            return
        if tenant.max_concurrent_blocks is not None:
            held = sum(book.held_by(tenant.name) for book in self.books.values())
            self.seen["granted within a tenant's blocks"] += 1
            assert held + granted.blocks <= tenant.max_concurrent_blocks, (
                f"{granted} is beyond {tenant}: {held}"
            )

    # What must be true of raising, and of giving way.

    def _look_at_raise(self, order: RaiseClaim) -> None:
        book = self.books[order.worker]
        charged = book.charged.get(order.claim)
        assert charged is not None and charged.held, f"{order} is for a claim that is not held"
        assert charged.grows, f"{order} is for a claim that does not grow"
        assert not charged.stopped, f"{order} is for a claim that is wanted back"
        assert not charged.raised, f"{order} comes while raise {charged.raised} is not answered"
        assert charged.blocks < order.blocks == charged.wants, f"{order} raises {charged}"
        first = max(other.rank for other in book.charged.values() if other.wants)
        assert charged.rank == first, f"{order} should have been for one above it: {book}"
        assert order.number >> 32 == self.epoch, f"{order} may have a number of another life"
        assert order.number not in self.raises, f"the number of {order} was used before"
        self.raises.add(order.number)

    def _look_at_stop(self, stop: StopClaim) -> None:
        """Who gives way: the least of the growing claims there, for one that is more, or waited long."""
        if stop.reason is not EndReason.PREEMPTED:
            return
        self.seen["stopped in favour of others"] += 1
        book = self.books[stop.worker]
        charged = book.charged[stop.claim]
        assert charged.grows, f"{stop} is for a claim that holds in full"
        assert not charged.stopped, f"{stop} is for a claim that is wanted back already"
        present = {claim: other for claim, other in book.charged.items() if not other.stopped}
        growing = [other.rank for other in present.values() if other.grows]
        assert charged.rank == min(growing), f"{stop} should have been for one below it: {book}"
        waiting = (lease.wish for lease in self.admission.leases.all() if lease.state is State.WAITING)
        if any(wish is not None and wish.tier.priority > charged.priority for wish in waiting):
            self.seen["stopped in favour of a newcomer"] += 1
            return
        wanting = [other for other in present.values() if other.wants]
        assert wanting, f"{stop} is for the sake of nobody"
        highest = max(other.rank for other in wanting)
        assert charged.rank <= highest, f"{stop} is for the sake of one below it: {book}"
        axis = self.admission.workers[stop.worker].ledger.blocks
        short = axis.own + axis.stray + axis.foreign - axis.capacity - book.coming_back
        first = max((o for o in wanting if o.rank == highest), key=lambda other: other.wants - other.blocks)
        assert short + first.wants - first.blocks > 0, f"{stop} is not needed: {book}"
        if first.priority > charged.priority:
            return
        self.seen["stopped in favour of an equal"] += 1
        others = any(not other.wants for other in present.values())
        waited = self.clock() - min(other.since for other in wanting if other.rank == highest)
        assert waited > PATIENCE - 1e-6 or not others, f"{stop} comes after {waited} s: {book}"

    # What must be true of a grant.

    def _look_at(self, granted: Granted, event: Event) -> None:
        name, facts = granted.worker.name, granted.worker
        told = self.told[granted.key]
        ask, rules = told.ask, told.rules
        # What the core is being told in this very step has not been noted here yet.
        new = event if isinstance(event, Reported) else None
        reported = self.reported | ({new.worker} if new else set())
        assert reported >= set(self.admission.workers) or self.clock() - self.started >= REBUILD_WITHIN, (
            f"{granted} was given while the ledger was being rebuilt"
        )
        assert name in self.links, f"{granted} goes to a worker without a link"
        report = new.report if new and new.worker == name else self.links[name][0].last
        assert report is not None, f"{granted} goes to a worker that has said nothing on its link"
        assert not report.draining, f"{granted} goes to a worker that drains"
        assert not report.engine_problem, f"{granted} goes to a worker without an engine"
        ledger = self.admission.workers[name].ledger
        blocks, slots = ledger.blocks, ledger.slots
        charged = blocks.own - blocks.guard + blocks.stray + report.foreign_blocks
        assert charged + facts.guard_blocks <= facts.capacity_blocks, f"{granted} does not fit: {blocks}"
        assert slots.own + slots.stray + report.foreign_slots <= facts.capacity_slots, f"{granted}: {slots}"
        hits = [salted(block, granted.salt) for block in ask.block_hashes[: granted.cached]]
        assert self.books[name].resident >= set(hits), f"{granted} counts on {hits}, which are not resident"
        tier = rules.tiers[granted.tier]
        asked_for = rules.tier_named(ask.tier)
        assert asked_for is not None
        assert granted.tier == asked_for.name or granted.degraded_from == asked_for.name
        tenant = rules.tenant_of(ask.api_key)
        assert tenant is not None and (tenant.name, tenant.salt) == (granted.tenant, granted.salt)
        self._look_at_quota(granted, tenant)
        assert tenant.tiers is None or granted.tier in tenant.tiers
        assert tenant.packages is None or facts.package in tenant.packages
        assert facts.pattern in tier.patterns
        assert not facts.tiers or granted.tier in facts.tiers
        assert (ask.model or rules.default_model) in facts.models
        assert granted.slots == granted.choices == ask.choices
        again = ask.again
        produced = again.produced_tokens if again else 0
        assert granted.max_tokens <= max(tier.max_output_tokens, produced + 1)
        assert facts.can_resume or not produced
        needed = again.needed_blocks if again else 0

        def blocks(output: Tokens) -> Blocks:
            return blocks_needed(
                ask.prompt_tokens + produced,
                output,
                facts.block_tokens,
                choices=ask.choices,
                cached=granted.cached * facts.block_tokens,
                draft=facts.draft_tokens,
            )

        full = blocks(max(1, granted.max_tokens - produced))
        if granted.grows:
            assert tier.reserve is Reserve.EXPECTED and tier.preemptible and ask.choices == 1, f"{granted}"
            assert facts.can_grow and facts.can_resume, f"{granted} could neither grow nor go on elsewhere"
            assert blocks(1) <= granted.blocks < full, f"{granted} grows, and may come to need {full}"
        else:
            assert granted.blocks >= full, f"{granted} reserves less than the {full} blocks it may need"
        assert granted.blocks >= needed or granted.cached, f"{granted}: its worker said it needs {needed}"
        assert full >= needed or not granted.cached, f"{granted} counts on more hits than its worker had"
