"""The desk: who may start on this worker, and who ends it.

Starts, cancels and windows come in from clients, stops and raises from routers; what follows goes out on the
streams and feeds. Everything is a plain call and none waits: only counting a prompt takes time, so that is
handed out and comes back through `counted`. A claim is taken the moment its start is accepted, and freed once
the engine has let go of it, by way of `finish`, whatever ended it.
"""

from collections.abc import Callable
from typing import Final

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import worker_pb2
from diplex.wire.status import Problem
from diplex_core.pool import NoRoom
from diplex_core.words import Blocks, EndReason, Seconds, Tokens, blocks_needed
from diplex_workers import refusals
from diplex_workers.account import Account
from diplex_workers.claims import ON_WIRE, claim_in_core, stop_reason
from diplex_workers.engines.engine import Counted, Facts, Job
from diplex_workers.gate import Gate, Turned
from diplex_workers.sequence import Sequence, Verdict
from diplex_workers.stream import TokenStream

WINDOW_SHUT: Final[Seconds] = 30.0
"""A sequence whose window lets nothing through for this long is ended."""
OPEN_MAX_TOKENS: Final[Tokens] = 4096
"""Most output of a request that came without a grant and did not say."""

# After these, what the window holds back is still said before `done`.
_ALL_IS_SAID: Final = frozenset({EndReason.STOP, EndReason.LENGTH, EndReason.PREEMPTED})


class Desk:
    """Clients' and routers' side of a worker.

    Args:
        count: begins counting a sequence's prompt; `counted` or `uncountable` is called with the answer.
    """

    def __init__(self, account: Account, gate: Gate, count: Callable[[Sequence], None]) -> None:
        self.account = account
        self.gate = gate
        self._count = count
        self._open_requests = 0

    # Starts.

    def start(self, start: worker_pb2.Start, stream: TokenStream) -> None:
        """Take a granted request on, or say on its stream why not.

        Raises:
            Problem: INVALID_ARGUMENT, the sequence number is in use on this stream.
        """
        if start.seq in stream.sequences:
            raise refusals.number_in_use(start.seq)
        account = self.account
        grant = self.gate.show(start.grant, account.clock.now())
        if isinstance(grant, Turned):
            self._turn_away(start, stream, grant.problem, grant.grant)
            return
        objection = self._objection(start)
        if objection is not None:
            self._turn_away(start, stream, objection, grant)
            return
        choices = grant.choices or 1
        claim, slots = claim_in_core(grant.claim), max(grant.slots, choices)
        no_room = account.pool.take(claim, grant.blocks, slots, grant.router)
        if no_room is not None:
            self._turn_away(start, stream, refusals.no_room(no_room), grant, no_room)
            return
        self._accept(start, stream, grant)

    def start_open(
        self, start: worker_pb2.Start, stream: TokenStream, max_tokens: Tokens, choices: int
    ) -> None:
        """Take on a request without a grant, as an open worker does. Its blocks are taken once counted.

        Raises:
            Problem: UNAUTHENTICATED, the worker is not open.
        """
        if not self.account.settings.open:
            raise refusals.needs_a_grant()
        objection = self._objection(start)
        if objection is not None:
            self._turn_away(start, stream, objection)
            return
        self._open_requests += 1
        # Routers count their attempts from 1, so this is nobody's claim.
        claim = pb.Claim(lease_id=self._open_requests, attempt=0)
        grant = pb.Grant(claim=claim, max_tokens=max_tokens or OPEN_MAX_TOKENS, choices=choices or 1)
        self._accept(start, stream, grant)

    def counted(self, sequence: Sequence, counted: Counted) -> None:
        """The prompt's length is known: lower the claim to the true need and hand it to the engine."""
        if sequence.over:
            return
        account, facts = self.account, self._facts()
        sequence.counted = counted
        if counted.exact:
            account.bounds[sequence.model].learn(sequence.prompt, counted.tokens)
        if counted.tokens >= facts.context:
            self.finish(sequence, Verdict(EndReason.FAILED, refusals.too_long(counted.tokens, facts.context)))
            return
        sequence.max_tokens = min(sequence.max_tokens, facts.context - counted.tokens)
        left = sequence.max_tokens - sequence.from_index
        if left < 1:
            self.finish(sequence, Verdict(EndReason.LENGTH))
            return
        to_read = counted.tokens + sequence.from_index
        needed = blocks_needed(to_read, left, facts.block_tokens, choices=sequence.choices)
        no_room = self._fit(sequence, needed)
        if no_room is not None:
            self.finish(sequence, Verdict(EndReason.REFUSED, refusals.no_room(no_room)), no_room)
            return
        sequence.submitted = True
        account.engine.submit(
            Job(
                claim=sequence.claim,
                model=sequence.model,
                prompt=sequence.prompt,
                counted=counted,
                sampling=sequence.sampling,
                max_tokens=sequence.max_tokens,
                choices=sequence.choices,
                resume=sequence.resume,
                priority=sequence.priority,
            )
        )

    def uncountable(self, sequence: Sequence, problem: Problem) -> None:
        """The engine cannot read the prompt."""
        self.finish(sequence, refusals.verdict(problem))

    # What clients and routers do to what runs.

    def cancel(self, stream: TokenStream, seq: int) -> None:
        if (sequence := stream.sequences.get(seq)) is not None:
            self._end_early(sequence, Verdict(EndReason.CANCELLED))

    def window(self, stream: TokenStream, seq: int, upto: Tokens) -> None:
        """Tokens below index `upto` may be sent from now on; 0: all."""
        sequence = stream.sequences.get(seq)
        if sequence is None:
            return
        moved = sequence.open_window(upto)
        if sequence.window_alarm is not None and (moved or not sequence.held_back):
            sequence.window_alarm.cancel()
            sequence.window_alarm = None
        if sequence.held_back:
            self.watch_window(sequence)
        elif sequence.last_word is not None:
            stream.done(sequence.last_word)

    def watch_window(self, sequence: Sequence) -> None:
        """Its window holds tokens back: that may last only so long."""
        if sequence.window_alarm is None:
            when = self.account.clock.now() + WINDOW_SHUT
            sequence.window_alarm = self.account.clock.at(when, lambda: self._window_shut(sequence))

    def stream_ended(self, stream: TokenStream) -> None:
        """The client is gone: everything that lived on its stream ends."""
        for sequence in list(stream.sequences.values()):
            if sequence.window_alarm is not None:
                sequence.window_alarm.cancel()
            self._end_early(sequence, Verdict(EndReason.CANCELLED))

    def stop(self, router: str, stop: worker_pb2.Stop) -> None:
        """A router wants one of its claims ended. Answered by `ended`: now, or when the engine let go."""
        claim, reason = claim_in_core(stop.claim), stop_reason(stop.reason)
        problem = Problem.from_bytes(stop.status) if stop.status else refusals.taken_back(router)
        sequence = self.account.live.get(claim)
        if sequence is not None and sequence.owner == router:
            self._end_early(sequence, Verdict(reason, problem))
            return
        self.gate.stopped(claim, problem, self.account.clock.now())
        self.account.tell_ended(router, worker_pb2.Ended(claim=stop.claim, reason=ON_WIRE[reason]))

    def raise_claim(self, router: str, order: worker_pb2.Raise) -> None:
        """A claim's whole new size. Answered by one `held` that names the order and the size it has then."""
        account, claim = self.account, claim_in_core(order.claim)
        feed, sequence = account.feeds.get(router), account.live.get(claim)
        if feed is None:
            return
        if sequence is None or sequence.owner != router:
            feed.ended(worker_pb2.Ended(claim=order.claim, reason=pb.END_REASON_REVOKED))
            return
        if account.pool.resize(claim, order.blocks) is not None:
            feed.wants(claim, order.blocks)
        feed.answer(claim, order.id)

    def drain(self, active: bool) -> None:
        """Finish what runs and take nothing new; not `active`: take new work again."""
        self.account.draining = active
        self.account.tell_all()

    # The end of a sequence.

    def finish(self, sequence: Sequence, verdict: Verdict, no_room: NoRoom | None = None) -> None:
        """Its engine has let go of it, or never had it: free its claim and say `done`."""
        if sequence.over:
            return
        sequence.over, sequence.ended = True, self.account.clock.now()
        if sequence.deadline_alarm is not None:
            sequence.deadline_alarm.cancel()
        self.account.free(sequence, verdict)
        done = sequence.done(verdict)
        if verdict.reason is EndReason.REFUSED:
            self.account.refused += 1
        if no_room is not None:
            done.needed_blocks, done.free_blocks = no_room.needed_blocks, self.account.pool.free_blocks
        if sequence.held_back and verdict.reason in _ALL_IS_SAID:
            sequence.last_word = done
            return
        if sequence.window_alarm is not None:
            sequence.window_alarm.cancel()
        sequence.held_back.clear()
        sequence.stream.done(done)

    def _end_early(self, sequence: Sequence, verdict: Verdict) -> None:
        """Somebody wants it ended: at once, or when its engine says that it has let go."""
        if sequence.over:
            if sequence.last_word is not None and verdict.reason is EndReason.CANCELLED:
                self._say_last(sequence, verdict)
        elif not sequence.submitted:
            self.finish(sequence, verdict)
        elif sequence.verdict is None:
            sequence.verdict = verdict
            self.account.engine.cancel(sequence.claim)

    def _window_shut(self, sequence: Sequence) -> None:
        sequence.window_alarm = None
        verdict = Verdict(EndReason.FAILED, refusals.window_shut(sequence.upto, WINDOW_SHUT))
        if sequence.over:
            self._say_last(sequence, verdict)
        else:
            self._end_early(sequence, verdict)

    def _say_last(self, sequence: Sequence, verdict: Verdict) -> None:
        """Its claim is long free; what its window still held back is dropped."""
        if sequence.window_alarm is not None:
            sequence.window_alarm.cancel()
        sequence.held_back.clear()
        sequence.last_word = None
        sequence.stream.done(sequence.done(verdict))

    def _deadline_passed(self, sequence: Sequence) -> None:
        problem = refusals.deadline_passed(self.account.clock.now() - sequence.arrived)
        self._end_early(sequence, Verdict(EndReason.CANCELLED, problem))

    # Parts of a start.

    def _accept(self, start: worker_pb2.Start, stream: TokenStream, grant: pb.Grant) -> None:
        account, facts = self.account, self._facts()
        model = start.model or facts.models[0].name
        now = account.clock.now()
        sequence = Sequence(
            claim=claim_in_core(grant.claim),
            owner=grant.router,
            stream=stream,
            seq=start.seq,
            request_id=grant.request_id,
            model=model,
            tier=grant.tier,
            tenant=grant.tenant,
            priority=grant.priority,
            choices=grant.choices or 1,
            max_tokens=grant.max_tokens,
            prompt=start.prompt,
            sampling=start.sampling,
            resume=start.resume if start.HasField("resume") else None,
            arrived=now,
            tally=account.tally(model, grant.tier),
            upto=start.window_upto,
            traceparent=start.traceparent,
            tracestate=start.tracestate,
        )
        account.live[sequence.claim] = stream.sequences[start.seq] = sequence
        if start.timeout_ms:
            due = now + start.timeout_ms / 1000
            sequence.deadline_alarm = account.clock.at(due, lambda: self._deadline_passed(sequence))
        account.tell_changed(sequence)
        self._count(sequence)

    def _objection(self, start: worker_pb2.Start) -> Problem | None:
        """Why nothing like this can start now, whatever it holds."""
        account = self.account
        if account.problem or account.facts is None:
            return refusals.engine_down(account.settings.name, account.problem)
        if account.draining:
            return refusals.draining(account.settings.name)
        served = {model.name: model for model in account.facts.models}
        model = served.get(start.model or account.facts.models[0].name)
        if model is None:
            return refusals.unknown_model(start.model, served)
        if start.prompt.WhichOneof("content") == "chat" and not model.has_chat_template:
            return refusals.no_chat_template(model.name)
        return None

    def _turn_away(
        self,
        start: worker_pb2.Start,
        stream: TokenStream,
        problem: Problem,
        grant: pb.Grant | None = None,
        no_room: NoRoom | None = None,
    ) -> None:
        """Say `done` for a request that was not taken on, and `ended` to the router that granted it."""
        self.account.refused += 1
        verdict = refusals.verdict(problem)
        done = pb.Done(seq=start.seq, reason=ON_WIRE[verdict.reason], error=problem.to_bytes())
        if no_room is not None:
            done.needed_blocks, done.free_blocks = no_room.needed_blocks, no_room.free_blocks
        # A second showing of a grant must not free what the first one holds.
        if grant is not None:
            done.claim.CopyFrom(grant.claim)
            if claim_in_core(grant.claim) not in self.account.live:
                ended = worker_pb2.Ended(claim=grant.claim, reason=done.reason)
                self.account.tell_ended(grant.router, ended)
        stream.done(done)

    def _fit(self, sequence: Sequence, needed: Blocks) -> NoRoom | None:
        """Lower the claim to what is needed. A grant that is too small is never stretched."""
        pool, claim = self.account.pool, sequence.claim
        holding = pool.holding(claim)
        if holding is None:  # an open request: it takes its blocks only now
            return pool.take(claim, needed, sequence.choices, sequence.owner)
        if needed > holding.blocks:
            return NoRoom(needed, pool.free_blocks, holding.slots, pool.free_slots)
        if needed < holding.blocks:
            pool.resize(claim, needed)
            self.account.tell_changed(sequence)
        return None

    def _facts(self) -> Facts:
        if self.account.facts is None:
            raise LookupError("a sequence was accepted before the engine was ready")
        return self.account.facts
