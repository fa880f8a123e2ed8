"""A lease's life as a table: which event is legal in which state, and where it leads.

    WAITING ──granted──▶ GRANTED ──held──▶ RUNNING ──ended──▶ CLOSED
       ▲                    │                 │
       └──────asked again───┴──── BETWEEN ◀───┘  (refused by the worker, or preempted)

Whose life it is: waiting, granted or between two attempts, the client's `Router.Session`'s: when that ends,
or by withdrawal, the lease is closed. Running, the token stream's: only the worker's word ends it. Closed
leases are forgotten; a claim of one may stay charged until its worker confirms it free.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, auto
from types import MappingProxyType
from typing import Final

from diplex_core.events import Ask, AskKey
from diplex_core.placement.rules import Wish
from diplex_core.words import Claim, Rules, Seconds


class State(IntEnum):
    WAITING = auto()
    GRANTED = auto()
    RUNNING = auto()
    BETWEEN = auto()
    CLOSED = auto()


class Turn(IntEnum):
    """What turns a lease's life."""

    GRANT = auto()  # room was found
    HELD = auto()  # the worker took the claim on
    AGAIN = auto()  # the client asks once more
    GAVE_WAY = auto()  # the worker refused or preempted the claim
    ENDED = auto()  # the worker ended the claim for good, or was lost with it
    DROPPED = auto()  # withdrawn, its session ended, refused, or never started


NEXT: Final[Mapping[tuple[State, Turn], State]] = MappingProxyType(
    {
        (State.WAITING, Turn.GRANT): State.GRANTED,
        (State.WAITING, Turn.AGAIN): State.WAITING,  # the session broke, the client repeats itself
        (State.WAITING, Turn.DROPPED): State.CLOSED,
        (State.GRANTED, Turn.HELD): State.RUNNING,
        (State.GRANTED, Turn.AGAIN): State.WAITING,
        (State.GRANTED, Turn.GAVE_WAY): State.BETWEEN,
        (State.GRANTED, Turn.ENDED): State.CLOSED,
        (State.GRANTED, Turn.DROPPED): State.CLOSED,
        (State.RUNNING, Turn.HELD): State.RUNNING,
        (State.RUNNING, Turn.AGAIN): State.WAITING,
        (State.RUNNING, Turn.GAVE_WAY): State.BETWEEN,
        (State.RUNNING, Turn.ENDED): State.CLOSED,
        (State.BETWEEN, Turn.AGAIN): State.WAITING,
        (State.BETWEEN, Turn.DROPPED): State.CLOSED,
    }
)

# In these states the lease lives on its client's session.
ON_SESSION: Final = frozenset({State.WAITING, State.GRANTED, State.BETWEEN})


@dataclass(slots=True)
class Lease:
    """One request at this router. An adopted one has no key and no ask: its client spoke to another life
    of the router."""

    lease_id: int
    state: State
    arrived: Seconds
    key: AskKey | None = None
    ask: Ask | None = None
    wish: Wish | None = None
    rules: Rules | None = None  # under which it was first asked for: what changes later does not touch it
    attempt: int = 0
    worker: str = ""
    refusals: int = 0
    deadline: Seconds | None = None
    queued: Seconds = 0.0  # from its arrival to its last grant
    first_token: Seconds | None = None  # when its first token came, of all attempts
    predicted_ttft: Seconds | None = None  # by its first grant
    adopted_for: str = ""  # the tenant of an adopted one, as its worker says
    _claim: Claim | None = None

    @property
    def claim(self) -> Claim:
        claim = self._claim
        if claim is None or claim.attempt != self.attempt:
            claim = self._claim = Claim(self.lease_id, self.attempt)
        return claim

    @property
    def tenant(self) -> str:
        return self.wish.tenant.name if self.wish is not None else self.adopted_for

    def turn(self, turn: Turn) -> bool:
        """Take a turn; False where the table knows no such turn in this state, which changes nothing."""
        to = NEXT.get((self.state, turn))
        if to is None:
            return False
        self.state = to
        return True
