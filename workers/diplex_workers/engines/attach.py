"""An OpenAI-compatible server that already runs, as an engine: vLLM, trtllm-serve, SGLang, llama.cpp, others.

Nothing is exact here but the worker's own account. What the server publishes is a check on it; a prompt
counts by the server's tokenizer where it has one, else by an upper bound; and a sequence cannot be taken
up in the middle. Closing the connection is the order to stop.
"""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Final, Literal

from grpc import StatusCode

from diplex.v1 import generation_pb2 as pb
from diplex.wire.counting import bound_tokens
from diplex.wire.status import Problem
from diplex_core.words import Blocks, Claim, Seconds, Slots, Tokens
from diplex_workers.bound import LearnedBound
from diplex_workers.engines.dialects import DIALECTS
from diplex_workers.engines.dialects.dialect import Gauges, Offered
from diplex_workers.engines.engine import Counted, Facts, Host, Job, ModelFacts, Output
from diplex_workers.engines.openai_http import NOT_FOUND, UNREACHABLE, Upstream, unavailable, unreadable
from diplex_workers.engines.openai_wire import AnswerReader, request_of
from diplex_workers.engines.runs import Run, Runs

# Between two looks at the server; so many that fail in a row, and it counts as gone.
_LOOK_EVERY: Final[Seconds] = 1.0
_LOOK_FAILS: Final = 3
# Between two looks while it is gone: doubled each time.
_PAUSE_FIRST: Final[Seconds] = 0.1
_PAUSE_LAST: Final[Seconds] = 2.0
# Where neither configuration nor server say them: sequences at once, and vLLM's block.
_SLOTS: Final[Slots] = 64
_BLOCK: Final[Tokens] = 16


@dataclass(frozen=True, slots=True)
class AttachSettings:
    """One attached server. What is `None` is asked of it, and an error where it does not say.

    Args:
        url: where it listens, with or without `/v1`.
        model: the name that clients use.
        upstream_model: the server's own name for it; `None`: `model` if it has that, else its only one.
        api: whose server it is; `openai`: any other, of which nothing more is known.
        capacity_blocks: KV blocks that diplex may fill; not more than the server has.
        slots: sequences at once; `None` where the server does not say either: 64.
        context: longest prompt plus output in tokens.
        guard_blocks: never promised, because this account is not the server's own; `None`: a 32nd.
    """

    url: str
    model: str
    upstream_model: str | None = None
    api: Literal["openai", "vllm", "sglang", "trtllm", "llamacpp"] = "openai"
    capacity_blocks: Blocks | None = None
    block_tokens: Tokens | None = None
    slots: Slots | None = None
    context: Tokens | None = None
    guard_blocks: Blocks | None = None
    api_key: str | None = field(default=None, repr=False)


class AttachEngine:
    """Streams from the server, and watches whether it is there."""

    def __init__(self, settings: AttachSettings) -> None:
        self._settings = settings
        self._dialect = DIALECTS[settings.api]
        self._bound = LearnedBound()
        self._upstream = Upstream(settings.url, settings.api_key)
        self._upstream_model = settings.upstream_model or settings.model
        self._host: Host | None = None
        self._runs: Runs | None = None
        self._problem: str | None = f"{self._upstream.name} was not asked yet"
        self._offered = Offered()
        self._facts: Facts | None = None
        self._gauges = Gauges()
        self._has_tokenizer = True  # until it says otherwise
        # A stream broke: look at once whether the server is still there.
        self._doubt = asyncio.Event()

    @property
    def bounds(self) -> Mapping[str, pb.CountBound]:
        """What a prompt costs at most, by model: learned from the usage that the server states."""
        return {self._settings.model: self._bound.figures}

    async def serve(self, host: Host) -> None:
        self._host = host
        pause = _PAUSE_FIRST
        async with self._upstream, Runs(host, self._talk, _let_go) as self._runs:
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
                gone = await self._until_gone()
                self._problem, self._gauges = gone.message, Gauges()
                self._runs.fail_all(gone)
                host.unready(gone.message)

    async def count(self, model: str, prompt: pb.Prompt) -> Counted:
        if prompt.WhichOneof("content") == "ids":
            return Counted(len(prompt.ids.ids), ids=tuple(prompt.ids.ids))
        bound = bound_tokens(prompt, self._bound.figures)  # and so a prompt that is none is refused
        tokens = await self._tokens_in(prompt) if self._has_tokenizer else None
        if tokens is None:
            return Counted(bound, exact=False)
        self._bound.learn(prompt, tokens)
        return Counted(tokens)

    def submit(self, job: Job) -> None:
        assert self._runs is not None, "submit comes after ready"
        self._runs.start(job)

    def cancel(self, claim: Claim) -> None:
        if self._runs is not None:
            self._runs.cancel(claim)

    def limit(self, claim: Claim, tokens: Tokens) -> None:
        """Nothing waits at a limit here: the worker ends what comes to one."""

    def observed_blocks(self) -> Blocks | None:
        if self._gauges.used is None or self._facts is None:
            return None
        block = self._facts.block_tokens
        capacity = self._offered.capacity or self._facts.capacity_blocks * block
        return ceil(self._gauges.used * capacity / block)

    def slots_now(self) -> Slots | None:
        return self._gauges.running

    async def _talk(self, run: Run) -> None:
        assert self._host is not None
        job = run.job
        if self._problem is not None:
            raise unavailable(self._problem)
        if job.resume is not None and job.resume.from_index:
            message = f"{self._upstream.name} cannot go on behind given output. Mend: start from the prompt"
            raise Problem(StatusCode.FAILED_PRECONDITION, message, "CANNOT_RESUME")
        path, body = request_of(job, self._upstream_model, self._dialect)
        reader = AnswerReader(run)
        try:
            async with aclosing(self._upstream.events(path, body)) as stream:
                async for chunks in stream:
                    outputs: list[Output] = []
                    try:
                        for chunk in chunks:
                            outputs += reader.take(chunk)
                    finally:  # what came before an error is told before it
                        if outputs:
                            self._host.deliver(outputs)
            self._host.deliver(reader.finish())
        except Problem as problem:
            if problem.code is StatusCode.UNAVAILABLE:
                self._doubt.set()
            raise
        if reader.prompt_tokens and not job.counted.exact:
            self._bound.learn(job.prompt, reader.prompt_tokens)

    async def _tokens_in(self, prompt: pb.Prompt) -> Tokens | None:
        """The server's own count; `None` where it has no tokenizer, or none that answers now."""
        try:
            return await self._dialect.count(self._upstream, self._upstream_model, prompt)
        except Problem as problem:
            if problem.code is StatusCode.INVALID_ARGUMENT:
                raise
            self._has_tokenizer = problem.reason != NOT_FOUND
        except (KeyError, TypeError, AttributeError):
            self._has_tokenizer = False  # it answers, but not as this API's tokenizer does
        return None

    # Whether it is there, and what it is

    async def _look(self) -> Facts:
        """What the server is.

        Raises:
            Problem: it does not answer, or does not say what was not configured either.
        """
        await self._upstream.get_text(self._dialect.health)
        entry = self._entry(await self._upstream.get("/v1/models"))
        try:
            offered = self._offered = await self._dialect.offered(self._upstream, entry)
        except (ValueError, TypeError, AttributeError) as error:
            what = f"{self._upstream.name} does not answer as {self._settings.api} does: {error!r}"
            raise unreadable(f"{what}. Mend: the package's engine.api") from error
        settings = self._settings
        self._upstream_model, self._has_tokenizer = str(entry["id"]), True
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
            can_resume=False,
        )

    def _entry(self, models: Any) -> Mapping[str, Any]:
        try:
            entries: dict[str, Mapping[str, Any]] = {entry["id"]: entry for entry in models["data"]}
        except (KeyError, TypeError) as error:
            raise unavailable(f"{self._upstream.name}/v1/models is no list of models") from error
        wanted = self._settings.upstream_model or self._settings.model
        if wanted in entries:
            return entries[wanted]
        if len(entries) == 1 and self._settings.upstream_model is None:
            return next(iter(entries.values()))
        message = (
            f"{self._upstream.name} has no model {wanted}, but {', '.join(entries) or 'none'}. "
            "Mend: the package's engine.upstream_model"
        )
        raise Problem(StatusCode.FAILED_PRECONDITION, message, NOT_FOUND)

    def _unsaid(self, what: str, key: str) -> int:
        message = f"{self._upstream.name} does not say {what}. Mend: the package's {key}"
        raise Problem(StatusCode.FAILED_PRECONDITION, message, "ENGINE_UNSAID")

    async def _until_gone(self) -> Problem:
        """Look once a second, and when a stream broke; the reason why it counts as gone."""
        missed = 0
        while True:
            try:
                self._gauges = await self._dialect.gauges(self._upstream)
            except (Problem, ValueError, TypeError, AttributeError):
                self._gauges = Gauges()  # unknown, which is not zero
            try:
                async with asyncio.timeout(_LOOK_EVERY):
                    await self._doubt.wait()
            except TimeoutError:
                pass
            self._doubt.clear()
            try:
                await self._upstream.get_text(self._dialect.health)
                missed = 0
            except Problem as problem:
                missed += 1
                if missed == _LOOK_FAILS or problem.reason == UNREACHABLE:
                    return problem


async def _let_go(_: Run) -> None:
    """These servers do not say when they noticed; the connection is closed, and the guard is for the rest."""
