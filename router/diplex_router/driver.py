"""Hands real time to the core, and carries its decisions to the streams they belong to.

Everything that happens in a router comes through `Driver.tell`, on one event loop, one event after the
other: so the core needs no lock, and no task or wake-up stands between a message and its decision.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol, assert_never

from diplex.v1 import router_pb2
from diplex_core.admission import Admission
from diplex_core.events import (
    Asked,
    AskKey,
    Decision,
    Event,
    Granted,
    Queued,
    RaiseClaim,
    Redial,
    Refused,
    Revoked,
    Served,
    SessionEnded,
    StopClaim,
    Ticked,
)
from diplex_core.words import Seconds
from diplex_router.translate import ask_in_core

log = logging.getLogger(__name__)


class SessionPort(Protocol):
    """A client's session, as decisions reach it."""

    def answer(self, decision: Queued | Granted | Refused | Revoked) -> None: ...


class LinkPort(Protocol):
    """A worker's link, as decisions reach it."""

    def stop(self, stop: StopClaim) -> None: ...

    def raise_claim(self, order: RaiseClaim) -> None: ...

    def redial(self, reason: str) -> None: ...


class Driver:
    """The one owner of an `Admission`.

    Attributes:
        on_ask: hear of every ask before the core does: its key, the message, whether it is proxied here.
        on_decision: hear of every decision before it is carried out, and when its step began.
        on_served: hear of every request that ran and is over.
        on_tick: are called after every tick.
    """

    def __init__(self, admission: Admission, clock: Callable[[], Seconds]) -> None:
        self.admission = admission
        self._clock = clock
        self._sessions: dict[int, SessionPort] = {}
        self._links: dict[str, LinkPort] = {}
        self._last_session = 0
        self._events: deque[Event] = deque()
        self._busy = False
        self.on_ready: Callable[[], None] = lambda: None
        self.on_ask: list[Callable[[AskKey, router_pb2.Ask, bool], None]] = []
        self.on_decision: list[Callable[[Decision, Seconds], None]] = []
        self.on_served: list[Callable[[Served], None]] = []
        self.on_tick: list[Callable[[], None]] = []

    def open_session(self, port: SessionPort) -> int:
        self._last_session += 1
        self._sessions[self._last_session] = port
        return self._last_session

    def close_session(self, session: int) -> None:
        """The session's stream is over: what it waits for, or was granted and not started, ends with it."""
        del self._sessions[session]
        self.tell(SessionEnded(session))

    def connect(self, worker: str, port: LinkPort) -> None:
        """A new link to the worker is up; it repeats the orders that the last one may have lost."""
        self._links[worker] = port
        for order in self.admission.resend_orders(worker):
            if isinstance(order, StopClaim):
                port.stop(order)
            else:
                port.raise_claim(order)

    def disconnect(self, worker: str, port: LinkPort) -> None:
        if self._links.get(worker) is port:
            del self._links[worker]

    def ask(self, key: AskKey, ask: router_pb2.Ask, api_key: str = "", *, proxied: bool = False) -> None:
        """Hand on what a client asks for.

        Args:
            api_key: its session's, where the ask names none.
            proxied: this router itself asks, for the client of a `Generate`.
        """
        for hear in self.on_ask:
            hear(key, ask, proxied)
        self.tell(Asked(key, ask_in_core(ask, api_key)))

    def tick(self) -> None:
        """Time has passed."""
        self.tell(Ticked())
        for look in self.on_tick:
            look()

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
                now = self._clock()
                for decision in self.admission.step(self._events.popleft(), now):
                    for hear in self.on_decision:
                        hear(decision, now)
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
            case RaiseClaim():
                link = self._links.get(decision.worker)
                if link is not None:  # else the claim grows from what its worker has free
                    link.raise_claim(decision)
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
