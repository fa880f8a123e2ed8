"""Why requests went where they went: the last decisions of a router, by the request's id."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from diplex_core.placement.place import Explained
from diplex_core.placement.rules import Wish
from diplex_core.waits import Wait
from diplex_core.words import EndReason, Seconds, Tokens

REMEMBERED: Final = 1024
MOST_WORDS: Final = 65_536
"""Of all workers on all requests remembered: in a large fleet fewer requests are."""


class Outcome(StrEnum):
    GRANTED = "granted"
    QUEUED = "queued"
    REFUSED = "refused"


class Ending(NamedTuple):
    """How a request ended. `why`: in words, where it is no `reason` of a sequence that ran."""

    at: Seconds
    why: str = ""
    reason: EndReason | None = None
    output_tokens: Tokens = 0

    @property
    def words(self) -> str:
        if self.reason is None:
            return self.why
        if self.reason is EndReason.REFUSED:
            return "the worker refused it"
        if self.reason is EndReason.PREEMPTED:
            return f"it gave way after {self.output_tokens} output tokens, to go on where there is room"
        return f"it ended {self.reason} with {self.output_tokens} output tokens"


_NOTHING: Final[Mapping[str, Explained]] = MappingProxyType({})


@dataclass(slots=True)
class Explanation:
    """What was, or would be, decided on a request, and what each worker's rules said of it.

    Attributes:
        wish: `None`: the ask was refused before any worker was looked at.
        reason: why it waits or was refused.
        wait: what it waits for now; `None`: it does not, as far as anybody knows.
        ending: its last words; `None`: it waits, or runs.
    """

    request_id: str
    at: Seconds
    outcome: Outcome
    wish: Wish | None = None
    picked: str = ""
    reason: str = ""
    words: Mapping[str, Explained] = field(default_factory=lambda: _NOTHING)
    wait: Wait | None = None
    ending: Ending | None = None


class Past:
    """The newest `REMEMBERED` explanations, fewer where they are long; for each request id the last."""

    def __init__(self) -> None:
        self._by_id: OrderedDict[str, Explanation] = OrderedDict()  # a dict forgets its first one slowly
        self._words = 0

    def note(self, explanation: Explanation) -> None:
        by_id, request_id = self._by_id, explanation.request_id
        older = by_id.get(request_id)
        if older is not None:
            self._words -= len(older.words)
            by_id.move_to_end(request_id)
        by_id[request_id] = explanation
        self._words += len(explanation.words)
        while len(by_id) > REMEMBERED or (self._words > MOST_WORDS and len(by_id) > 1):
            self._words -= len(by_id.popitem(last=False)[1].words)

    def ended(self, request_id: str, ending: Ending) -> None:
        """A request is over, or this attempt of it."""
        decided = self._by_id.get(request_id)
        if decided is not None and decided.outcome is not Outcome.REFUSED:
            decided.ending = ending

    def of(self, request_id: str) -> Explanation | None:
        return self._by_id.get(request_id)
