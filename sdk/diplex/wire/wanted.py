"""What a request's life is handed: what is wanted, where it asks, and who hears of it.

All calls are plain ones on the event loop: they neither wait nor raise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2


@dataclass(slots=True)
class Wanted:
    """A request in full. `max_tokens` 0: not stated; `timeout` in seconds, None: no deadline.

    `worker_counted` hears of each worker's own count of the prompt."""

    request_id: str
    model: str
    tier: str
    api_key: str
    prompt: pb.Prompt
    sampling: pb.Sampling
    prompt_tokens: int
    exact: bool
    max_tokens: int = 0
    n: int = 1
    timeout: float | None = None
    block_hashes: tuple[int, ...] = ()
    hash_block_tokens: int = 0
    traceparent: str = ""
    tracestate: str = ""
    worker_counted: Callable[[int], None] | None = None


class Answers(Protocol):
    """What a desk tells of one ask."""

    def on_queued(self, queued: router_pb2.Queued) -> None: ...

    def on_granted(self, granted: router_pb2.Granted) -> None: ...

    def on_refused(self, refused: router_pb2.Refused) -> None: ...

    def on_revoked(self, revoked: router_pb2.Revoked) -> None: ...

    def on_lost(self) -> None:
        """The router's session broke: what waits there is forgotten."""

    def on_back(self) -> None:
        """There is a session again."""


class AskDesk(Protocol):
    """The asking end of a `Router.Session`."""

    def new_id(self) -> int: ...

    def ask(self, ask: router_pb2.Ask, answers: Answers) -> None: ...

    def withdraw(self, ask_id: int) -> None: ...

    def forget(self, ask_id: int) -> None:
        """Nothing more is asked or answered under this number."""


class Consumer(Protocol):
    """Who the request is for. `on_done` comes once and last."""

    def on_queued(self, position: int) -> None: ...

    def on_serving(self, granted: router_pb2.Granted, grant: pb.Grant) -> None: ...

    def on_tokens(self, tokens: pb.Tokens) -> None: ...

    def on_preempted(self, preemptions: int) -> None:
        """It gave way to others, by now so many times, and goes on behind what it has said."""

    def on_done(self, done: pb.Done) -> None: ...
