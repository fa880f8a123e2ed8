"""A process that gets no memory ends, whatever would have caught that; any other error changes nothing."""

import asyncio
import subprocess
import sys
import textwrap

import pytest

from diplex_workers import exhaustion
from diplex_workers.exhaustion import CallbacksToo, EndsWithoutMemory, out_of_memory


class Ended(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(autouse=True)
def ending(monkeypatch: pytest.MonkeyPatch) -> None:
    def end() -> None:
        raise Ended

    monkeypatch.setattr(exhaustion, "end", end)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), ExceptionGroup("", [ValueError(), ExceptionGroup("", [MemoryError()])])],
)
def test_a_failed_allocation_ends_the_process_however_deep_it_is(error: Exception):
    with pytest.raises(Ended), EndsWithoutMemory():
        raise error


@pytest.mark.parametrize(
    "error", [ValueError("x"), ExceptionGroup("", [ValueError()]), asyncio.CancelledError()]
)
def test_any_other_error_passes(error: BaseException):
    assert not out_of_memory(error)
    with pytest.raises(type(error)), EndsWithoutMemory():
        raise error


async def test_what_the_loop_would_only_log_ends_the_process_too(monkeypatch: pytest.MonkeyPatch):
    loop = asyncio.get_running_loop()
    seen: list[object] = []
    monkeypatch.setattr(exhaustion, "end", lambda: seen.append("end"))
    loop.set_exception_handler(lambda _, context: seen.append(context["exception"]))
    other, lost = ValueError(), MemoryError()
    with CallbacksToo(loop):
        for error in (other, lost):
            loop.call_exception_handler({"message": "", "exception": error})
    loop.call_exception_handler({"message": "", "exception": lost})
    assert seen == [other, "end", lost, lost]  # the real one does not come back


def test_the_end_says_why_and_is_no_success():
    program = """
        import resource
        from diplex_workers.exhaustion import EndsWithoutMemory
        resource.setrlimit(resource.RLIMIT_AS, (1 << 28, 1 << 28))
        with EndsWithoutMemory():
            bytearray(1 << 30)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (1, "out of memory: the worker ends here\n")
