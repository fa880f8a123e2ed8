"""What workers say of themselves and of the claims that they hold, and what follows when they fall silent."""

from diplex_core.books import Books
from diplex_core.events import (
    EndedClaim,
    HeldClaim,
    Redial,
    Refusal,
    Report,
    StopClaim,
    Why,
    WorkerFacts,
)
from diplex_core.fleet import Worker
from diplex_core.growing import Growing
from diplex_core.guests import Guest, Guests
from diplex_core.lease import Lease, State, Turn
from diplex_core.lessons import Lessons
from diplex_core.model.forecast import forecast_of
from diplex_core.outcome import outcome_of
from diplex_core.past import Ending
from diplex_core.words import EndReason, Seconds

BETWEEN_AT_MOST: Seconds = 30.0
"""A request that gave way and is not asked for again within this is taken to be given up."""

_GAVE_WAY = frozenset({EndReason.REFUSED, EndReason.PREEMPTED})
_WHOLE = frozenset({EndReason.STOP, EndReason.LENGTH})


class Listening(Books):
    """A router's books, and how its workers' reports change them."""

    def _reported(self, worker: Worker, report: Report, now: Seconds) -> None:
        if report.number != worker.last_number + 1 and report.number != 1:
            self._out.append(
                Redial(worker.name, f"report {worker.last_number + 1} is missing, {report.number} came")
            )
            return
        if report.facts is not None:
            self._introduced(worker, report.facts, now)
        if worker.known is None:
            self._out.append(Redial(worker.name, "the first report did not say what the worker is"))
            return
        opens = worker.note(report, now)
        facts = worker.facts
        held_blocks = max(report.used_blocks, report.observed_blocks or 0)
        if held_blocks > facts.capacity_blocks or report.used_slots > facts.capacity_slots:
            self.over_capacity += 1
        for held in report.held:
            self._held(worker, held, now)
        for ended in report.ended:
            self._ended(worker, ended, now)
        if report.full:
            self._reconcile(worker, report, now)
        if worker.note_others(report) or opens:
            self._opens(worker)
        for wanted in report.wants:
            self._giving_way.wants(worker, wanted, now)
        if self._unlinked:
            self._unlinked.discard(worker.name)
        if self._silent:
            self._silent.discard(worker.name)
            self.ready |= not self._silent

    def _introduced(self, worker: Worker, facts: WorkerFacts, now: Seconds) -> None:
        """A worker says what it is; a new boot, or a pool of another size, starts a new account."""
        known = worker.known
        if facts is known or facts == known:
            return
        worker.introduce(facts)
        worker.share.moved(self._peers[facts.kind], now)
        self._index.introduced(worker)
        size = (facts.boot, facts.capacity_blocks, facts.capacity_slots, facts.guard_blocks)
        if known is not None and size == (
            known.boot,
            known.capacity_blocks,
            known.capacity_slots,
            known.guard_blocks,
        ):
            self._opens(worker)
            return
        self._lose_claims(worker, now)
        worker.guests, worker.forecast, worker.lessons = Guests(), forecast_of(facts), Lessons()
        worker.growing = Growing()
        worker.open_account()
        self._opens(worker)

    def _held(self, worker: Worker, held: HeldClaim, now: Seconds) -> None:
        claim, ledger = held.claim, worker.ledger
        lease = self.leases.get(claim.lease_id)
        charge = ledger.charge_of(claim)
        if charge is None:
            self._found(worker, held, lease, now)
            return
        before = charge.blocks
        if held.blocks != charge.said or held.answers_raise:
            ledger.confirm(claim, held.blocks, held.answers_raise)
            tenant = self.queueing.quotas.resized(claim, charge.blocks)
            if charge.blocks < before:
                if tenant:
                    self.waiting.let_in(tenant)
                self._opens(worker)
            elif charge.blocks > before:
                self._index.touched(worker)
        first = held.prefilled and charge.prefill and ledger.prefilled(claim)
        if first:
            worker.read(claim, now)
            self._index.read(worker)
        mine = lease is not None and lease.attempt == claim.attempt
        if lease is not None and mine and (first or lease.state is not State.RUNNING):
            if first and lease.first_token is None:
                lease.first_token = now
            lease.turn(Turn.HELD)

    def _found(self, worker: Worker, held: HeldClaim, lease: Lease | None, now: Seconds) -> None:
        """A worker holds a claim that is not charged: from a former life, or of an older attempt."""
        claim = held.claim
        self._adopt(worker, held, now)
        if lease is None:
            self.leases.adopt(claim, worker.name, held.tenant, now)
        elif lease.ask is None and claim.attempt > lease.attempt:
            # Both were granted by an earlier life of this router: the newer one is the request's.
            self._want_back(lease, EndReason.REVOKED, "a newer attempt of the request runs", now)
            lease.attempt, lease.worker = claim.attempt, worker.name
        else:
            # The client has asked anew since; what still runs of the older attempt is nobody's.
            worker.want_back(claim)
            stale = Refusal(Why.NEVER_STARTED, "the request was asked for again since")
            self._out.append(StopClaim(worker.name, claim, EndReason.REVOKED, stale))

    def _adopt(self, worker: Worker, held: HeldClaim, now: Seconds) -> None:
        """Charge a claim that the worker says it holds, and that the ledger does not know or not so large."""
        to_read = 0 if held.prefilled else held.prompt_tokens
        worker.ledger.adopt(held.claim, held.blocks, held.slots, to_read)
        self._index.touched(worker)
        tier = self.rules.tiers.get(held.tier)
        guest = Guest(tier.priority if tier else held.priority)
        worker.guests.came(held.claim, guest, prompt=to_read, reading=None, now=now)
        self.queueing.quotas.holds(held.claim, held.tenant, held.blocks)
        if held.grows:
            worker.growing.came(held.claim, held.priority, now)
            self._giving_way.grows_on(worker)

    def _ended(self, worker: Worker, ended: EndedClaim, now: Seconds) -> None:
        worker.ended(ended)
        self._free(worker, ended.claim, now)
        refused = ended.reason is EndReason.REFUSED
        worker.refused += refused
        self.refused_by_worker += refused
        lease = self.leases.get(ended.claim.lease_id)
        if lease is None or lease.attempt != ended.claim.attempt:
            return
        if lease.ask is not None:
            ending = Ending(now, reason=ended.reason, output_tokens=ended.output_tokens)
            self.past.ended(lease.ask.request_id, ending)
        self.preempted += ended.reason is EndReason.PREEMPTED
        if ended.reason in _GAVE_WAY and lease.key is not None:
            if lease.turn(Turn.GAVE_WAY):
                self._due.expect(lease.lease_id, now + BETWEEN_AT_MOST)
            return
        if ended.reason is EndReason.PREEMPTED:  # its client is on its way to another session
            self._close(lease, Turn.ENDED, now)
            return
        if lease.wish is not None and ended.reason in _WHOLE:
            wish, length = lease.wish, ended.output_tokens // lease.wish.choices
            self.lengths.saw(wish.tenant.name, wish.tier.name, wish.model, length)
        served = outcome_of(lease, worker.facts, ended, now)
        # One that is not closed by this was asked for again, and is not over.
        if self._close(lease, Turn.ENDED, now, ended.output_tokens) and served is not None:
            self._out.append(served)

    def _reconcile(self, worker: Worker, report: Report, now: Seconds) -> None:
        """A full report lists every claim: one that the worker held and that is missing is over."""
        worker.growing.only({wanted.claim for wanted in report.wants})
        self._index.touched(worker)  # it may have another bit by now
        held, ledger = {held.claim for held in report.held}, worker.ledger
        for claim in ledger.missing(held):
            charge = ledger.charge_of(claim)
            if charge is None or not charge.held:
                continue  # not held yet is not yet missing: its start may be on its way
            self._free(worker, claim, now)
            lease = self.leases.get(claim.lease_id)
            if lease is not None and lease.claim == claim:
                self._close(lease, Turn.ENDED, now)
        worker.drift = abs(report.used_blocks - report.foreign_blocks - ledger.held_blocks)
        self.drift_max = max(self.drift_max, worker.drift)

    def _link_lost(self, worker: Worker, problem: str, now: Seconds) -> None:
        if worker.linked or not worker.problem:
            worker.lost_at = now
        worker.linked = False
        worker.share.counts(False, now)
        self._index.touched(worker)
        if not worker.given_up:
            self._unlinked.add(worker.name)
        worker.problem = problem or "its link broke"
        worker.last_number = 0

    def _give_up(self, worker: Worker, now: Seconds) -> None:
        worker.given_up = True
        self._index.touched(worker)
        self._unlinked.discard(worker.name)
        self._lose_claims(worker, now)
        self.ready |= all(self.workers[name].given_up for name in self._silent)

    def _lose_claims(self, worker: Worker, now: Seconds) -> None:
        """Every claim on this worker is void: it was given up, or started anew."""
        for claim in worker.ledger.claims():
            self._free(worker, claim, now)
            lease = self.leases.get(claim.lease_id)
            if lease is not None and lease.claim == claim:
                self._close(lease, Turn.ENDED, now)
