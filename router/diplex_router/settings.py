"""What a router is started with."""

from dataclasses import dataclass

from diplex.wire.grants import Keys
from diplex_core.placement.book import OWN, Book
from diplex_core.words import Rules


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """A worker to link to. What it serves it says itself; these words stand in until it has."""

    name: str
    address: str
    package: str = ""
    pattern: str = ""
    models: tuple[str, ...] = ()
    tiers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """One router. `metrics_port` None: no metrics over HTTP (`GetMetrics` has them all the same)."""

    name: str
    host: str
    port: int
    metrics_port: int | None
    rules: Rules
    workers: tuple[WorkerSpec, ...]
    keys: Keys
    book: Book = OWN  # the placement rules that tiers may name
