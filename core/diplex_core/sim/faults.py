"""What goes wrong in a simulated fleet, and when: a script of values.

`worker` names one worker, or a package and with it every worker on it. Times count from the beginning of the
run, in virtual seconds.
"""

from dataclasses import dataclass
from typing import TypeAlias

from diplex_core.words import Seconds


@dataclass(frozen=True, slots=True)
class Kill:
    """Its process dies with all that runs there; a new one stands in its place after `back_after` seconds
    (`None`: never). Router and clients see their connections break at once."""

    at: Seconds
    worker: str
    back_after: Seconds | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """Its link to the router breaks for `for_` seconds. What runs there runs on: tokens do not cross it."""

    at: Seconds
    worker: str
    for_: Seconds


@dataclass(frozen=True, slots=True)
class Slow:
    """Each of its engine's iterations takes `factor` times as long, for `for_` seconds."""

    at: Seconds
    worker: str
    factor: float
    for_: Seconds


@dataclass(frozen=True, slots=True)
class Drain:
    """It takes nothing new from now on, and finishes what it has."""

    at: Seconds
    worker: str


Fault: TypeAlias = Kill | Cut | Slow | Drain
