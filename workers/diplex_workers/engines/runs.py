"""The jobs that an engine behind HTTP has under way: one task each, each choice's end said exactly once."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Self

from grpc import StatusCode

from diplex.wire.status import Problem
from diplex_core.words import Claim, EndReason, Tokens
from diplex_workers.engines.engine import Host, Job, Output
from diplex_workers.engines.openai_http import unavailable


class Run:
    """One job under way. `sent` counts each choice's output tokens; `open` are the choices without an end."""

    __slots__ = ("began", "job", "open", "sent", "task", "verdict")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.sent = [0] * job.choices
        self.open = set(range(job.choices))
        # The engine has said that it reads the prompt.
        self.began = False
        # What was decided about it from outside: its remaining choices end so.
        self.verdict: EndReason | None = None
        self.task: asyncio.Task[None] | None = None

    def tokens(self, choice: int, count: Tokens, ids: Iterable[int] = (), text: str = "") -> Output:
        """Account for new tokens of a choice, and put them in words."""
        self.sent[choice] += count
        return Output(self.job.claim, choice, count, tuple(ids), text)

    def end(
        self, choice: int, reason: EndReason, *, cached: Tokens = 0, more: Tokens = 0, text: str = ""
    ) -> Output:
        """A choice's last word, with `more` tokens that nothing was said of before."""
        self.sent[choice] += more
        self.open.discard(choice)
        return Output(self.job.claim, choice, more, text=text, end=reason, cached_tokens=cached)


class Runs:
    """Owns the tasks of running jobs. An async context: leaving it cancels what still runs.

    Args:
        talk: asks the engine for a job's tokens and hands them to the host; returns when the stream is over.
        freed: returns when the engine holds nothing any more for a job whose stream was closed.
    """

    def __init__(
        self,
        host: Host,
        talk: Callable[[Run], Awaitable[None]],
        freed: Callable[[Run], Awaitable[None]],
    ) -> None:
        self._host = host
        self._talk = talk
        self._freed = freed
        self._tasks = asyncio.TaskGroup()
        self._runs: dict[Claim, Run] = {}

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for run in self._runs.values():
            if run.task is not None:
                run.task.cancel()
        await self._tasks.__aexit__(kind, error, trace)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs.values())

    def start(self, job: Job) -> None:
        run = self._runs[job.claim] = Run(job)
        run.task = self._tasks.create_task(self._live(run), name=f"job {job.claim}")
        run.task.add_done_callback(partial(self._over, run))

    def cancel(self, claim: Claim) -> None:
        """Close a job's stream; its choices end CANCELLED once the engine has let go of it."""
        run = self._runs.get(claim)
        if run is not None and run.open and run.verdict is None and run.task is not None:
            run.verdict = EndReason.CANCELLED
            run.task.cancel()

    def fail(self, claim: Claim, problem: Problem) -> None:
        """One job is lost, and its stream is closed."""
        if (run := self._runs.get(claim)) is not None and run.verdict is None:
            run.verdict = EndReason.FAILED
            self._end(run, EndReason.FAILED, problem)
            if run.task is not None:
                run.task.cancel()

    def fail_all(self, problem: Problem) -> None:
        """The engine is gone, and every job with it: said at once, so that it comes before `unready`."""
        for run in list(self._runs.values()):
            reason, run.verdict = run.verdict or EndReason.FAILED, run.verdict or EndReason.FAILED
            self._end(run, reason, problem)
            if run.task is not None:
                run.task.cancel()

    async def _live(self, run: Run) -> None:
        try:
            await self._talk(run)
            self._end(run, EndReason.FAILED, unavailable("the engine's answer broke off before its end"))
        except Problem as problem:
            # Overloaded before it began: it may be taken later, or elsewhere.
            overloaded = problem.code is StatusCode.RESOURCE_EXHAUSTED and not any(run.sent)
            self._end(run, EndReason.REFUSED if overloaded else EndReason.FAILED, problem)
        except asyncio.CancelledError:
            if run.verdict is None:
                raise
            if run.open:
                await self._freed(run)

    def _over(self, run: Run, _: asyncio.Task[None]) -> None:
        # Said here, because a task that is cancelled before its first step never runs any of its own lines.
        self._runs.pop(run.job.claim, None)
        if run.verdict is not None:
            self._end(run, run.verdict)

    def _end(self, run: Run, reason: EndReason, problem: Problem | None = None) -> None:
        if run.open:
            shown = problem if reason in (EndReason.FAILED, EndReason.REFUSED) else None
            claim = run.job.claim
            self._host.deliver(
                [Output(claim, choice, end=reason, problem=shown) for choice in sorted(run.open)]
            )
            run.open.clear()
