"""Which workers this process can reach by itself, as far as it has tried.

A worker advertises one address, and not every client is in its network. A dial tells: an address that was
never reached and does not answer is out of reach; one that was reached before may be down for a moment, and
takes two dials in a row. What is out of reach stays so for a minute, then it is tried once more.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

TRY_AGAIN_AFTER: Final = 60.0
"""Seconds for which an address that did not answer is left alone."""


@dataclass(slots=True)
class _Tries:
    reached_before: bool = False
    failed: int = 0  # dials in a row that came to nothing
    until: float = 0.0  # then it may be tried again


class Reach:
    """What became of each address's dials.

    Args:
        clock: seconds that only go up.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tries: dict[str, _Tries] = {}

    def reached(self, address: str) -> None:
        self._tries[address] = _Tries(reached_before=True)

    def failed(self, address: str) -> None:
        tries = self._tries.setdefault(address, _Tries())
        tries.failed += 1
        tries.until = self._clock() + TRY_AGAIN_AFTER

    def out_of_reach(self, address: str) -> bool:
        tries = self._tries.get(address)
        return tries is not None and tries.failed > tries.reached_before

    def nothing_in_reach(self) -> bool:
        """Dials were tried, and every address that was is out of reach."""
        return bool(self._tries) and all(map(self.out_of_reach, self._tries))

    def due(self) -> list[str]:
        """Addresses out of reach that are to be tried again now; each is named once in a while only."""
        now = self._clock()
        due = [
            address
            for address, tries in self._tries.items()
            if tries.until <= now and self.out_of_reach(address)
        ]
        for address in due:
            self._tries[address].until = now + TRY_AGAIN_AFTER
        return due
