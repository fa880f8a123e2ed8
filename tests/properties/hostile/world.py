"""Two routers, their workers, their clients, and every step that any of them, or bad luck, can take.

A step is a method that takes dice. It does nothing where nothing of its kind can happen. After each the world
looks at what must be true (`truths`).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from diplex.wire.life import State
from diplex_core.events import Report, StopClaim, WorkerFacts
from diplex_core.growth import LEAD
from diplex_core.words import (
    Claim,
    EndReason,
    Seconds,
)

from . import truths
from .client import Attempt, Client, Request, Wanted
from .feed import Feed
from .growth import Growth
from .router import LinkEnd, Router
from .scenes import AT_MOST, FAMILIES, HASHED, KEYS, PLACEMENTS, TIERS, USUAL, K, M, Scene
from .wire import Wire
from .words import Cancel
from .worker import Sequence, StreamEnd, Worker, pick_live


class World:
    """Everything there is, at one moment.

    Attributes:
        now: the time that nobody sees; every process has a clock of its own.
        seen: counts of what has happened.
    """

    def __init__(self, dice: random.Random, scene: Scene = USUAL) -> None:
        self.scene = scene
        self.now: Seconds = 0.0
        self.seen: Counter[str] = Counter()
        self.wires: list[Wire] = []
        self.cut_off: set[tuple[str, str]] = set()  # routers and workers between which no link comes about
        self._requests = self._epochs = self._boots = 0
        self.workers = [Worker(self._booted(facts, dice), self.seen, 0.0) for facts in scene.fleet]
        for worker in self.workers:
            self._has_habits(worker, dice)
        self.routers: dict[str, Router | None] = {}
        for name in ("r1", "r2"):
            self._start_router(name, dice)
        self.clients = [self._new_client(router) for router in ("r1", "r1", "r2")]

    # Clients.

    def a_client_asks(self, dice: random.Random) -> None:
        client = dice.choice(self.clients)
        if self._alive >= AT_MOST:
            return
        self._requests += 1
        prompt = dice.choice(self.scene.prompts) + dice.randint(0, 8)
        counted = dice.random() < 0.7  # it has a tokenizer
        if dice.random() < (0.02 if counted else 0.15):
            prompt = dice.choice((0, 480, 600, 600))
        family = dice.randrange(FAMILIES)
        size = dice.choice(HASHED)
        hashes = tuple(1000 * family + i for i in range(prompt // size)) if counted else ()
        if size != HASHED[0]:
            hashes = tuple(5000 + block for block in hashes)
        # An upper bound, as a rule; some turn out too small.
        said = prompt if counted else max(1, round(prompt * dice.choice((0.5, 0.8, 1.0, 1.3, 2.0))))
        wanted = Wanted(
            request_id=f"{client.name}-{self._requests}",
            model=dice.choice((M, M, M, K, "")) if dice.random() < 0.97 else "unknown",
            tier=dice.choice(TIERS[:4] if dice.random() < 0.95 else TIERS),
            api_key=dice.choice(KEYS[:4] if dice.random() < 0.95 else KEYS),
            prompt=prompt,
            said=said,
            exact=counted,
            hashes=hashes,
            hash_block_tokens=size if hashes else 0,
            max_tokens=dice.choice(self.scene.outputs),
            choices=dice.choice((1, 1, 1, 1, 2, 3)) if dice.random() < 0.97 else dice.choice((0, 5)),
            timeout=dice.choice((None, None, None, 3.0, 20.0)),
        )
        if not wanted.model:
            wanted = replace(wanted, model=M)
        client.ask(wanted)
        self.seen["asked"] += 1

    def who_was_refused_comes_back(self, dice: random.Random) -> None:
        """At the time that it was told, or before that, or much later."""
        for client in self.clients:
            due = [told for told in client.told_to_come if told[0] <= self.now or dice.random() < 0.05]
            if due and self._alive < AT_MOST:
                client.told_to_come.remove(due[0])
                self._requests += 1
                wanted = due[0][1]
                client.ask(replace(wanted, request_id=f"{wanted.request_id}-{self._requests}"))
                self.seen["came back" if due[0][0] <= self.now else "came back too early"] += 1

    def a_client_cancels(self, dice: random.Random) -> None:
        if (request := self._some_request(dice)) is not None:
            self.seen["cancelled"] += 1
            request.cancel()

    def pauses_are_over(self, dice: random.Random) -> None:
        for client in self.clients:
            for request in list(client.requests.values()):
                if request.state is State.PAUSING:
                    request.pause_over()

    def a_client_connects(self, dice: random.Random) -> None:
        for client in self.clients:
            router = self.routers[client.router]
            if client.session is None and router is not None:
                session = router.session(lambda end, c=client: self._wire("session", c, end))  # type: ignore[misc]
                client.connected(session)

    def a_session_breaks(self, dice: random.Random) -> None:
        sessions = [c.session for c in self.clients if c.session is not None and not c.session.cut]
        if sessions:
            self.seen["sessions broken"] += 1
            dice.choice([session for session in sessions if session.to_caller] or sessions).break_(dice)

    def a_client_loses_a_worker(self, dice: random.Random) -> None:
        """The streams of one client to one worker break."""
        client, worker = dice.choice(self.clients), dice.choice(self.workers)
        if self.cut_off and dice.random() < 0.5:  # what takes its router from it may take its clients too
            name = dice.choice(sorted(self.cut_off))[1]
            worker = next(worker for worker in self.workers if worker.name == name)
        for request in client.requests.values():
            wire, grant = request.wire, request.grant
            if wire is None or grant is None or wire.cut or grant.granted.worker.name != worker.name:
                continue
            self.seen["streams broken"] += 1
            wire.break_(dice)

    def a_client_dies(self, dice: random.Random) -> None:
        """Its process is gone: every connection it had breaks, and nobody is there to ask again."""
        client = dice.choice(self.clients)
        self.seen["clients died"] += 1
        for wire in self.wires:
            mine = wire.caller is client or (
                isinstance(wire.caller, Attempt) and wire.caller.request.client is client
            )
            if mine:
                wire.break_(dice)
                wire.caller_lets_go()
        self.clients[self.clients.index(client)] = self._new_client(client.router)

    def a_grant_is_shown_once_more(self, dice: random.Random) -> None:
        """Somebody shows a worker a grant that has been shown, perhaps long ago."""
        shown = [start for client in self.clients for start in client.shown]
        if shown:
            start = dice.choice(shown)
            end = _Stranger()
            self.open_stream(start.grant.granted.worker.name, end).call(start)
            self.seen["grants shown once more"] += 1

    # Messages.

    def messages_arrive(self, dice: random.Random) -> None:
        """Some messages arrive at one end of one connection."""
        self._carry(dice, [wire for wire in self.wires if wire.caller_has_news or wire.to_callee])

    def somebody_learns_late_that_a_caller_is_gone(self, dice: random.Random) -> None:
        """Who was called may be the last to notice the end of a connection."""
        left = [wire for wire in self.wires if wire.cut and not wire.to_callee and wire.callee is not None]
        if left:
            dice.choice(left).reach_callee()

    def reports_arrive(self, dice: random.Random) -> None:
        self._carry(dice, [wire for wire in self.wires if wire.kind == "link" and wire.caller_has_news])

    def reports_are_written(self, dice: random.Random) -> None:
        """One worker writes what it has for its routers."""
        worker = dice.choice(self.workers)
        for feed in list(worker.feeds.values()):
            feed.write(self.now)

    def a_full_report_is_due(self, dice: random.Random) -> None:
        worker = dice.choice(self.workers)
        for feed in worker.feeds.values():
            if dice.random() < 0.7:
                self.seen["full reports due"] += 1
                feed.full_due()

    def a_report_is_lost(self, dice: random.Random) -> None:
        """On a connection that goes on: only the numbers can tell."""
        if (wire := self._link_with_reports(dice)) is not None:
            self.seen["reports lost"] += 1
            del wire.to_caller[dice.randrange(len(wire.to_caller))]

    def a_report_comes_twice(self, dice: random.Random) -> None:
        if (wire := self._link_with_reports(dice)) is not None:
            self.seen["reports doubled"] += 1
            wire.to_caller.insert(0, wire.to_caller[0])

    # Links.

    def routers_dial(self, dice: random.Random) -> None:
        for router in self._up():
            for worker in self.workers:
                if worker.name in router.links:
                    continue
                up = worker.up and (router.name, worker.name) not in self.cut_off
                router.dial(worker.name, self._dialler(worker) if up else lambda end: None)

    def a_link_breaks(self, dice: random.Random) -> None:
        links = [wire for wire in self.wires if wire.kind == "link" and not wire.cut]
        if links:
            self.seen["links broken"] += 1
            wire = dice.choice([wire for wire in links if wire.to_caller or wire.to_callee] or links)
            self.seen["reports in flight when a link broke"] += len(wire.to_caller)
            self.seen["orders in flight when a link broke"] += len(wire.to_callee)
            wire.break_(dice)

    def a_router_is_cut_off_from_a_worker(self, dice: random.Random) -> None:
        """No link between these two, for as long as this lasts; clients may reach both."""
        pair = dice.choice(sorted(self.routers)), dice.choice(self.workers)
        self.cut_off.add((pair[0], pair[1].name))
        self.seen["cut off"] += 1
        router = self.routers[pair[0]]
        if router is not None and pair[1].name in router.links:
            router.links[pair[1].name][1].break_(dice)

    def who_was_cut_off_is_so_no_more(self, dice: random.Random) -> None:
        self.cut_off.clear()

    # Engines.

    def prompts_are_counted(self, dice: random.Random) -> None:
        found = pick_live(self.workers, dice, lambda s: not s.submitted)
        if found is not None:
            found[0].count(found[1])

    def an_engine_works(self, dice: random.Random) -> None:
        """One engine takes a few steps: prompts are read, tokens are said, sequences end."""
        for _ in range(dice.randint(1, 4)):
            found = pick_live(self.workers, dice, lambda s: s.submitted and s.verdict is None)
            if found is None:
                return
            worker, sequence = found
            if worker.growth.waits(sequence):
                continue
            if not sequence.prefilled:
                worker.read(sequence)
                worker.say_tokens(sequence, 1)
            else:
                worker.say_tokens(sequence, dice.choice((1, 3, 9, 16, 30)))
            if worker.live.get(sequence.claim) is sequence and dice.random() < 0.05:
                worker.stop_by_itself(sequence, dice.randrange(sequence.choices))

    def an_engine_lets_go(self, dice: random.Random) -> None:
        found = pick_live(self.workers, dice, lambda s: s.verdict is not None)
        if found is not None:
            found[0].let_go(found[1])

    def an_engine_gives_a_sequence_up(self, dice: random.Random) -> None:
        found = pick_live(self.workers, dice, lambda s: s.submitted and s.verdict is None)
        if found is not None:
            reason, code = dice.choice(
                ((EndReason.PREEMPTED, ""), (EndReason.FAILED, "UNAVAILABLE"), (EndReason.FAILED, "INTERNAL"))
            )
            found[0].break_off(found[1], reason, code)

    def an_engine_goes_down(self, dice: random.Random) -> None:
        worker = dice.choice(self.workers)
        if worker.up and not worker.problem:
            self.seen["engines down"] += 1
            worker.engine_lost()

    def engines_come_up(self, dice: random.Random) -> None:
        for worker in self.workers:
            if worker.up and worker.problem:
                self.seen["engines up again"] += 1
                worker.engine_ready(self._maybe_resized(worker.facts, dice))

    def an_engine_starts_anew(self, dice: random.Random) -> None:
        """It was never missed: all that its worker hears is that it is ready, once more."""
        worker = dice.choice(self.workers)
        if worker.up and not worker.problem:
            self.seen["engines started anew"] += 1
            worker.engine_ready(self._maybe_resized(worker.facts, dice))

    def an_engines_word_on_its_blocks_is_lost(self, dice: random.Random) -> None:
        worker = dice.choice(self.workers)
        if worker.up and not worker.blocks_unknown:
            self.seen["words on blocks lost"] += 1
            worker.blocks_are_unknown(True)

    def engines_say_which_blocks_they_have(self, dice: random.Random) -> None:
        for worker in self.workers:
            if worker.up and worker.blocks_unknown:
                worker.blocks_are_unknown(False)

    def a_worker_drains(self, dice: random.Random) -> None:
        worker = dice.choice(self.workers)
        if worker.up and not worker.draining:
            self.seen["drained"] += 1
            worker.drain(True)

    def workers_drain_no_more(self, dice: random.Random) -> None:
        for worker in self.workers:
            if worker.up and worker.draining:
                worker.drain(False)

    # Ends of processes.

    def a_worker_crashes(self, dice: random.Random) -> None:
        worker = dice.choice([w for w in self.workers if w.up] or [None])
        if worker is None:
            return
        self.seen["workers crashed"] += 1
        self.seen["claims lost in crashes"] += len(worker.live)
        worker.crash()
        for wire in self.wires:
            if getattr(wire.callee, "worker", None) is worker:
                wire.break_(dice)
                wire.callee_lets_go()

    def a_worker_starts_again(self, dice: random.Random) -> None:
        for worker in self.workers:
            if not worker.up:
                self.seen["workers started again"] += 1
                worker.start_up(self._maybe_resized(self._booted(worker.facts, dice), dice), self.now)
                self._has_habits(worker, dice)

    def a_router_dies(self, dice: random.Random) -> None:
        name = dice.choice(sorted(self.routers))
        router = self.routers[name]
        if router is None:
            return
        self.seen["routers died"] += 1
        self.seen["leases adopted"] += router.admission.leases.adopted
        self.routers[name] = None
        for wire in self.wires:
            for end in (wire.caller, wire.callee):
                if getattr(end, "router", None) is router:
                    wire.break_(dice)
                    (wire.caller_lets_go if end is wire.caller else wire.callee_lets_go)()

    def a_router_starts_again(self, dice: random.Random) -> None:
        for name, router in self.routers.items():
            if router is None:
                self.seen["routers started again"] += 1
                self._start_router(name, dice)

    # Time and rules.

    def time_passes(self, dice: random.Random) -> None:
        self._pass(dice.choice((0.01, 0.1, 0.1, 0.4, 1.0)))

    def much_time_passes(self, dice: random.Random) -> None:
        self._pass(dice.choice((2.5, 3.5, 7.0)))

    def a_clock_leaps(self, dice: random.Random) -> None:
        """One process finds that minutes have passed, which the others have not seen."""
        leap = dice.choice((30.0, 70.0, 300.0))
        self.seen["clocks leapt"] += 1
        everybody: list[Router | Worker] = [*self._up(), *self.workers]
        which = dice.choice(everybody)
        which.ahead += leap
        self._pass(0.0)

    def rules_change(self, dice: random.Random) -> None:
        routers = self._up()
        if routers:
            self.seen["rules changed"] += 1
            dice.choice(routers).new_rules(dice.choice(self.scene.rules))

    # The end.

    def settle(self, dice: random.Random) -> None:
        """Bad luck is over: every process is up, nothing is asked any more, and all that is open ends."""
        self.a_router_starts_again(dice)
        self.a_worker_starts_again(dice)
        self.who_was_cut_off_is_so_no_more(dice)
        for worker in self.workers:
            if worker.draining:
                worker.drain(False)
            if worker.problem:
                worker.engine_ready(worker.facts)
            worker.blocks_are_unknown(False)
        for turn in range(400):
            self._everything_moves(dice, full=turn % 4 == 0)
            self.look()
            if turn > 8 and self._quiet():
                break
        else:
            raise AssertionError(f"after {turn} rounds without trouble something is still open: {self}")
        self._everything_moves(dice, full=True)  # what others held is told once a second only
        truths.at_the_end(self.workers, self._up())
        self.seen["leases adopted"] += sum(router.admission.leases.adopted for router in self._up())

    def _everything_moves(self, dice: random.Random, *, full: bool) -> None:
        self.routers_dial(dice)
        self.a_client_connects(dice)
        self.pauses_are_over(dice)
        for worker in self.workers:
            for sequence in list(worker.live.values()):
                self._to_its_end(worker, sequence)
            for feed in worker.feeds.values():
                if full:
                    feed.full_due()
                feed.write(self.now)
        for wire in list(self.wires):
            while wire.caller_has_news:
                wire.reach_caller()
            while wire.callee_has_news:
                wire.reach_callee()
        self._pass(0.5)

    def _to_its_end(self, worker: Worker, sequence: Sequence) -> None:
        if not sequence.submitted:
            worker.count(sequence)
        elif sequence.verdict is not None:
            worker.let_go(sequence)
        elif not sequence.prefilled:
            worker.read(sequence)
        else:
            worker.say_tokens(sequence, 50)

    def _quiet(self) -> bool:
        return (
            not any(client.requests for client in self.clients)
            and not any(
                worker.live or any(f.has_news for f in worker.feeds.values()) for worker in self.workers
            )
            and not any(wire.caller_has_news or wire.callee_has_news for wire in self.wires)
            and not any(r.admission.leases.all() for r in self._up())
            and not any(len(w.ledger) for r in self._up() for w in r.admission.workers.values())
        )

    # What must be true.

    def look(self) -> None:
        routers = self._up()
        for router in routers:
            truths.about_router(router)
        for worker in self.workers:
            if worker.up:
                truths.about_worker(worker)
        truths.about_both(self.workers, routers)

    # Parts.

    def open_stream(self, worker: str, end: object) -> Wire:
        at = next(w for w in self.workers if w.name == worker)
        wire = self._wire("stream", end, StreamEnd(at))
        if not at.up:
            wire.callee_lets_go()
        return wire

    def _dialler(self, worker: Worker) -> Callable[[LinkEnd], Wire]:
        return lambda end: self._wire("link", end, Feed(worker))

    def _wire(self, kind: str, caller: object, callee: object) -> Wire:
        wire = Wire(kind, caller, callee)  # type: ignore[arg-type]
        self.wires.append(wire)
        return wire

    def _carry(self, dice: random.Random, wires: list[Wire]) -> None:
        if not wires:
            return
        wire = dice.choice(wires)
        for _ in range(dice.randint(1, 4)):
            if wire.caller_has_news and (not wire.to_callee or dice.random() < 0.5):
                wire.reach_caller()
            elif wire.to_callee:
                wire.reach_callee()
        if len(self.wires) > 60:
            self.wires = [wire for wire in self.wires if not wire.over]

    def _pass(self, seconds: Seconds) -> None:
        self.now += seconds
        for worker in self.workers:
            worker.time_passes(self.now)
        for client in self.clients:
            del client.shown[:-12], client.told_to_come[:-12]
            for request in list(client.requests.values()):
                request.time_passes(self.now)
        for router in self._up():
            router.tick()

    @property
    def _alive(self) -> int:
        return sum(len(client.requests) for client in self.clients)

    def _up(self) -> list[Router]:
        return [router for router in self.routers.values() if router is not None]

    def _start_router(self, name: str, dice: random.Random) -> None:
        self._epochs += 1
        router = self.routers[name] = Router(
            name,
            dice.choice(self.scene.rules),
            [worker.name for worker in self.workers],
            epoch=self._epochs,
            now=lambda: self.now,
            zero=dice.choice((0.0, 1000.0, 1e7)),
            seen=self.seen,
            stopped_wrongly=self._stopped_wrongly,
            placement=dice.choice(PLACEMENTS)(),
        )
        if dice.random() < 0.8:
            self._has_experience(router, dice)

    def _has_experience(self, router: Router, dice: random.Random) -> None:
        """It knows how long answers come to be: mostly short, so that those which are not have to grow."""
        for tier in ("interactive", "bulk", "night"):
            for model in (M, K):
                for _ in range(40):
                    tokens = dice.choice(self.scene.experience)
                    router.admission.lengths.saw("long ago", tier, model, tokens)

    def _new_client(self, router: str) -> Client:
        self._requests += 1
        return Client(f"client{self._requests}", router, self.seen, lambda: self.now, self.open_stream)

    def _booted(self, facts: WorkerFacts, dice: random.Random) -> WorkerFacts:
        self._boots += 1
        return replace(facts, boot=self._boots, can_grow=dice.random() < 0.85)

    def _has_habits(self, worker: Worker, dice: random.Random) -> None:
        """How fast its clock runs, when it asks for more, and whether its engine can let a sequence wait."""
        worker.rate = dice.choice((1.0, 0.999, 1.002))
        worker.growth = Growth(worker, dice.choice((LEAD, LEAD, 16, 0)), pauses=dice.random() < 0.75)

    def _maybe_resized(self, facts: WorkerFacts, dice: random.Random) -> WorkerFacts:
        if dice.random() < 0.5:
            return facts
        usual = next(f for f in self.scene.fleet if f.name == facts.name)
        return replace(
            facts,
            capacity_blocks=usual.capacity_blocks + dice.choice((-6, 0, 5)),
            capacity_slots=usual.capacity_slots + dice.choice((-1, 0, 1)),
        )

    def _link_with_reports(self, dice: random.Random) -> Wire | None:
        links = [w for w in self.wires if w.kind == "link" and w.to_caller and not w.cut]
        return dice.choice(links) if links else None

    def _some_request(self, dice: random.Random) -> Request | None:
        requests = [request for client in self.clients for request in client.requests.values()]
        return dice.choice(requests) if requests else None

    def _stopped_wrongly(self, router: Router, stop: StopClaim) -> bool:
        """Whether the router knows that the claim runs, and its client reads it, its stream whole."""
        charge = router.admission.workers[stop.worker].ledger.charge_of(stop.claim)
        if stop.reason is not EndReason.REVOKED or charge is None or not charge.held:
            return False
        return any(
            self._is_read(request, stop.claim) for c in self.clients for request in c.requests.values()
        )

    def _is_read(self, request: Request, claim: Claim) -> bool:
        return (
            request.state is State.STARTED
            and request.grant is not None
            and request.grant.claim == claim
            and request.longest > 0
            and request.wire is not None
            and not request.wire.cut
            and not any(isinstance(message, Cancel) for message in request.wire.to_callee)
        )

    def __str__(self) -> str:
        open_requests = [
            f"{r.wanted.request_id} {r.state.name}" for c in self.clients for r in c.requests.values()
        ]
        live = [f"{w.name}:{claim}" for w in self.workers for claim in w.live]
        leases = [str(lease) for r in self._up() for lease in r.admission.leases.all()]
        charges = [
            f"{r.name}/{w.name}:{w.ledger.claims()}"
            for r in self._up()
            for w in r.admission.workers.values()
            if len(w.ledger)
        ]
        return f"requests {open_requests}, live {live}, leases {leases}, charges {charges}"


class _Stranger:
    """Somebody who shows a grant that is not theirs, and waits for no answer."""

    def hear(self, wire: Wire, message: object) -> None:
        assert not isinstance(message, Report)

    def lost(self, wire: Wire) -> None:
        pass
