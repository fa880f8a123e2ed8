"""What the router no longer relies on, in its log: a line when it begins, and one when it is over.

`GetFleet` and `/metrics` show the same at every moment.
"""

import logging
from collections.abc import Iterator

from diplex_core.admission import Admission
from diplex_core.fleet import Worker

log = logging.getLogger(__name__)


class Alarms:
    """Looks at every worker's account after each tick."""

    def __init__(self, admission: Admission) -> None:
        self._workers = admission.workers
        self._sounding: set[tuple[str, str]] = set()

    def look(self) -> None:
        for name, worker in self._workers.items():
            for what, alarm in _alarms_of(worker):
                key = name, what
                if alarm and key not in self._sounding:
                    self._sounding.add(key)
                    log.warning("worker %s: %s", name, alarm)
                elif not alarm and key in self._sounding:
                    self._sounding.discard(key)
                    log.info("worker %s: %s can be relied on again", name, what)


def _alarms_of(worker: Worker) -> Iterator[tuple[str, str]]:
    yield "its account of KV blocks", worker.drift_alarm
    dead = worker.residency_problem
    guessed = f"its prefix blocks are guessed by what was sent there: {dead}"
    yield "what it says of prefix blocks", dead and guessed
