"""A worker's side of an engine, for tests: it keeps what it hears, and a test waits for what it wants."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import TypeVar

import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.wire.status import Problem
from diplex_core.words import Claim, EndReason
from diplex_workers.engines.engine import Counted, Engine, Facts, Job, Output
from diplex_workers.residency import BlockEvent

from .trtllm_stand_in import install  # noqa: F401  # a fixture

T = TypeVar("T")


class Listener:
    """A host. `said` is everything in order: facts, reasons why it is not ready, outputs."""

    def __init__(self) -> None:
        self.said: list[Facts | str | Output] = []
        self.reading: list[Claim] = []
        self.ails: list[str] = []
        self.kept_events: list[BlockEvent] = []
        self._news = asyncio.Event()

    def ready(self, facts: Facts) -> None:
        self._hear(facts)

    def unready(self, problem: str) -> None:
        self._hear(problem)

    def ailing(self, problem: str) -> None:
        self.ails.append(problem)
        self._news.set()

    def kept(self, event: BlockEvent) -> None:
        self.kept_events.append(event)
        self._news.set()

    def deliver(self, outputs: Sequence[Output]) -> None:
        self._hear(*outputs)

    def prefilling(self, claim: Claim) -> None:
        self.reading.append(claim)
        self._news.set()

    def _hear(self, *news: Facts | str | Output) -> None:
        self.said.extend(news)
        self._news.set()

    def of(self, job: Job, choice: int = 0) -> list[Output]:
        return [
            out
            for out in self.said
            if isinstance(out, Output) and (out.claim, out.choice) == (job.claim, choice)
        ]

    def text(self, job: Job, choice: int = 0) -> str:
        return "".join(out.text for out in self.of(job, choice))

    def ids(self, job: Job, choice: int = 0) -> list[int]:
        return [i for out in self.of(job, choice) for i in out.ids]

    def tokens(self, job: Job, choice: int = 0) -> int:
        return sum(out.count for out in self.of(job, choice))

    def end(self, job: Job, choice: int = 0) -> EndReason | None:
        return next((out.end for out in self.of(job, choice) if out.end), None)

    def problem(self, job: Job) -> Problem | None:
        return next((out.problem for out in self.of(job) if out.problem), None)

    @property
    def facts(self) -> list[Facts]:
        return [facts for facts in self.said if isinstance(facts, Facts)]

    @property
    def reasons(self) -> list[str]:
        return [reason for reason in self.said if isinstance(reason, str)]

    async def until(self, what: Callable[[], T | None], within: float = 20) -> T:
        """Wait until something is there."""
        async with asyncio.timeout(within):
            while not (seen := what()):
                self._news.clear()
                await self._news.wait()
        return seen

    async def ended(self, job: Job) -> EndReason:
        """Wait until every choice of a job has ended; the first one's reason."""
        await self.until(lambda: all(self.end(job, choice) for choice in range(job.choices)))
        reason = self.end(job)
        assert reason is not None
        return reason


class Stage:
    """An engine on stage: served to a listener, with an easy way to give it jobs."""

    _claims = count(1)

    def __init__(self, engine: Engine, listener: Listener) -> None:
        self.engine = engine
        self.host = listener

    async def job(
        self,
        prompt: pb.Prompt | str,
        max_tokens: int = 16,
        *,
        choices: int = 1,
        counted: Counted | None = None,
        resume: pb.Resume | None = None,
        limit: int = 0,
        priority: int = 0,
        salt: int = 0,
        **sampling: object,
    ) -> Job:
        """Count a prompt and submit it."""
        whole = pb.Prompt(text=prompt) if isinstance(prompt, str) else prompt
        job = Job(
            claim=Claim(next(self._claims), 1),
            model="m",
            prompt=whole,
            counted=counted or await self.engine.count("m", whole),
            sampling=pb.Sampling(**sampling),  # type: ignore[arg-type]
            max_tokens=max_tokens,
            choices=choices,
            resume=resume,
            limit=limit,
            priority=priority,
            salt=salt,
        )
        self.engine.submit(job)
        return job

    async def done(self, prompt: pb.Prompt | str, max_tokens: int = 16, **more: object) -> Job:
        """The same, and wait for its end."""
        job = await self.job(prompt, max_tokens, **more)  # type: ignore[arg-type]
        await self.host.ended(job)
        return job


@asynccontextmanager
async def staged(engine: Engine) -> AsyncIterator[Stage]:
    listener = Listener()
    serving = asyncio.create_task(engine.serve(listener))
    try:
        yield Stage(engine, listener)
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        assert serving.cancelled(), f"serve ended by itself: {serving}"


@pytest.fixture(scope="session")
def on_stage() -> Callable[[Engine], object]:
    """`async with on_stage(engine) as stage`"""
    return staged


async def poll(what: Callable[[], object], within: float = 10) -> None:
    """Wait for what nobody tells of."""
    async with asyncio.timeout(within):
        while not what():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.fixture(scope="session")
def eventually() -> Callable[..., object]:
    """`await eventually(lambda: …, within=seconds)`"""
    return poll
