"""Whom the worker believes: a grant is checked once, in a fixed order, and shown only once.

Signature, name, boot, epoch, `start_by`, never shown before: the first that fails is the answer. Whoever
passes is remembered until its `start_by`, after which the clock refuses a second showing by itself. A claim
that its router stopped before it started is remembered for a minute, so that its late start is refused.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

import grpc

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import worker_pb2
from diplex.wire.grants import Keys
from diplex.wire.status import Problem
from diplex_core.words import Claim, Seconds
from diplex_workers.claims import claim_in_core

STOP_REMEMBERED: Final[Seconds] = 60.0

# Such a grant may have been shown before, and run: its end is told by that. Were the router told that it was
# refused, it would wait for a client that has its answer.
_MAY_HAVE_RUN: Final = frozenset({"GRANT_SHOWN", "GRANT_EXPIRED"})


@dataclass(frozen=True, slots=True)
class Turned:
    """A grant that is turned away. `grant`: genuine, for this worker, and never ran; its router is told."""

    problem: Problem
    grant: pb.Grant | None = None


class Gate:
    """The checks of one worker's life.

    Args:
        name, boot: what a grant must name.
        keys: `None`: nothing signed can be believed.
    """

    def __init__(self, name: str, boot: int, keys: Keys | None) -> None:
        self._name = name
        self._boot = boot
        self._keys = keys
        self._epochs: dict[str, int] = {}
        self._shown: set[Claim] = set()
        self._shown_until: deque[tuple[Seconds, Claim]] = deque()
        self._stopped: dict[Claim, Problem] = {}
        self._stopped_until: deque[tuple[Seconds, Claim]] = deque()

    def hello(self, hello: worker_pb2.Hello) -> None:
        """A router says who it is; from now on only grants of this epoch of it are taken.

        Raises:
            Problem: UNAUTHENTICATED for a wrong signature, FAILED_PRECONDITION for another worker's name.
        """
        if self._keys is None:
            raise _no_keys()
        self._keys.verify_hello(hello)
        if hello.worker != self._name:
            raise Problem(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"router {hello.router!r} looks for worker {hello.worker!r}; {self._name!r} answers at this "
                "address. Mend: the worker's address or name in the router's configuration",
                "WRONG_WORKER",
            )
        self._epochs[hello.router] = hello.epoch

    def show(self, signed: pb.SignedGrant, now: Seconds) -> pb.Grant | Turned:
        """Look at a grant that a client shows. One that passes can never be shown again."""
        self._forget(now)
        if self._keys is None:
            return Turned(_no_keys())
        try:
            grant = self._keys.verify(signed)
        except Problem as unsigned:
            return Turned(unsigned)
        objection = self._objection(grant, now)
        if objection is not None:
            told = grant.worker == self._name and objection.reason not in _MAY_HAVE_RUN
            return Turned(objection, grant if told else None)
        claim = claim_in_core(grant.claim)
        self._shown.add(claim)
        self._shown_until.append((grant.start_by_ms / 1000, claim))
        return grant

    def stopped(self, claim: Claim, problem: Problem, now: Seconds) -> None:
        """A router took back a claim that is not held: should it still be started, refuse it."""
        self._forget(now)
        if claim not in self._stopped:
            self._stopped_until.append((now + STOP_REMEMBERED, claim))
        self._stopped[claim] = problem

    def _objection(self, grant: pb.Grant, now: Seconds) -> Problem | None:
        claim = claim_in_core(grant.claim)
        if grant.worker != self._name:
            return _turned(
                f"the grant is for worker {grant.worker!r}, this is {self._name!r}", "WRONG_WORKER"
            )
        if grant.boot != self._boot:
            return _turned(f"worker {self._name} was restarted since the grant was given", "WRONG_BOOT")
        if self._epochs.get(grant.router, grant.epoch) != grant.epoch:
            return _turned(f"router {grant.router} was restarted since it gave the grant", "OLD_EPOCH")
        if now * 1000 > grant.start_by_ms:
            late = now - grant.start_by_ms / 1000
            return _turned(f"the grant came {late:.1f} s after it had to be started", "GRANT_EXPIRED")
        if claim in self._shown:
            return _turned(f"the grant of claim {claim} was shown before", "GRANT_SHOWN")
        return self._stopped.get(claim)

    def _forget(self, now: Seconds) -> None:
        # Start limits come in nearly in order; one that waits a little longer behind another harms nobody.
        while self._shown_until and self._shown_until[0][0] < now:
            self._shown.discard(self._shown_until.popleft()[1])
        while self._stopped_until and self._stopped_until[0][0] < now:
            self._stopped.pop(self._stopped_until.popleft()[1], None)


def _turned(message: str, reason: str) -> Problem:
    return Problem(grpc.StatusCode.ABORTED, f"{message}. Mend: ask the router again", reason)


def _no_keys() -> Problem:
    return Problem(
        grpc.StatusCode.UNAUTHENTICATED,
        "this worker has no key to check signatures with, so it refuses grants and links. "
        "Mend: start it with the router's key (grants.key_env)",
        "NO_KEY",
    )
