"""A connection between two processes: messages in flight, and a break that each end learns of by itself.

What one end sends arrives in order or, once the connection is cut, perhaps not at all: of what was in flight
a random first part still arrives. Each end reads that part, then learns that the connection is gone. So one
end may be talking on a new connection long before the other has noticed the end of the old one.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol


class End(Protocol):
    """Who reads at one end of a wire."""

    def hear(self, wire: Wire, message: object) -> None: ...

    def lost(self, wire: Wire) -> None:
        """Nothing more will come: called once, unless this end has let go of the wire before."""


@dataclass(slots=True, eq=False)
class Wire:
    """One connection. An end that is `None` has learned of the end of it, or let go."""

    kind: str
    caller: End | None
    callee: End | None
    to_caller: deque[object] = field(default_factory=deque)
    to_callee: deque[object] = field(default_factory=deque)
    cut: bool = False

    @property
    def over(self) -> bool:
        return self.caller is None and self.callee is None

    def call(self, message: object) -> None:
        """The caller says something."""
        if not self.cut:
            self.to_callee.append(message)

    def answer(self, message: object) -> None:
        """The callee says something."""
        if not self.cut:
            self.to_caller.append(message)

    def break_(self, dice: random.Random) -> None:
        """It is cut, and a part of what was in flight is lost."""
        if self.cut:
            return
        self.cut = True
        for queue in (self.to_caller, self.to_callee):
            for _ in range(dice.randint(0, len(queue))):
                queue.pop()

    def caller_lets_go(self) -> None:
        """The caller reads no more; what it has said still arrives."""
        self.caller, self.cut = None, True
        self.to_caller.clear()

    def callee_lets_go(self) -> None:
        self.callee, self.cut = None, True
        self.to_callee.clear()

    @property
    def caller_has_news(self) -> bool:
        return self.caller is not None and (self.cut or bool(self.to_caller))

    @property
    def callee_has_news(self) -> bool:
        return self.callee is not None and (self.cut or bool(self.to_callee))

    def reach_caller(self) -> None:
        """The next message, or the end of it all, reaches the caller."""
        caller = self.caller
        if caller is None:
            return
        if self.to_caller:
            caller.hear(self, self.to_caller.popleft())
        elif self.cut:
            self.caller = None
            caller.lost(self)

    def reach_callee(self) -> None:
        callee = self.callee
        if callee is None:
            return
        if self.to_callee:
            callee.hear(self, self.to_callee.popleft())
        elif self.cut:
            self.callee = None
            callee.lost(self)
