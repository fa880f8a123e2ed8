"""The reception: who may start on this worker, and what it takes for that.

A start is checked, and its claim taken whole, the moment it comes. Only counting its prompt takes time, so
that is handed out and comes back through `counted`, which lowers the claim to the true need and gives the job
to the engine, or refuses it.
"""

from collections.abc import Callable
from typing import Final

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import worker_pb2
from diplex.wire.status import Problem
from diplex_core.pool import NoRoom
from diplex_core.words import BlockHash, Blocks, EndReason, Tokens, blocks_needed
from diplex_workers import refusals
from diplex_workers.claims import ON_WIRE, claim_in_core
from diplex_workers.desk import Desk
from diplex_workers.engines.engine import Counted, Facts, Job
from diplex_workers.gate import Turned
from diplex_workers.prefixes import blocks_of
from diplex_workers.sequence import Sequence, Verdict
from diplex_workers.stream import TokenStream

OPEN_MAX_TOKENS: Final[Tokens] = 4096
"""Most output of a request that came without a grant and did not say."""


class Reception:
    """Takes requests on.

    Args:
        count: begins counting a sequence's prompt; `counted` or `uncountable` is called with the answer.
    """

    def __init__(self, desk: Desk, count: Callable[[Sequence], None]) -> None:
        self.desk = desk
        self.account = desk.account
        self._count = count
        self._open_requests = 0

    def start(self, start: worker_pb2.Start, stream: TokenStream) -> None:
        """Take a granted request on, or say on its stream why not.

        Raises:
            Problem: INVALID_ARGUMENT, the sequence number is in use on this stream.
        """
        if start.seq in stream.sequences:
            raise refusals.number_in_use(start.seq)
        account = self.account
        grant = self.desk.gate.show(start.grant, account.clock.now())
        if isinstance(grant, Turned):
            self._turn_away(start, stream, grant.problem, grant.grant)
            return
        objection = self._objection(start)
        if objection is not None:
            self._turn_away(start, stream, objection, grant)
            return
        choices = grant.choices or 1
        claim, slots = claim_in_core(grant.claim), max(grant.slots, choices)
        blocks, cached = blocks_of(start, grant, self._facts().block_tokens), grant.cached_blocks
        no_room = account.prefixes.take(claim, grant.blocks, slots, grant.router, blocks[:cached], cached)
        if no_room is not None:
            self._turn_away(start, stream, refusals.no_room(no_room), grant, no_room)
            return
        self._accept(start, stream, grant, hits=blocks[:cached], own=blocks[cached:])

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
        # Only whole blocks of the prompt itself are resident, whatever its client says that they are called.
        whole = counted.tokens // facts.block_tokens
        sequence.cached = min(len(sequence.hits), whole) * facts.block_tokens
        sequence.own = sequence.own[: max(0, whole - len(sequence.hits))]
        if counted.exact:
            account.bounds[sequence.model].learn(sequence.prompt, counted.tokens)
            if counted.tokens >= facts.context:
                self.desk.finish(sequence, refusals.verdict(refusals.too_long(counted.tokens, facts.context)))
                return
            # Of a bound nobody knows whether the prompt comes near it: there the engine is the judge.
            sequence.max_tokens = min(sequence.max_tokens, facts.context - counted.tokens)
        left = sequence.max_tokens - sequence.from_index
        if left < 1:
            self.desk.finish(sequence, Verdict(EndReason.LENGTH))
            return
        least, most = self._needed(sequence, 1 if sequence.grows else left), self._needed(sequence, left)
        objection = self._fit(sequence, least, most)
        if objection is not None:
            self.desk.finish(sequence, refusals.verdict(objection), needed=least)
            return
        sequence.submitted = True
        if facts.keeps_prefixes:
            # The last token is always read: what it says is the first of the answer.
            sequence.cached_tokens = min(sequence.cached, sequence.to_read - 1)
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
                limit=sequence.limit,
                cached=sequence.cached,
                salt=sequence.salt,
            )
        )
        if sequence.limit and sequence.length >= sequence.asks_at:
            self.desk.growing.came_to(sequence)

    def uncountable(self, sequence: Sequence, problem: Problem) -> None:
        """The engine cannot read the prompt."""
        self.desk.finish(sequence, refusals.verdict(problem))

    # Parts of a start.

    def _accept(
        self,
        start: worker_pb2.Start,
        stream: TokenStream,
        grant: pb.Grant,
        *,
        hits: tuple[BlockHash, ...] = (),
        own: tuple[BlockHash, ...] = (),
    ) -> None:
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
            hits=hits,
            own=own,
            salt=grant.prefix_salt,
            # Of several choices, or where nothing waits at a limit, a claim holds all that it may need.
            grows=grant.grows and grant.choices <= 1 and facts.can_grow and facts.can_resume,
            traceparent=start.traceparent,
            tracestate=start.tracestate,
        )
        account.live[sequence.claim] = stream.sequences[start.seq] = sequence
        if start.timeout_ms:
            self.desk.watch_deadline(sequence, now + start.timeout_ms / 1000)
        account.tell_changed(sequence)
        self._count(sequence)

    def _objection(self, start: worker_pb2.Start) -> Problem | None:
        """Why nothing like this can start now, whatever it holds."""
        account = self.account
        if account.problem or account.facts is None:
            return refusals.engine_down(account.settings.name, account.problem)
        if account.ailing:
            return refusals.engine_down(account.settings.name, account.ailing)
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

    def _needed(self, sequence: Sequence, output: Tokens) -> Blocks:
        """What it holds for so many tokens of output from each choice, once its prompt is counted."""
        facts = self._facts()
        return blocks_needed(
            sequence.to_read,
            output,
            facts.block_tokens,
            choices=sequence.choices,
            cached=sequence.cached,
            draft=facts.draft_tokens,
        )

    def _fit(self, sequence: Sequence, least: Blocks, most: Blocks) -> Problem | None:
        """Lower the claim to the most that it may need. A grant that is too small is never stretched."""
        pool, claim = self.account.pool, sequence.claim
        holding = pool.holding(claim)
        if holding is None:  # an open request: it takes its blocks only now
            no_room = pool.take(claim, most, sequence.choices, sequence.owner)
            if no_room is None:
                self.account.prefixes.took()
            return None if no_room is None else refusals.no_room(no_room)
        if least > holding.blocks:
            return refusals.grant_too_small(holding.blocks, least, sequence.to_read)
        if most < holding.blocks:
            pool.resize(claim, most)
            self.account.tell_changed(sequence)
            self.desk.growing.help_themselves()
        if sequence.grows:
            self.desk.growing.bound(sequence, holding.blocks)
        return None

    def _facts(self) -> Facts:
        if self.account.facts is None:
            raise LookupError("a sequence was accepted before the engine was ready")
        return self.account.facts
