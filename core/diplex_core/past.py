"""Why requests went where they went: the last decisions of a router, by the request's id."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from diplex_core.placement.place import Explained
from diplex_core.placement.rules import Wish
from diplex_core.words import Seconds

REMEMBERED: Final = 1024


class Outcome(StrEnum):
    GRANTED = "granted"
    QUEUED = "queued"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What was, or would be, decided on a request, and what each worker's rules said of it.

    `wish` None: the ask was refused before any worker was looked at. `reason`: why it waits or was refused.
    """

    request_id: str
    at: Seconds
    outcome: Outcome
    wish: Wish | None = None
    picked: str = ""
    reason: str = ""
    words: Mapping[str, Explained] = field(default_factory=dict)


class Past:
    """The newest `REMEMBERED` explanations; one for each request id, the last decision on it."""

    def __init__(self) -> None:
        self._by_id: dict[str, Explanation] = {}

    def note(self, explanation: Explanation) -> None:
        self._by_id.pop(explanation.request_id, None)
        self._by_id[explanation.request_id] = explanation
        if len(self._by_id) > REMEMBERED:
            del self._by_id[next(iter(self._by_id))]

    def of(self, request_id: str) -> Explanation | None:
        return self._by_id.get(request_id)
