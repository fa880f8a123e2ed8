"""A router, its clients and simulated workers on one virtual clock: what a trace comes to, in no time.

The core decides as it does in a server: the same `Admission`, told the same events. Around it stand clients
that do what the SDK does, workers that do what a worker does, and messages between them that take a while.
Nothing is lost but by a fault. Everything is simulated, and equal arguments give equal runs.

    client ──ask──▶ router ──grant──▶ client ──start──▶ worker ──tokens──▶ client
                       ▲──────────────── reports ──────────┘

What does not change is not said: workers report when something happened, and the only thing that beats is
the router's own tick.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from heapq import heappop, heappush
from typing import assert_never

from diplex_core.admission import Admission
from diplex_core.events import (
    Asked,
    AskKey,
    EndedClaim,
    Event,
    Granted,
    HeldClaim,
    LinkLost,
    Queued,
    RaiseClaim,
    Redial,
    Refused,
    Revoked,
    Served,
    StopClaim,
    Ticked,
    WantedClaim,
    Withdrawn,
    WorkerFacts,
)
from diplex_core.placement.place import Placement
from diplex_core.pool import NoRoom
from diplex_core.report.outcome import Ending, Outcome
from diplex_core.report.report import LedgerFigures, Pool, WorkerFigures
from diplex_core.sim.arrivals import Arrival
from diplex_core.sim.faults import Cut, Drain, Fault, Kill, Slow
from diplex_core.sim.runs import First, Near, Over
from diplex_core.sim.ticket import GivenUp, Ticket
from diplex_core.sim.worker import Guest, VirtualWorker
from diplex_core.words import Blocks, Claim, EndReason, Rules, Seconds

TICK: Seconds = 0.1
"""How often a router looks at what has become due."""
SETTLES_WITHIN: Seconds = 10.0
"""After the last outcome the books are given so long to close."""

_SESSION = 1
_GOOD = frozenset({EndReason.STOP, EndReason.LENGTH})


class Simulation:
    """One router in front of simulated workers, from the first arrival to the last word.

    Args:
        workers: each by what it says of itself; `simulated` or not, it runs on the step times that it names.
        seed: which requests meet a slow prefill, and which drafts are wrong; nothing else is left to chance.
        message: seconds that each message between client, router and worker takes: four of them come to a
            time to first token.
        retry: a refused request is sent once more exactly when its refusal says.
        timeout: seconds after which a client gives up; `None`: never.
    Attributes:
        now: seconds since the beginning of the run.
        ended: when the last client heard that its request was over.
        on_served: told what the router thinks became of each promise, prediction and all.
    Raises:
        ValueError: there are no figures for a worker, or a fault names nobody.
    """

    def __init__(
        self,
        rules: Rules,
        workers: Iterable[WorkerFacts],
        *,
        seed: int = 0,
        message: Seconds = 0.0,
        faults: Iterable[Fault] = (),
        placement: Placement | None = None,
        retry: bool = False,
        timeout: Seconds | None = None,
    ) -> None:
        if not 0.0 <= message <= 1.0:
            raise ValueError(f"a message takes {message:g} s. Mend: from 0 to 1; a grant is void after five")
        self.now: Seconds = 0.0
        self.ended: Seconds = 0.0
        self.workers = {facts.name: VirtualWorker(facts, seed=seed) for facts in workers}
        self.admission = Admission(rules, self.workers, epoch=1, now=0.0, placement=placement)
        self._message = message
        self._retry = retry
        self._timeout = timeout
        self.on_served: Callable[[Served], None] = _nobody
        self._heard: Callable[[Outcome], None] = _nobody
        self._tickets: dict[int, Ticket] = {}
        self._last_ask = 0
        self._requests: dict[str, dict[str, int]] = {}  # that ended, by worker and tier
        self._read: Counter[str] = Counter()  # of their prompts, tokens that were not resident
        self._told = 0
        self._heap: list[tuple[Seconds, int, Callable[[], None]]] = []
        self._soon: deque[Callable[[], None]] = deque()  # due at once, in the order in which it was said
        self._order = 0
        for worker in self.workers.values():
            self._decide(worker.full_report(0.0, opening=True))
        for fault in faults:
            self._script(fault)

    def run(
        self,
        arrivals: Iterable[Arrival],
        heard: Callable[[Outcome], None],
        progress: Callable[[Seconds, int], None] | None = None,
    ) -> None:
        """Run to the end of the last request, and until the router's books are closed.

        Args:
            arrivals: in the order of their times; taken one by one, as they are due.
            heard: told what became of each request, once.
            progress: told the time and how many requests are over, at every tick of the router.
        """
        self._heard = heard
        coming = enumerate(arrivals)
        ahead = next(coming, None)
        # An ask is on its way for as long as a message takes.
        asked = ahead[1].at + self._message if ahead is not None else 0.0
        tick = self.now + TICK
        heap, soon = self._heap, self._soon
        while ahead is not None or self._tickets or not self._settled:
            if ahead is not None and asked <= tick and (not heap or heap[0][0] > asked):
                self.now = asked
                self._arrive(*ahead)
                ahead = next(coming, None)
                if ahead is not None:
                    asked = ahead[1].at + self._message
            elif heap and heap[0][0] <= tick:
                self.now, _, act = heappop(heap)
                act()
            else:
                self.now = tick
                tick += TICK
                while ahead is not None and not heap and not self._tickets and tick < asked:
                    tick += TICK  # nobody is there, and nothing happens before
                self._decide(Ticked())
                if progress is not None:
                    progress(self.now, self._told)
            while soon:
                soon.popleft()()

    def figures(self) -> tuple[Mapping[str, WorkerFigures], LedgerFigures]:
        """What the run made of the workers, and what it left in the router's books."""
        admission = self.admission
        ledgers = {name: worker.ledger for name, worker in admission.workers.items()}
        workers = {
            name: WorkerFigures(
                pattern=worker.facts.pattern,
                engine=worker.facts.engine,
                simulated=True,
                calibration=worker.facts.calibration or None,
                pool=Pool(
                    capacity=worker.facts.capacity_blocks,
                    mean=worker.timeline.mean(self.now),
                    peak=worker.timeline.peak,
                    end=worker.timeline.value,
                ),
                requests_by_tier=dict(sorted(self._requests.get(name, {}).items())),
                prefill_tokens=self._read[name],
            )
            for name, worker in self.workers.items()
        }
        return workers, LedgerFigures(
            leases_opened=admission.leases.opened,
            leases_closed=admission.leases.closed,
            blocks_reserved_end=sum(ledger.blocks.own - ledger.blocks.guard for ledger in ledgers.values()),
            preempted=admission.preempted,
            refused_by_worker=admission.refused_by_worker,
            drift_max=admission.drift_max,
            over_capacity=admission.over_capacity,
        )

    def timelines(self) -> Mapping[str, Sequence[tuple[Seconds, Blocks]]]:
        """Each pool's blocks in use over time: at most 512 points, evenly spaced."""
        return {name: worker.timeline.points(self.now) for name, worker in self.workers.items()}

    # Time.

    def _later(self, delay: Seconds, act: Callable[[], None]) -> None:
        if delay > 0.0:
            self._at(self.now + delay, act)
        else:
            self._soon.append(act)

    def _at(self, moment: Seconds, act: Callable[[], None]) -> None:
        self._order += 1
        heappush(self._heap, (moment, self._order, act))

    @property
    def _settled(self) -> bool:
        """The books are closed, or have had their time."""
        leases = self.admission.leases
        return self.now > self.ended + SETTLES_WITHIN or (
            leases.opened == leases.closed
            and not any(
                one.ledger.blocks.own - one.ledger.blocks.guard for one in self.admission.workers.values()
            )
        )

    # The router.

    def _decide(self, event: Event) -> None:
        for decision in self.admission.step(event, self.now):
            match decision:
                case Granted():
                    # To its client, and with the prompt on to the worker.
                    self._later(2 * self._message, partial(self._start, decision))
                case Refused():
                    self._later(self._message, partial(self._refused, decision))
                case StopClaim():
                    self._later(self._message, partial(self._stop, decision))
                case RaiseClaim():
                    self._later(self._message, partial(self._raise, decision))
                case Redial():
                    self._relink(self.workers[decision.worker])
                case Served():
                    self.on_served(decision)
                case Queued() | Revoked():
                    pass  # a grant is shown the moment it comes; then only the worker's word counts
                case _:
                    assert_never(decision)

    def _tell(
        self,
        worker: VirtualWorker,
        held: Sequence[HeldClaim],
        ended: Sequence[EndedClaim] = (),
        wants: Sequence[WantedClaim] = (),
    ) -> None:
        """Report to the router what has changed. While the link is down nobody hears of it."""
        if worker.linked:
            self._later(self._message, partial(self._decide, worker.report(self.now, held, ended, wants)))

    def _tell_all(self, worker: VirtualWorker, *, opening: bool = False) -> None:
        if worker.linked:
            report = worker.full_report(self.now, opening=opening)
            self._later(self._message, partial(self._decide, report))

    # Clients.

    def _arrive(self, number: int, arrival: Arrival) -> None:
        """The ask of a new request comes to the router."""
        self._last_ask += 1
        ticket = Ticket(number, arrival, self._last_ask, arrival.at)
        self._tickets[ticket.ask_id] = ticket
        self._asks(ticket)
        self._watch(ticket)

    def _watch(self, ticket: Ticket) -> None:
        """A client waits so long for each sending, and no longer."""
        if self._timeout is not None:
            left = ticket.sent + self._timeout - self.now
            self._later(max(0.0, left), partial(self._too_late, ticket, ticket.sent))

    def _asks(self, ticket: Ticket) -> None:
        if ticket.leaving is None:
            # Its age is what it was when it left its client.
            ask = ticket.ask(self.now - self._message, self._timeout)
            self._decide(Asked(AskKey(_SESSION, ticket.ask_id), ask))

    def _refused(self, refused: Refused) -> None:
        ticket = self._tickets.get(refused.key.ask_id)
        if ticket is None:
            return
        refusal = refused.refusal
        rejected = ticket.rejected_by(refusal)
        if rejected and refusal.retry_after is not None:
            ticket.retry_given += 1
            if self._retry and not ticket.retry_obeyed:
                self._last_ask += 1
                del self._tickets[ticket.ask_id]
                ticket.sent_again(self._last_ask, self.now + refusal.retry_after)
                self._tickets[ticket.ask_id] = ticket
                self._later(refusal.retry_after + self._message, partial(self._asks, ticket))
                self._watch(ticket)
                return
        ending = Ending.REJECTED if rejected else Ending.FAILED
        self._over(ticket, ending, self.now, refusal.why, refusal.message)

    def _came_to_nothing(
        self, ticket: Ticket, claim: Claim, reason: EndReason, said: str, needed: Blocks = 0
    ) -> None:
        """The client hears that its grant came to nothing."""
        if self._tickets.get(ticket.ask_id) is not ticket:
            return  # it has given up meanwhile
        if ticket.granted is None or ticket.granted.claim != claim:
            return
        if ticket.leaving is not None:
            self._gives_up(ticket, ticket.leaving)
            return
        pause = ticket.came_to_nothing(reason, said, needed)
        if isinstance(pause, GivenUp):
            self._gives_up(ticket, pause)
        else:
            self._later(pause + self._message, partial(self._asks, ticket))

    def _gives_up(self, ticket: Ticket, why: GivenUp) -> None:
        key = AskKey(_SESSION, ticket.ask_id)
        self._later(self._message, partial(self._decide, Withdrawn(key)))
        self._over(ticket, Ending.FAILED, self.now, why.problem, why.detail)

    def _too_late(self, ticket: Ticket, sent: Seconds) -> None:
        """The deadline of a sending has passed: where a worker is at it, it is cancelled there."""
        if self._tickets.get(ticket.ask_id) is not ticket or ticket.sent != sent:
            return
        ticket.leaving = GivenUp("DEADLINE_PASSED", f"it was not done within its {self._timeout:g} s")
        granted = ticket.granted
        worker = self.workers[granted.worker.name] if granted is not None else None
        if granted is None or worker is None or granted.claim not in worker.guests:
            self._gives_up(ticket, ticket.leaving)
        else:
            self._later(self._message, partial(self._cancel, worker, granted.claim))

    def _over(self, ticket: Ticket, ending: Ending, at: Seconds, problem: str = "", detail: str = "") -> None:
        del self._tickets[ticket.ask_id]
        rules = self.admission.rules
        outcome = ticket.outcome(ending, at, rules.default_model, rules.default_tier, problem, detail)
        if outcome.worker:
            self._read[outcome.worker] += outcome.prompt_tokens - outcome.cached_tokens
            served = self._requests.setdefault(outcome.worker, {})
            served[outcome.served_tier] = served.get(outcome.served_tier, 0) + 1
        self.ended = max(self.ended, at)
        self._told += 1
        self._heard(outcome)

    # Workers.

    def _start(self, granted: Granted) -> None:
        """A grant is shown to its worker, with the prompt."""
        ticket = self._tickets.get(granted.key.ask_id)
        if ticket is None or ticket.leaving is not None:
            return  # its client has left: it is not shown, and the router takes it back
        ticket.serving(granted)
        worker, claim = self.workers[granted.worker.name], granted.claim
        if not worker.alive:
            said = "no such process"
            self._later(self._message, partial(self._came_to_nothing, ticket, claim, EndReason.FAILED, said))
            return
        no = worker.start(granted, ticket.ask_id, ticket.arrival, ticket.tokens, self.now)
        if no is None:
            self._plan(worker)
            self._tell(worker, (worker.held(claim),))
            return
        needed = no.needed_blocks if isinstance(no, NoRoom) else 0
        self._tell(worker, (), (EndedClaim(claim, EndReason.REFUSED),))
        self._later(
            self._message,
            partial(self._came_to_nothing, ticket, claim, EndReason.REFUSED, str(no), needed),
        )

    def _stop(self, stop: StopClaim) -> None:
        worker = self.workers[stop.worker]
        if not worker.linked:
            return  # it is said again on the next link
        ended = worker.stop(stop.claim, stop.reason, self.now)
        if ended is not None:
            self._tell(worker, (), (ended,))
        else:
            self._plan(worker)

    def _raise(self, order: RaiseClaim) -> None:
        worker = self.workers[order.worker]
        if not worker.linked:
            return  # likewise
        held = worker.raised(order, self.now)
        if held is not None:
            self._plan(worker)
            still = worker.wanted(order.claim)
            self._tell(worker, (held,), wants=(still,) if still is not None else ())

    def _cancel(self, worker: VirtualWorker, claim: Claim) -> None:
        """Its client wants nothing more of it."""
        if claim in worker.guests:
            worker.stop(claim, EndReason.CANCELLED, self.now)
            self._plan(worker)

    def _plan(self, worker: VirtualWorker) -> None:
        """Look at its engine when something next happens there."""
        due = worker.engine.due
        if due is not None and due != worker.scheduled:
            worker.scheduled = due
            self._at(due, partial(self._step, worker, due))

    def _step(self, worker: VirtualWorker, due: Seconds) -> None:
        if worker.scheduled != due:
            return  # planned before something came between
        worker.scheduled = None
        words = worker.engine.advance(self.now)
        held: dict[Claim, HeldClaim] = {}
        wants: dict[Claim, WantedClaim] = {}
        ended: list[EndedClaim] = []
        for word in words:
            match word:
                case First():
                    held[word.claim] = worker.began(word)
                case Near():
                    if (wanted := worker.near(word)) is not None:
                        wants[word.claim] = wanted
                case Over():
                    guest, last = worker.ended(word)
                    held.pop(word.claim, None)
                    wants.pop(word.claim, None)
                    ended.append(last)
                    self._done(guest, last, word)
                case _:
                    assert_never(word)
        self._plan(worker)
        if held or ended or wants:
            self._tell(worker, tuple(held.values()), ended, tuple(wants.values()))

    def _done(self, guest: Guest, ended: EndedClaim, over: Over) -> None:
        """The client hears the last word of an attempt."""
        ticket = self._tickets.get(guest.ask_id)
        if ticket is None:
            return
        way = self._message
        first = guest.first + way if guest.first is not None else None
        last = over.last + way if over.last is not None else None
        ticket.heard(over.tokens, first, last, over.longest_gap)
        ticket.cached = guest.work.read_before
        if ended.reason in _GOOD:
            ticket.check(guest.work.max_tokens)
            self._over(ticket, Ending.COMPLETED, self.now + way)
        else:
            said = "taken back" if ended.reason is EndReason.REVOKED else "had to give way"
            self._later(way, partial(self._came_to_nothing, ticket, over.claim, ended.reason, said))

    # Faults.

    def _script(self, fault: Fault) -> None:
        struck = [
            worker
            for worker in self.workers.values()
            if fault.worker in (worker.facts.name, worker.facts.package)
        ]
        if not struck:
            known = ", ".join(list(self.workers)[:8])
            raise ValueError(f"a fault names '{fault.worker}', no worker and no package. Known: {known}")
        for worker in struck:
            self._later(fault.at, partial(self._strike, worker, fault))

    def _strike(self, worker: VirtualWorker, fault: Fault) -> None:
        match fault:
            case Kill():
                self._kill(worker, fault.back_after)
            case Cut():
                if worker.linked:
                    self._unlink(worker, "its link broke")
                    self._later(fault.for_, partial(self._relink, worker))
            case Slow():
                worker.slow(fault.factor, self.now)
                self._plan(worker)
                self._later(fault.for_, partial(self._recover, worker, fault.factor))
            case Drain():
                worker.draining = True
                self._tell_all(worker)
            case _:
                assert_never(fault)

    def _kill(self, worker: VirtualWorker, back_after: Seconds | None) -> None:
        if not worker.alive:
            return
        linked, engine = worker.linked, worker.engine
        for claim, guest in worker.guests.items():
            ticket = self._tickets.get(guest.ask_id)
            if ticket is not None:
                tokens, last, gap = engine.so_far(claim, self.now)
                way = self._message
                first = guest.first + way if guest.first is not None else None
                ticket.heard(tokens, first, last + way if last is not None else None, gap)
                broke = partial(self._came_to_nothing, ticket, claim, EndReason.FAILED, "its stream broke")
                self._later(way, broke)
        worker.die(self.now)
        worker.scheduled = None
        if linked:
            self._unlink(worker, "its process died")
        if back_after is not None:
            self._later(back_after, partial(self._rise, worker))

    def _rise(self, worker: VirtualWorker) -> None:
        worker.rise(self.now)
        self._relink(worker)

    def _recover(self, worker: VirtualWorker, factor: float) -> None:
        worker.slow(1.0 / factor, self.now)
        self._plan(worker)

    def _unlink(self, worker: VirtualWorker, problem: str) -> None:
        worker.cut_off(self.now)
        self._plan(worker)
        self._later(self._message, partial(self._decide, LinkLost(worker.facts.name, problem)))

    def _relink(self, worker: VirtualWorker) -> None:
        """The router dials anew, and says again what the old link may have lost."""
        if not worker.alive:
            return
        worker.linked = True
        self._tell_all(worker, opening=True)
        self._later(self._message, partial(self._orders_again, worker))

    def _orders_again(self, worker: VirtualWorker) -> None:
        for order in self.admission.resend_orders(worker.facts.name):
            match order:
                case StopClaim():
                    self._later(self._message, partial(self._stop, order))
                case RaiseClaim():
                    self._later(self._message, partial(self._raise, order))
                case _:
                    assert_never(order)


def _nobody(said: Outcome | Served) -> None:
    """Hears of nothing."""
