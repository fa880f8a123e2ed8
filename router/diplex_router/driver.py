"""Hands real time to the core, and carries its decisions to the streams they belong to.

Everything that happens in a router comes through `Driver.tell`, on one event loop, one event after the
other: so the core needs no lock, and no task or wake-up stands between a message and its decision.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol, assert_never

from diplex_core.admission import Admission
from diplex_core.events import (
    Decision,
    Event,
    Granted,
    Queued,
    Redial,
    Refused,
    Revoked,
    Served,
    SessionEnded,
    StopClaim,
)
from diplex_core.words import Seconds

log = logging.getLogger(__name__)


class SessionPort(Protocol):
    """A client's session, as decisions reach it."""

    def answer(self, decision: Queued | Granted | Refused | Revoked) -> None: ...


class LinkPort(Protocol):
    """A worker's link, as decisions reach it."""

    def stop(self, stop: StopClaim) -> None: ...

    def redial(self, reason: str) -> None: ...


class Driver:
    """The one owner of an `Admission`."""

    def __init__(self, admission: Admission, clock: Callable[[], Seconds]) -> None:
        self.admission = admission
        self._clock = clock
        self._sessions: dict[int, SessionPort] = {}
        self._links: dict[str, LinkPort] = {}
        self._last_session = 0
        self._events: deque[Event] = deque()
        self._busy = False
        self.on_ready: Callable[[], None] = lambda: None
        self.on_served: list[Callable[[Served], None]] = []

    def open_session(self, port: SessionPort) -> int:
        self._last_session += 1
        self._sessions[self._last_session] = port
        return self._last_session

    def close_session(self, session: int) -> None:
        """The session's stream is over: what it waits for, or was granted and not started, ends with it."""
        del self._sessions[session]
        self.tell(SessionEnded(session))

    def connect(self, worker: str, port: LinkPort) -> None:
        """A new link to the worker is up; it repeats the stops that the last one may have lost."""
        self._links[worker] = port
        for stop in self.admission.resend_stops(worker):
            port.stop(stop)

    def disconnect(self, worker: str, port: LinkPort) -> None:
        if self._links.get(worker) is port:
            del self._links[worker]

    def tell(self, event: Event) -> None:
        """Let the core decide on an event, and carry the decisions out before the next one.

        A decision that a proxied request answers with a new event queues that event here.
        """
        self._events.append(event)
        if self._busy:
            return
        self._busy = True
        try:
            while self._events:
                was_ready = self.admission.ready
                for decision in self.admission.step(self._events.popleft(), self._clock()):
                    self._carry_out(decision)
                if self.admission.ready and not was_ready:
                    self.on_ready()
        finally:
            self._busy = False

    def now(self) -> Seconds:
        return self._clock()

    def _carry_out(self, decision: Decision) -> None:
        match decision:
            case Queued() | Granted() | Refused() | Revoked():
                session = self._sessions.get(decision.key.session)
                if session is not None:
                    session.answer(decision)
            case StopClaim():
                link = self._links.get(decision.worker)
                if link is not None:  # else the next link repeats it
                    link.stop(decision)
            case Redial():
                log.warning("link to %s is opened anew: %s", decision.worker, decision.reason)
                link = self._links.get(decision.worker)
                if link is not None:
                    link.redial(decision.reason)
            case Served():
                for hear in self.on_served:
                    hear(decision)
            case _:
                assert_never(decision)
