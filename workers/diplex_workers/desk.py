"""The desk: what runs on this worker, and how each of it ends.

Cancels and windows come in from clients, stops and raises from routers; what follows goes out on the streams
and feeds. Everything is a plain call and none waits. A claim is freed once the engine has let go of it, by
way of `finish`, whatever ended it.
"""

from typing import Final

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import worker_pb2
from diplex.wire.status import Problem
from diplex_core.words import Blocks, EndReason, Seconds, Tokens
from diplex_workers import refusals
from diplex_workers.account import Account
from diplex_workers.claims import ON_WIRE, claim_in_core, stop_reason
from diplex_workers.feed import Feed
from diplex_workers.gate import Gate
from diplex_workers.growing import Growing
from diplex_workers.sequence import Sequence, Verdict
from diplex_workers.stream import TokenStream

WINDOW_SHUT: Final[Seconds] = 30.0
"""A sequence whose window lets nothing through for this long is ended."""

# After these, what the window holds back is still said before `done`.
_ALL_IS_SAID: Final = frozenset({EndReason.STOP, EndReason.LENGTH, EndReason.PREEMPTED})


class Desk:
    """What clients and routers do to sequences that were accepted."""

    def __init__(self, account: Account, gate: Gate) -> None:
        self.account = account
        self.gate = gate
        self.growing = Growing(account, self._gives_way)

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
        holding = account.pool.holding(claim)
        # Never lowered by an order: what the engine may already have filled stays paid for.
        if holding is not None and order.blocks > holding.blocks:
            if account.pool.resize(claim, order.blocks) is None:
                self.growing.grew(sequence)
            elif sequence.wanted:
                feed.wants(claim)
        feed.answer(claim, order.id)

    def unlink(self, feed: Feed) -> None:
        """A router's link is over. Until it has another, its claims grow from what the pool has free."""
        self.account.unlink(feed)
        self.growing.help_themselves()

    def drain(self, active: bool) -> None:
        """Finish what runs and take nothing new; not `active`: take new work again."""
        self.account.draining = active
        self.account.tell_all()

    # The end of a sequence.

    def finish(self, sequence: Sequence, verdict: Verdict, *, needed: Blocks = 0) -> None:
        """Its engine has let go of it, or never had it: free its claim and say `done`.

        Args:
            needed: blocks that it would take, where it was refused for want of them.
        """
        if sequence.over:
            return
        sequence.over, sequence.ended = True, self.account.clock.now()
        if sequence.deadline_alarm is not None:
            sequence.deadline_alarm.cancel()
        self.account.free(sequence, verdict)
        self.growing.ended(sequence)
        done = sequence.done(verdict)
        if verdict.reason is EndReason.REFUSED:
            self.account.refused += 1
        if needed:
            done.needed_blocks, done.free_blocks = needed, self.account.pool.free_blocks
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

    def _gives_way(self, sequence: Sequence) -> None:
        """It has no more room, and its engine cannot pause it."""
        problem = refusals.gave_way(self.account.settings.name, sequence.limit)
        self._end_early(sequence, Verdict(EndReason.PREEMPTED, problem))

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

    def watch_deadline(self, sequence: Sequence, due: Seconds) -> None:
        sequence.deadline_alarm = self.account.clock.at(due, lambda: self._deadline_passed(sequence))

    def _deadline_passed(self, sequence: Sequence) -> None:
        problem = refusals.deadline_passed(self.account.clock.now() - sequence.arrived)
        self._end_early(sequence, Verdict(EndReason.CANCELLED, problem))
