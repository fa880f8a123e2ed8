"""The open leases of a router, found by their id and by the client's number on its session."""

from collections import Counter
from collections.abc import Mapping

from diplex_core.events import AskKey
from diplex_core.lease import Lease, State, Turn
from diplex_core.words import Claim, Seconds


class Register:
    """Counts what was opened and closed. In the end the two are equal.

    Args:
        epoch: the upper half of each new lease's id.
    """

    def __init__(self, epoch: int) -> None:
        self.opened = 0
        self.closed = 0
        self.adopted = 0
        self._epoch = epoch
        self._last = 0
        self._by_id: dict[int, Lease] = {}
        self._by_session: dict[int, dict[int, Lease]] = {}  # by session, then by the client's number

    def get(self, lease_id: int) -> Lease | None:
        return self._by_id.get(lease_id)

    def at(self, key: AskKey) -> Lease | None:
        on_session = self._by_session.get(key.session)
        return on_session.get(key.ask_id) if on_session is not None else None

    def named(self, request_id: str) -> Lease | None:
        """The last open one that its client calls so."""
        leases = (lease for lease in reversed(self._by_id.values()) if lease.ask is not None)
        return next((lease for lease in leases if lease.ask and lease.ask.request_id == request_id), None)

    def of_session(self, session: int) -> list[Lease]:
        return list(self._by_session.get(session, {}).values())

    def all(self) -> list[Lease]:
        return list(self._by_id.values())

    def by_state(self) -> Mapping[State, int]:
        return Counter(lease.state for lease in self._by_id.values())

    def open(self, arrived: Seconds) -> Lease:
        """A new lease, waiting."""
        self._last += 1
        return self._enter(Lease(self._epoch << 32 | self._last, State.WAITING, arrived))

    def adopt(self, claim: Claim, worker: str, tenant: str, now: Seconds) -> Lease:
        """A lease that an earlier life of this router granted, running on under its old id."""
        self.adopted += 1
        lease = Lease(
            claim.lease_id, State.RUNNING, now, attempt=claim.attempt, worker=worker, adopted_for=tenant
        )
        return self._enter(lease)

    def bind(self, lease: Lease, key: AskKey | None) -> None:
        """From now on the lease is its client's under this key; None: its client is gone."""
        self._unbind(lease.key)
        lease.key = key
        if key is not None:
            self._by_session.setdefault(key.session, {})[key.ask_id] = lease

    def close(self, lease: Lease, turn: Turn) -> bool:
        """Close a lease, if the table lets this turn close it now."""
        if not lease.turn(turn):
            return False
        del self._by_id[lease.lease_id]
        self._unbind(lease.key)
        self.closed += 1
        return True

    def _unbind(self, key: AskKey | None) -> None:
        if key is None or (on_session := self._by_session.get(key.session)) is None:
            return
        on_session.pop(key.ask_id, None)
        if not on_session:
            del self._by_session[key.session]

    def _enter(self, lease: Lease) -> Lease:
        self._by_id[lease.lease_id] = lease
        self.opened += 1
        return lease
