"""What every long-running process of diplex has: its log, its signals, and the leash to its parent."""

import asyncio
import logging
import os
import resource
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

LEASH: Final = "DIPLEX_LEASH"
"""Environment variable that a parent sets for a child whose stdin it holds: the child ends when it closes."""
DRAIN_WITHIN: Final = 10.0
FEW_DESCRIPTORS: Final = 16_384
LEVELS: Final = ("debug", "info", "warning", "error")

Part: TypeAlias = Callable[[asyncio.Event], Awaitable[None]]


def add_log_level(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--log-level", choices=LEVELS, default="info", help="least level that is logged (%(default)s)"
    )


def log_to_stderr(level: str) -> None:
    """One line a record, on stderr."""
    # gRPC's own INFO lines are about forks that only start another program. Read when it is loaded.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class OneLine(logging.Formatter):
    """A record with its traceback on one line, so that logs of many processes can be told apart."""

    def format(self, record: logging.LogRecord) -> str:
        return " ⏎ ".join(super().format(record).splitlines())


def leashed() -> bool:
    """Whether `diplex up` started this process."""
    return LEASH in os.environ


def serve(part: Part) -> int:
    """Run a part on uvloop until it ends or is told to stop.

    SIGINT, SIGTERM and the end of a leash set its stop event; the second time, it is cancelled.
    """
    import uvloop

    _raise_descriptor_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(stoppable(part))


def _raise_descriptor_limit() -> None:
    """Each connection is a descriptor; the usual limit of 1,024 is there for programs that use select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < FEW_DESCRIPTORS:
        logging.getLogger(__name__).warning(
            "this process may hold %d connections and files at most. Mend: ulimit -Hn %d, or LimitNOFILE in "
            "its systemd unit",
            hard,
            FEW_DESCRIPTORS,
        )


async def stoppable(part: Part) -> int:
    """Await a part, on whatever loop runs, with a stop event that signals and leash set. Returns 0."""
    stop = asyncio.Event()
    with _told_to_stop(stop):
        try:
            await part(stop)
        except asyncio.CancelledError:
            if not stop.is_set():
                raise
    return 0


@contextmanager
def _told_to_stop(stop: asyncio.Event) -> Iterator[None]:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def told() -> None:
        if stop.is_set():
            task.cancel()
        stop.set()

    def let_go() -> None:
        if os.read(sys.stdin.fileno(), 4096):
            return
        loop.remove_reader(sys.stdin.fileno())
        stop.set()
        # Nobody is left who would end a drain that takes for ever.
        loop.call_later(DRAIN_WITHIN, task.cancel)

    for one in signals:
        loop.add_signal_handler(one, told)
    if leashed():
        loop.add_reader(sys.stdin.fileno(), let_go)
    try:
        yield
    finally:
        for one in signals:
            loop.remove_signal_handler(one)
        if leashed():
            loop.remove_reader(sys.stdin.fileno())
