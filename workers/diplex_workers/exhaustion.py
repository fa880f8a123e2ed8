"""A worker that gets no more memory ends at once.

A failed allocation leaves things half done anywhere, and gRPC logs what a method raises and goes on. Such a
process would answer nothing and hold all that it has. Ended, it is started anew, its clients go on elsewhere
or in its next life, and its neighbour on the package notices nothing.
"""

import asyncio
import os
from types import TracebackType
from typing import Any, NoReturn

_LAST_WORDS = b"out of memory: the worker ends here\n"


def end() -> NoReturn:
    """End the process without anything that would need memory."""
    os.write(2, _LAST_WORDS)
    os._exit(1)


def out_of_memory(error: BaseException | None) -> bool:
    """Whether it is a failed allocation, or a group with one in it."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(out_of_memory, error.exceptions))
    return isinstance(error, MemoryError)


class EndsWithoutMemory:
    """What runs inside ends the process where it gets no memory; any other error passes."""

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if out_of_memory(error):
            end()


class CallbacksToo:
    """Inside, what the event loop would only log ends the process too, where it is a failed allocation."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._before = loop.get_exception_handler()

    def __enter__(self) -> None:
        self._loop.set_exception_handler(self._look)

    def __exit__(self, *error: object) -> None:
        self._loop.set_exception_handler(self._before)

    def _look(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if out_of_memory(context.get("exception")):
            end()
        (self._before or type(loop).default_exception_handler)(loop, context)
