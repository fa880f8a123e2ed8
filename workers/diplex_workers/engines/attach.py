"""A server that already runs, as an engine: vLLM, trtllm-serve, SGLang, llama.cpp, Triton, others.

Nothing is exact here but the worker's own account. What the server publishes is a check on it, by two small
parts that are told the time and what was seen: `pulse`, whether it still computes, and `judge`, whether its
word on its KV cache can be true. What it says over OpenAI's HTTP is `openai_server`'s to know, over gRPC
`grpc_server`'s.

    answers ──▶ ready: jobs are taken
    health page silent, connection refused, five refusals in a row, or no token though it has work
        ──▶ gone: every job FAILED, unready; tried again until it answers, and has computed a token
    its gauge cannot be true ──▶ ailing: what runs may end, nothing new is taken; then it counts as gone

Where diplex launched the server, whoever did is asked to start it anew (`restart`). Closing the connection is
the order to stop.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from math import ceil
from typing import Final, TypeAlias

from grpc import StatusCode

from diplex.v1 import generation_pb2 as pb
from diplex.wire.counting import bound_tokens
from diplex.wire.status import Problem
from diplex_core.words import Blocks, Claim, Seconds, Slots, Tokens
from diplex_workers.bound import LearnedBound
from diplex_workers.engines.attached import AttachSettings, Server
from diplex_workers.engines.dialects.dialect import Gauges, Offered
from diplex_workers.engines.engine import Counted, Facts, Host, Job, ModelFacts, Output
from diplex_workers.engines.grpc_dialects import GRPC_DIALECTS
from diplex_workers.engines.grpc_server import GrpcServer, Load
from diplex_workers.engines.judge import Judge, Look, Remarks
from diplex_workers.engines.kv_events import KvEvents, needed
from diplex_workers.engines.openai_http import UNREACHABLE, unavailable
from diplex_workers.engines.openai_server import OpenAiServer
from diplex_workers.engines.pulse import Pulse
from diplex_workers.engines.runs import Run, Runs
from diplex_workers.residency import BlockEvent

__all__ = ["AttachEngine", "AttachSettings"]

Restart: TypeAlias = Callable[[str], Awaitable[None]]
"""Starts the server anew, told why; returns once the old one is gone."""

# Between two looks at the server; so many that fail in a row, and it counts as gone.
_LOOK_EVERY: Final[Seconds] = 1.0
_LOOK_FAILS: Final = 3
# Its sizes are asked for again with every so many looks: one that restarted quickly may have others.
_SIZES_EVERY: Final = 10
# So many jobs in a row that it does not take, without a token of any other, and it counts as gone.
_REFUSALS: Final = 5
# So many answers that filled blocks, and nothing heard for so long: its KV events have stopped.
_UNHEARD: Final = 3
_EVENTS_SILENT: Final[Seconds] = 10.0
# Between two looks while it is gone: doubled each time.
_PAUSE_FIRST: Final[Seconds] = 0.1
_PAUSE_LAST: Final[Seconds] = 2.0
# It answers, and cannot be left as it is.
_SICK: Final = "ENGINE_SICK"
# Where neither configuration nor server say them: sequences at once, and vLLM's block.
_SLOTS: Final[Slots] = 64
_BLOCK: Final[Tokens] = 16
# What a server says of one job that tells of all others too.
_OF_ALL: Final = frozenset(
    {
        StatusCode.UNAVAILABLE,
        StatusCode.RESOURCE_EXHAUSTED,
        StatusCode.FAILED_PRECONDITION,
        StatusCode.INTERNAL,
    }
)


class AttachEngine:
    """Streams from the server, and watches whether it is there and well.

    Args:
        restart: asks whoever launched it for a new one; `None`: nobody did, so it is waited for. An attribute
            too: whoever launches it may come later.
        every: seconds between two looks.
        load: how a tokenizer is loaded, for servers over gRPC.
    Raises:
        Problem: what its API needs is not installed.
    """

    def __init__(
        self,
        settings: AttachSettings,
        *,
        restart: Restart | None = None,
        every: Seconds = _LOOK_EVERY,
        load: Load | None = None,
    ) -> None:
        self._settings = settings
        self.restart = restart
        self._every = every
        self._bound = LearnedBound()
        over_grpc = settings.api in GRPC_DIALECTS
        self._server: Server = GrpcServer(settings, load) if over_grpc else OpenAiServer(settings)
        self._host: Host | None = None
        self._runs: Runs | None = None
        self._problem: str | None = f"{self._server.name} was not asked yet"
        self._facts: Facts | None = None
        self._priority = 0  # times a tier's: the server's own; 0: it has none
        self._gauges = Gauges()
        self._judge = Judge(0)
        self._pulse = Pulse()
        self._refusals = 0
        self._proof_due = False
        self._events: KvEvents | None = None
        self._events_at: Seconds = 0.0
        self._unheard = 0  # answers since then that must have filled blocks
        # A stream broke: look at once whether the server is still there.
        self._doubt = asyncio.Event()

    @property
    def bounds(self) -> Mapping[str, pb.CountBound]:
        """What a prompt costs at most, by model: learned from the usage that the server states."""
        return {self._settings.model: self._bound.figures}

    @property
    def remarks(self) -> Remarks:
        """What it queues and stops by itself, whom else it serves, and whether its word is believed."""
        return self._judge.remarks

    async def serve(self, host: Host) -> None:
        self._host = host
        pause = _PAUSE_FIRST
        async with self._server, Runs(host, self._talk, _let_go) as self._runs:
            while True:
                try:
                    self._facts = await self._look()
                except Problem as problem:
                    if problem.message != self._problem:
                        self._problem = problem.message
                        host.unready(problem.message)
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _PAUSE_LAST)
                    continue
                self._problem, pause = None, _PAUSE_FIRST
                host.ready(self._facts)
                async with self._listening(self._facts):
                    gone = await self._until_gone(self._facts)
                self._problem, self._gauges = gone.message, Gauges()
                self._runs.fail_all(gone)
                host.unready(gone.message)
                if self.restart is not None and gone.reason == _SICK:
                    await self.restart(gone.message)

    async def count(self, model: str, prompt: pb.Prompt) -> Counted:
        if prompt.WhichOneof("content") == "ids":
            return Counted(len(prompt.ids.ids), ids=tuple(prompt.ids.ids))
        bound = bound_tokens(prompt, self._bound.figures)  # and so a prompt that is none is refused
        counted = await self._server.count(prompt)
        if counted is None:
            return Counted(bound, exact=False)
        tokens, ids = counted
        self._bound.learn(prompt, tokens)
        return Counted(tokens, ids=ids)

    def submit(self, job: Job) -> None:
        assert self._runs is not None, "submit comes after ready"
        self._runs.start(job)

    def cancel(self, claim: Claim) -> None:
        if self._runs is not None:
            self._runs.cancel(claim)

    def limit(self, claim: Claim, tokens: Tokens) -> None:
        """Nothing waits at a limit here: the worker ends what comes to one."""

    def observed_blocks(self) -> Blocks | None:
        observed = self._judge.observed
        return None if observed is None or self._facts is None else min(observed, self._facts.capacity_blocks)

    def slots_now(self) -> Slots | None:
        return self._gauges.running

    # One job.

    async def _talk(self, run: Run) -> None:
        assert self._host is not None
        job, server = run.job, self._server
        if self._problem is not None:
            raise unavailable(self._problem)
        if job.resume is not None and job.resume.from_index and not server.can_resume:
            message = f"{server.name} cannot go on behind given output. Mend: start from the prompt"
            raise Problem(StatusCode.FAILED_PRECONDITION, message, "CANNOT_RESUME")
        self._pulse.began(job.claim, _now())
        try:
            priority = job.priority * self._priority if self._priority else None
            prompt_tokens = await server.talk(run, self, priority)
        except Problem as problem:
            if problem.code in _OF_ALL and not any(run.sent):
                self._refusals += 1
            if problem.code is StatusCode.UNAVAILABLE or self._refusals >= _REFUSALS:
                self._doubt.set()
            raise
        finally:
            self._pulse.ended(job.claim)
            self._unheard += any(sent >= 2 * self._block for sent in run.sent)
        if prompt_tokens and not job.counted.exact:
            self._bound.learn(job.prompt, prompt_tokens)

    def deliver(self, outputs: Sequence[Output]) -> None:
        """Tokens from the server, on their way to the worker: so it computes."""
        assert self._host is not None
        now = _now()
        for output in outputs:
            if output.count:
                self._refusals = 0
                self._pulse.heard(output.claim, now)
        self._host.deliver(outputs)

    # Whether it is there, and what it is.

    async def _look(self) -> Facts:
        """What the server is.

        Raises:
            Problem: it does not answer, or does not say what was not configured either.
        """
        await self._server.alive()
        if self._proof_due:
            await self._server.proved()
        if self._settings.events:
            needed()
        offered = await self._server.introduced()
        facts = self._facts_of(offered)
        self._priority = self._priority_of(offered)
        self._judge = Judge(
            (offered.capacity or facts.capacity_blocks * facts.block_tokens) // facts.block_tokens
        )
        self._pulse, self._refusals, self._proof_due = Pulse(), 0, False
        return facts

    def _facts_of(self, offered: Offered) -> Facts:
        settings = self._settings
        block = settings.block_tokens or offered.block_tokens or _BLOCK
        blocks = settings.capacity_blocks or (offered.capacity or 0) // block
        return Facts(
            kind="attach",
            version=f"{settings.api} {offered.version}".strip(),
            models=(ModelFacts(settings.model),),
            block_tokens=block,
            capacity_blocks=blocks or self._unsaid("how many KV blocks it has", "kv_blocks"),
            capacity_slots=settings.slots or offered.slots or _SLOTS,
            context=settings.context or offered.context or self._unsaid("its context", "engine.context"),
            guard_blocks=blocks // 32 if settings.guard_blocks is None else settings.guard_blocks,
            can_resume=self._server.can_resume,
            tells_prefixes=bool(self._settings.events),
        )

    def _priority_of(self, offered: Offered) -> int:
        wanted, name = self._settings.priorities, self._server.name
        if wanted is None or not wanted:
            return offered.priority if wanted is None else 0
        if offered.priority:
            return offered.priority
        if not self._server.priority_flag:
            message = (
                f"{name} takes no priorities over this API. Mend: leave out the package's engine.priorities"
            )
            raise Problem(StatusCode.FAILED_PRECONDITION, message, "ENGINE_UNSAID")
        if self._server.sooner:
            return self._server.sooner
        message = f"{name} does not go by priorities. Mend: start it with {self._server.priority_flag}"
        raise Problem(StatusCode.FAILED_PRECONDITION, message, "ENGINE_UNSAID")

    def _unsaid(self, what: str, key: str) -> int:
        message = f"{self._server.name} does not say {what}. Mend: the package's {key}"
        raise Problem(StatusCode.FAILED_PRECONDITION, message, "ENGINE_UNSAID")

    async def _until_gone(self, facts: Facts) -> Problem:
        """Look once a second, and when a stream broke; the reason why it counts as gone."""
        missed = looks = 0
        ailing = ""
        while True:
            looks += 1
            self._gauges = await self._server.gauges()
            self._judge.saw(self._compared(facts))
            self._miss_events()
            if (sick := self._sick()) is not None:
                self._proof_due = True
                return sick
            checked = self._settings.check_kv and self._server.exact
            if checked and not ailing and (ailing := self._judge.misstated):
                assert self._host is not None
                self._host.ailing(self._wrong(ailing))
            if ailing and not self._working and self.restart is not None:
                return _unfit(self._wrong(ailing))
            try:
                async with asyncio.timeout(self._every):
                    await self._doubt.wait()
            except TimeoutError:
                pass
            self._doubt.clear()
            try:
                await self._server.alive()
                if looks % _SIZES_EVERY == 0 and self._facts_of(await self._server.introduced()) != facts:
                    return unavailable(f"{self._server.name} has other sizes than before: it started anew")
                missed = 0
            except Problem as problem:
                missed += 1
                if missed == _LOOK_FAILS or problem.reason == UNREACHABLE:
                    return problem

    # Its KV events.

    @asynccontextmanager
    async def _listening(self, facts: Facts) -> AsyncIterator[None]:
        settings = self._settings
        if not settings.events:
            yield
            return
        self._events = KvEvents(
            settings.events,
            settings.replay,
            settings.events_topic,
            model=settings.model,
            block_tokens=facts.block_tokens,
            epoch=0 if self._events is None else self._events.epoch + 1,
            told=self._heard_of_blocks,
        )
        self._unheard, self._events_at = 0, _now()
        listening = asyncio.create_task(self._events.listen(), name="KV events")
        try:
            yield
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    def _heard_of_blocks(self, event: BlockEvent) -> None:
        assert self._host is not None
        if not event.lost:
            self._unheard, self._events_at = 0, _now()
        self._host.kept(event)

    def _miss_events(self) -> None:
        """Blocks were filled, and no event told of any: so the publisher is dead, whatever its line says."""
        silent = _now() - self._events_at
        if self._events is not None and self._unheard >= _UNHEARD and silent > _EVENTS_SILENT:
            answers, self._unheard = self._unheard, 0
            self._events.lost(
                f"no KV event of its engine in {silent:.0f} s, though {answers} answers filled blocks"
            )

    @property
    def _block(self) -> Tokens:
        return self._facts.block_tokens if self._facts is not None else _BLOCK

    @property
    def _working(self) -> list[Run]:
        assert self._runs is not None
        return [run for run in self._runs if run.open]

    def _wrong(self, what: str) -> str:
        mend = "restart it, or the package's engine.check_kv: false"
        return f"{self._server.name} is wrong about its KV cache: {what}. Mend: {mend}"

    def _compared(self, facts: Facts) -> Look:
        """What it says now, beside what is known of the jobs that it has."""
        block = facts.block_tokens
        talking = set(self._pulse.talking(_now() - self._every))
        working = self._working
        return Look(
            gauges=self._gauges,
            least=sum(sum(sent // block for sent in run.sent) for run in working if run.job.claim in talking),
            most=sum(_at_most(run.job, block) for run in working),
            ours=sum(run.job.choices for run in working),
        )

    def _sick(self) -> Problem | None:
        """Whether it hangs or takes nothing, though it answers; a single stream that stalled is ended."""
        name, stall, now = self._server.name, self._settings.stall, _now()
        if self._refusals >= _REFUSALS:
            return _unfit(f"{name} refused {self._refusals} requests in a row, and computed none between")
        if self._pulse.silence(now) > stall:
            have = len(self._working)
            return _unfit(f"{name} hangs: no token in {stall:g} s, though it has {have} requests")
        if not self._gauges.waiting:  # else it may have been put back into the engine's own queue
            for claim in self._pulse.stalled(now, stall):
                assert self._runs is not None
                self._runs.fail(
                    claim, unavailable(f"{name} brought no token of this request for {stall:g} s")
                )
        return None


def _unfit(message: str) -> Problem:
    return Problem(StatusCode.UNAVAILABLE, message, _SICK)


def _at_most(job: Job, block: Tokens) -> Blocks:
    return ceil(job.counted.tokens / block) + job.choices * (ceil(job.max_tokens / block) + 1)


def _now() -> Seconds:
    return asyncio.get_running_loop().time()


async def _let_go(_: Run) -> None:
    """These servers do not say when they noticed; the connection is closed, and the guard is for the rest."""
