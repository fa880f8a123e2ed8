"""Runs one request: ask, start, read, and ask again where a grant came to nothing.

What may happen when is the table in `life.py`; this is the thin runner beside it. The SDK runs it for its
users and the router for proxied requests: same table, same rules. Everything is a plain call on the running
event loop; there is no task and no queue between a frame and its consumer.
"""

import asyncio
from typing import Final

import grpc

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2, worker_pb2
from diplex.wire.detour import Detour, Proxied
from diplex.wire.frames import WORKER_UNREACHABLE, SequenceHandle, WorkerStreams
from diplex.wire.life import AT_A_WORKER, AT_THE_ROUTER, NEXT, State, Turn
from diplex.wire.produced import Produced
from diplex.wire.status import Problem
from diplex.wire.wanted import Answers, AskDesk, Consumer, Wanted

__all__ = ["MOST_REFUSALS", "Answers", "AskDesk", "Consumer", "RequestLife", "Wanted"]

MOST_REFUSALS: Final = 20
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
_GRACE: Final = 1.0
"""Seconds that a worker has to end a sequence that was left, before the client ends it alone."""

# A worker that turns a start away, or breaks off, with one of these may take it later, or another may.
_PASSING: Final = frozenset(
    {
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.OK,
    }
)


class RequestLife:
    """Runs one request. Construct, `begin`, and hear of it through the consumer.

    Args:
        wanted: the request; its token count is made exact when a worker says it.
        resumable: go on behind what was produced, on another worker, when one dies.
        detour: the way round, through the router, for workers that cannot be reached; `None`: there is none.
    """

    def __init__(
        self,
        wanted: Wanted,
        desk: AskDesk,
        streams: WorkerStreams,
        consumer: Consumer,
        *,
        resumable: bool = True,
        detour: Detour | None = None,
    ) -> None:
        self._wanted = wanted
        self._desk = desk
        self._streams = streams
        self._consumer = consumer
        self._detour = detour
        self._state = State.NEW
        self._ask_id = desk.new_id()
        self._loop = asyncio.get_running_loop()
        self._asked_at = self._loop.time()
        self._deadline = None if wanted.timeout is None else self._asked_at + wanted.timeout
        self._timer: asyncio.TimerHandle | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._router_up = True
        self._late = False
        self._refusals = 0
        self._preemptions = 0
        self._upto = 0
        self._again: router_pb2.Again | None = None
        self._granted = router_pb2.Granted()
        self._grant = pb.Grant()
        self._sequence: SequenceHandle | Proxied | None = None
        self._attempt: _Attempt | None = None
        self._went_round = False
        # One output can be read as prompt again; `n` of them, half done, cannot.
        self._produced = Produced(keeps=resumable and wanted.n == 1)

    # What the owner calls.

    def begin(self) -> None:
        """Ask for it. Does nothing for a request that was cancelled before."""
        if not self._turn(Turn.BEGIN):
            return
        if self._deadline is not None:
            self._timer = self._loop.call_at(self._deadline, self._deadline_passed)
        self._ask()

    def refuse(self, problem: Problem) -> None:
        """End a request that was never asked for: its owner found that it cannot be."""
        if self._state is State.NEW:
            self._end(pb.Done(reason=pb.END_REASON_REFUSED, error=problem.to_bytes()))

    def cancel(self) -> None:
        """End it as soon as may be; `on_done` still comes, at once where nothing runs yet."""
        self._leave()

    def window(self, upto: int) -> None:
        """Tokens below index `upto` may be sent; 0: all. Kept for the attempts to come."""
        self._upto = upto
        if self._state in AT_A_WORKER and self._sequence is not None:
            self._sequence.window(upto)

    @property
    def produced(self) -> int:
        """Tokens of its longest choice so far."""
        return self._produced.longest

    # What the desk calls.

    def on_queued(self, queued: router_pb2.Queued) -> None:
        if self._state is State.ASKING:
            self._consumer.on_queued(queued.position)

    def on_granted(self, granted: router_pb2.Granted) -> None:
        if not self._turn(Turn.GRANTED):
            return  # it came too late; unstarted, the router takes it back
        self._granted = granted
        self._grant = pb.Grant.FromString(granted.grant.grant)
        if not self._can_go_on:
            self._end(_failed(self._cannot_go_on("was granted instead")), withdraw=True)
            return
        if (detour := self._way_round(granted.address)) is not None:
            self._go_round(detour)
            return
        self._consumer.on_serving(granted, self._grant)
        start = worker_pb2.Start(
            grant=granted.grant,
            model=self._wanted.model,
            prompt=self._wanted.prompt,
            sampling=self._wanted.sampling,
            window_upto=self._upto,
            resume=self._produced.as_resume(),
            timeout_ms=self._left_ms(),
            traceparent=self._wanted.traceparent,
            tracestate=self._wanted.tracestate,
            block_hashes=self._wanted.block_hashes,
            hash_block_tokens=self._wanted.hash_block_tokens,
        )
        self._attempt, self._went_round = _Attempt(self, self._produced, self._consumer), False
        self._sequence = self._streams.open(granted.address, start, self._attempt)

    def on_refused(self, refused: router_pb2.Refused) -> None:
        if self._state in AT_THE_ROUTER:
            self._end(pb.Done(reason=pb.END_REASON_REFUSED, error=refused.status))

    def on_revoked(self, revoked: router_pb2.Revoked) -> None:
        """Nothing to do: a grant is started the moment it comes, and then only `done` counts."""

    def on_lost(self) -> None:
        self._router_up = False
        self._turn(Turn.LOST)

    def on_back(self) -> None:
        self._router_up = True
        if self._turn(Turn.BACK):
            self._ask()

    # What the worker says, through the attempt of the day.

    def attempt_done(self, done: pb.Done) -> None:
        self._forget_attempt()
        if done.prompt_tokens:
            self._true_up(done.prompt_tokens)
        problem = Problem.from_bytes(done.error) if done.error else None
        unreached = problem is not None and problem.reason == WORKER_UNREACHABLE
        if unreached and self._state is State.STARTED and (detour := self._way_round(self._granted.address)):
            self._go_round(detour)
        elif not _came_to_nothing(done, problem):
            # Refused for good, the router hears only that it was refused, and would wait to be asked again.
            self._end(done, withdraw=done.reason == pb.END_REASON_REFUSED)
        elif self._state is State.LEAVING:
            self._end(pb.Done(reason=pb.END_REASON_CANCELLED, usage=done.usage), withdraw=True)
        elif (hurdle := self._hurdle(done, problem)) is not None:
            self._end(_failed(hurdle, done), withdraw=True)
        else:
            if done.reason == pb.END_REASON_PREEMPTED:
                self._preemptions += 1
                self._consumer.on_preempted(self._preemptions)
            self._ask_again(done)

    # The way round.

    def _way_round(self, address: str = "") -> Detour | None:
        """The detour, where the request is to take it. Only one that has produced nothing can: it is sent as
        it was wanted.

        Args:
            address: of the worker that was granted; "": nobody was asked for a grant yet.
        """
        detour = self._detour
        if detour is None or self._produced.longest:
            return None
        takes_it = detour.instead_of(address) if address else detour.before_asking()
        return detour if takes_it else None

    def _go_round(self, detour: Detour, *, asked: bool = True) -> None:
        """Give back what the router holds for it, and let the router do the rest."""
        if asked:
            self._desk.withdraw(self._ask_id)
            self._desk.forget(self._ask_id)
            self._ask_id = self._desk.new_id()  # should it come to ask once more, it is news
        self._went_round = True
        attempt = self._attempt = _Round(self, self._produced, self._consumer)
        left = None if self._deadline is None else max(0.001, self._deadline - self._loop.time())
        self._sequence = detour.open(self._wanted, left, attempt, attempt.broken)
        if self._upto:
            self._sequence.window(self._upto)

    def served_by(self, granted: router_pb2.Granted, grant: pb.Grant) -> None:
        """Who serves it, as a worker or the way round is about to say."""
        self._granted, self._grant = granted, grant
        self._consumer.on_serving(granted, grant)

    def round_is_over(self, done: pb.Done) -> None:
        self._end(done)

    def _true_up(self, tokens: int) -> None:
        """The worker has counted the prompt, and its count is the one that is charged."""
        wanted = self._wanted
        if wanted.worker_counted is not None:
            wanted.worker_counted(tokens)
        if tokens != wanted.prompt_tokens:
            # It reads the prompt otherwise: these are names of blocks that it does not have.
            wanted.block_hashes, wanted.hash_block_tokens = (), 0
        wanted.prompt_tokens, wanted.exact = tokens, True

    # Asking again.

    def _hurdle(self, done: pb.Done, problem: Problem | None) -> Problem | None:
        """Why it is of no use to ask once more; `None`: it is."""
        said = problem.message if problem is not None else ""
        if not self._can_go_on:
            gave_way = done.reason == pb.END_REASON_PREEMPTED
            return self._cannot_go_on(said or ("had to give way" if gave_way else "broke off"))
        self._refusals += done.reason != pb.END_REASON_PREEMPTED
        if self._refusals <= MOST_REFUSALS:
            return None
        return Problem(
            grpc.StatusCode.UNAVAILABLE,
            f"workers turned the request away {self._refusals} times; the last, {self._grant.worker}: "
            f"{said or 'no room'}. Mend: try again later",
            "REFUSED_TOO_OFTEN",
            retry_after=1.0,
        )

    @property
    def _can_go_on(self) -> bool:
        """Nothing was produced yet, or it can be handed to a worker as prompt."""
        return not self._produced.longest or (self._produced.keeps and self._granted.can_resume)

    def _cannot_go_on(self, said: str) -> Problem:
        return Problem(
            grpc.StatusCode.UNAVAILABLE,
            f"the answer was cut after {self._produced.longest} tokens and cannot go on elsewhere; "
            f"worker {self._grant.worker}: {said}. Mend: send the request again",
            "CUT_SHORT",
        )

    def _ask_again(self, done: pb.Done) -> None:
        self._again = (
            None
            if self._went_round
            else router_pb2.Again(
                claim=self._grant.claim,
                reason=done.reason,
                produced_tokens=self._produced.longest,
                needed_blocks=done.needed_blocks,
                worker=self._grant.worker,
            )
        )
        self._turn(Turn.CAME_TO_NOTHING)
        if done.reason == pb.END_REASON_PREEMPTED or (
            self._refusals == 1 and done.reason != pb.END_REASON_FAILED
        ):
            self._ask_after_pause()
            return
        # Else a worker that is just dying, and the only one, would be tried twenty times in a blink.
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (self._refusals - 1))
        self._pause = self._loop.call_later(pause, self._ask_after_pause)

    def _ask_after_pause(self) -> None:
        self._pause = None
        if self._turn(Turn.PAUSED):
            self._ask()

    def _ask(self) -> None:
        if not self._router_up:
            self._turn(Turn.LOST)
        elif (detour := self._way_round()) is not None and self._turn(Turn.GRANTED):
            self._go_round(detour, asked=False)
            return
        wanted = self._wanted
        ask = router_pb2.Ask(
            ask_id=self._ask_id,
            request_id=wanted.request_id,
            model=wanted.model,
            tier=wanted.tier,
            api_key=wanted.api_key,
            prompt_tokens=wanted.prompt_tokens,
            exact=wanted.exact,
            block_hashes=wanted.block_hashes,
            hash_block_tokens=wanted.hash_block_tokens,
            max_tokens=wanted.max_tokens,
            n=wanted.n,
            timeout_ms=self._left_ms(),
            age_ms=round((self._loop.time() - self._asked_at) * 1000),
            traceparent=wanted.traceparent,
            tracestate=wanted.tracestate,
            again=self._again,
        )
        self._desk.ask(ask, self)

    # Ends.

    def _left_ms(self) -> int:
        """What is left of the deadline; 0: there is none, so never 0 where there is one."""
        return 0 if self._deadline is None else max(1, round((self._deadline - self._loop.time()) * 1000))

    def _deadline_passed(self) -> None:
        self._late = True
        self._leave()

    def _leave(self) -> None:
        """Cancelled, or too late: where a worker is at it, give it a moment to say how far it came."""
        if not self._turn(Turn.LEFT):
            return
        if self._state is State.LEAVING and self._sequence is not None:
            self._sequence.cancel()
            self._end_timers()
            self._timer = self._loop.call_later(_GRACE, self._end_alone)
        else:
            self._end(pb.Done(reason=pb.END_REASON_CANCELLED), withdraw=True)

    def _end_alone(self) -> None:
        if self._state is State.LEAVING:
            self._end(pb.Done(reason=pb.END_REASON_CANCELLED), withdraw=True)

    def _end(self, done: pb.Done, *, withdraw: bool = False) -> None:
        """Say the last word.

        Args:
            withdraw: the router may still hold a place for it.
        """
        self._turn(Turn.END)
        self._forget_attempt()
        self._end_timers()
        if withdraw:
            self._desk.withdraw(self._ask_id)
        self._desk.forget(self._ask_id)
        if self._late and not done.error and done.reason == pb.END_REASON_CANCELLED:
            done.error = _too_late(self._wanted).to_bytes()
        self._consumer.on_done(done)

    def _forget_attempt(self) -> None:
        if self._attempt is not None:
            self._attempt.live = False
        self._attempt = self._sequence = None

    def _end_timers(self) -> None:
        for timer in (self._timer, self._pause):
            if timer is not None:
                timer.cancel()
        self._timer = self._pause = None

    def _turn(self, turn: Turn) -> bool:
        """Take a turn; False where the table knows no such turn in this state, which changes nothing."""
        to = NEXT.get((self._state, turn))
        if to is None:
            return False
        self._state = to
        return True


class _Attempt:
    """One start on one worker. What comes late from an older one is not mistaken for the present one's: it
    is no longer `live`."""

    def __init__(self, life: RequestLife, produced: Produced, consumer: Consumer) -> None:
        self._life = life
        self._produced = produced
        self._consumer = consumer
        self.live = True

    def on_tokens(self, tokens: pb.Tokens) -> None:
        if self.live:
            self._produced.add(tokens)
            self._consumer.on_tokens(tokens)

    def on_done(self, done: pb.Done) -> None:
        if self.live:
            self._life.attempt_done(done)


class _Round(_Attempt):
    """One way round: the router has tried all there was to try, and tells what came of it."""

    def on_queued(self, position: int) -> None:
        if self.live:
            self._consumer.on_queued(position)

    def on_serving(self, granted: router_pb2.Granted, grant: pb.Grant) -> None:
        if self.live:
            self._life.served_by(granted, grant)

    def on_preempted(self, preemptions: int) -> None:
        if self.live:
            self._consumer.on_preempted(preemptions)

    def on_done(self, done: pb.Done) -> None:
        if self.live:
            self._life.round_is_over(done)

    def broken(self, problem: Problem) -> None:
        """The router is gone. What was not begun is asked for again, once there is one."""
        if self.live:
            failed = pb.Done(reason=pb.END_REASON_FAILED, error=problem.to_bytes())
            self._life.attempt_done(failed)


def _came_to_nothing(done: pb.Done, problem: Problem | None) -> bool:
    """An end that is none for the request: another attempt may do better."""
    code = problem.code if problem is not None else grpc.StatusCode.OK
    match done.reason:
        case pb.END_REASON_PREEMPTED:
            return True
        case pb.END_REASON_REFUSED | pb.END_REASON_REVOKED:
            return code in _PASSING
        case pb.END_REASON_FAILED:
            return code is grpc.StatusCode.UNAVAILABLE
        case _:
            return False


def _failed(problem: Problem, done: pb.Done | None = None) -> pb.Done:
    """The worker's own figures, with the reason that it ends for the client."""
    failed = pb.Done(reason=pb.END_REASON_FAILED, error=problem.to_bytes())
    if done is not None:
        failed.usage.CopyFrom(done.usage)
        failed.timing.CopyFrom(done.timing)
        failed.claim.CopyFrom(done.claim)
    return failed


def _too_late(wanted: Wanted) -> Problem:
    return Problem(
        grpc.StatusCode.DEADLINE_EXCEEDED,
        f"the request was not done within its {wanted.timeout:g} s. "
        "Mend: a longer timeout, or fewer max_tokens",
        "DEADLINE_PASSED",
    )
