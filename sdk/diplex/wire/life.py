"""A request's life as its client sees it, as a table: what may happen in which state, and where it leads.

    NEW ──begin──▶ ASKING ──granted──▶ STARTED ──left──▶ LEAVING
                   │    ▲               │    ▲              │
              lost │    │ back          │    │ (tokens)     │ done, or the worker takes too long
                   ▼    │               │                   ▼
                   ADRIFT     PAUSING ◀─┘ came to nothing   OVER
                                 └──pause over──▶ ASKING

What is not in the table has no effect, and that is the rule for everything that comes too late: a grant for a
request that was cancelled is not shown, so the router takes it back; a grant revoked after its start is the
worker's to end; a second `done` finds nobody. The router's session matters only while something waits there:
a request that runs does not notice its loss.
"""

from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType
from typing import Final


class State(Enum):
    NEW = auto()
    ASKING = auto()  # the router has its ask, and it waits there
    ADRIFT = auto()  # it waits, and there is no session with the router
    STARTED = auto()  # shown to a worker; only that worker's `done` counts now
    PAUSING = auto()  # a grant came to nothing; about to ask again
    LEAVING = auto()  # cancelled or late while started: the worker's `done` is awaited, for a moment
    OVER = auto()


class Turn(Enum):
    BEGIN = auto()
    GRANTED = auto()
    LOST = auto()  # the router's session broke
    BACK = auto()  # and is there again
    CAME_TO_NOTHING = auto()  # refused, preempted, taken back, or its worker died
    PAUSED = auto()
    LEFT = auto()  # cancelled by its owner, or its deadline passed
    END = auto()


NEXT: Final[Mapping[tuple[State, Turn], State]] = MappingProxyType(
    {
        (State.NEW, Turn.BEGIN): State.ASKING,
        (State.ASKING, Turn.GRANTED): State.STARTED,
        (State.ASKING, Turn.LOST): State.ADRIFT,
        (State.ADRIFT, Turn.BACK): State.ASKING,
        (State.STARTED, Turn.CAME_TO_NOTHING): State.PAUSING,
        (State.PAUSING, Turn.PAUSED): State.ASKING,
        (State.STARTED, Turn.LEFT): State.LEAVING,
        (State.NEW, Turn.LEFT): State.OVER,
        (State.ASKING, Turn.LEFT): State.OVER,
        (State.ADRIFT, Turn.LEFT): State.OVER,
        (State.PAUSING, Turn.LEFT): State.OVER,
        (State.NEW, Turn.END): State.OVER,
        (State.ASKING, Turn.END): State.OVER,
        (State.ADRIFT, Turn.END): State.OVER,
        (State.STARTED, Turn.END): State.OVER,
        (State.LEAVING, Turn.END): State.OVER,
    }
)

# Here the router may hold something for the request, or hear of it again: refusals count.
AT_THE_ROUTER: Final = frozenset({State.ASKING, State.ADRIFT})
# Here a worker's words count.
AT_A_WORKER: Final = frozenset({State.STARTED, State.LEAVING})
