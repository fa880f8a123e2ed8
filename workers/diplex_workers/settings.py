"""What a worker is started with."""

from dataclasses import dataclass, field

from diplex.wire.grants import Keys
from diplex_core.words import Seconds


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """One worker, whatever its engine.

    Attributes:
        package, pattern, gpu, dies: the placement, in the words of the configuration; the worker only
            tells them on.
        tiers: that it may serve; empty: all that its pattern allows.
        port, metrics_port: 0 for any free one; `metrics_port` None: no metrics over HTTP.
        advertise: host or host:port where clients reach it; `None`: the bound address (127.0.0.1 for a
            wildcard, which is no address).
        keys: that grants and hellos are signed with; without them only an open worker serves.
        open: take requests without a grant, over `Generate`.
        drain: longest wait for running sequences when it is told to stop.
    """

    name: str
    package: str
    pattern: str
    gpu: str = ""
    dies: tuple[int, ...] = ()
    tiers: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 0
    metrics_port: int | None = None
    advertise: str | None = None
    keys: Keys | None = field(default=None, repr=False)
    open: bool = False
    drain: Seconds = 30.0
