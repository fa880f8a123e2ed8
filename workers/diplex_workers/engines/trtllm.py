"""TensorRT-LLM in the worker's process: its LLM API (1.x), on the devices that this process can see.

Counts and ids are its own, so they are exact, and a sequence can go on behind output of another worker. What
it keeps and uses comes from its iteration statistics and KV-cache events; each of the two is a queue that a
reader empties for all others, so there is one reader here and none elsewhere. Patterns: A plain, C as two
ranks, D and A+EAGLE as one engine with a speculative_config, since draft and target cannot be placed apart.

No machine of this project's can run it. The names are held to its sources (docs/engines.md), the behaviour to
a stand-in made from them (tests/workers/engines/trtllm_stand_in.py).
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Final, TypeVar

from grpc import StatusCode

from diplex.v1 import generation_pb2 as pb
from diplex.wire.status import Problem
from diplex_core.words import Blocks, Claim, EndReason, Pattern, Seconds, Slots, Tokens
from diplex_workers.engines.engine import Counted, Facts, Host, Job, ModelFacts, Output
from diplex_workers.engines.openai_http import unavailable
from diplex_workers.engines.runs import Run, Runs
from diplex_workers.engines.trtllm_blocks import Blocks as Kept
from diplex_workers.engines.trtllm_interface import (
    LLM,
    IterationStats,
    KvEvent,
    NotInstalled,
    Package,
    RequestOutput,
    Tokenizer,
    load,
)
from diplex_workers.engines.trtllm_made import TrtLlmSettings, made
from diplex_workers.engines.trtllm_prompts import ids_of, produced_before
from diplex_workers.engines.trtllm_requests import (
    ChoiceReader,
    left_to_produce,
    placing_of,
    sampling_of,
)
from diplex_workers.launch.keeper import CannotStart

T = TypeVar("T")

# Statistics older than this say nothing of now.
_STALE: Final[Seconds] = 2.0
# Longest wait of a read for the next entry of a queue, and the pause after one that brought nothing.
_READ: Final[Seconds] = 0.5
_PAUSE: Final[Seconds] = 0.1
# Jobs run and nothing at all came for so long: it hangs. A 128k prompt takes seconds.
_SILENT: Final[Seconds] = 60.0
# Longest wait for a sequence that it was told to abort, and for its shutdown.
_FREED_WITHIN: Final[Seconds] = 10.0
_SHUT_WITHIN: Final[Seconds] = 30.0
# Between two starts: doubled each time, from the start again after a long life.
_PAUSE_FIRST: Final[Seconds] = 1.0
_PAUSE_LAST: Final[Seconds] = 60.0
_LONG_LIFE: Final[Seconds] = 300.0
# It is asked for one token before anything else: what it says of its pool comes with the first iteration.
_FIRST_WORD_WITHIN: Final[Seconds] = 120.0

# What calls on an engine raise whose processes are gone: its own errors, broken pipes, parts that are None.
_BROKEN: Final = (RuntimeError, OSError, AssertionError, AttributeError)


class TrtLlmEngine:
    """Runs one TensorRT-LLM instance, and makes another where it falls.

    Args:
        place: makes its devices ready, and says what the environment must have for them; raises CannotStart.
        silent: seconds without any news, while requests run, after which it hangs.
    Raises:
        ValueError: settings that TensorRT-LLM has nothing for; the message ends in the mend.
    """

    def __init__(
        self,
        settings: TrtLlmSettings,
        *,
        place: Callable[[], Awaitable[Mapping[str, str]]] | None = None,
        silent: Seconds = _SILENT,
    ) -> None:
        if settings.speculates and not settings.draft_checkpoint:
            raise ValueError(
                f"pattern {settings.pattern} needs what drafts. Mend: engine.draft_checkpoint: the folder of "
                f"{'an EAGLE-3 head' if settings.pattern is Pattern.A_EAGLE else 'a small model'}"
            )
        self._settings = settings
        self._place = place
        self._silent = silent
        self._host: Host | None = None
        self._runs: Runs | None = None
        self._package: Package | None = None
        self._llm: LLM | None = None
        self._kept: Kept | None = None
        self._problem = "TensorRT-LLM is starting"
        self._starts = 0
        self._running: dict[Claim, RequestOutput] = {}
        self._stats: IterationStats = {}
        self._heard = time.monotonic()  # when anything last came
        self._stats_at = self._heard
        self._woken = asyncio.Event()
        self._doubt = asyncio.Event()

    async def serve(self, host: Host) -> None:
        self._host = host
        pause = _PAUSE_FIRST
        async with Runs(host, self._talk, self._freed) as self._runs:
            while True:
                began = time.monotonic()
                problem = await self._one_life(host, self._runs)
                if problem != self._problem:
                    self._problem = problem
                    host.unready(problem)
                if time.monotonic() - began > _LONG_LIFE:
                    pause = _PAUSE_FIRST
                await asyncio.sleep(pause)
                pause = min(2 * pause, _PAUSE_LAST)

    async def count(self, model: str, prompt: pb.Prompt) -> Counted:
        _, llm = self._reachable()
        ids = await asyncio.to_thread(ids_of, prompt, llm.tokenizer)
        return Counted(len(ids), ids=ids)

    def submit(self, job: Job) -> None:
        assert self._runs is not None, "submit comes after ready"
        self._runs.start(job)

    def cancel(self, claim: Claim) -> None:
        if self._runs is not None:
            self._runs.cancel(claim)

    def limit(self, claim: Claim, tokens: Tokens) -> None:
        """Its jobs hold all that they may need from their start."""

    def observed_blocks(self) -> Blocks | None:
        return self._fresh().get("kvCacheStats", {}).get("usedNumBlocks")

    def slots_now(self) -> Slots | None:
        return self._fresh().get("numActiveRequests")

    def _fresh(self) -> IterationStats:
        return self._stats if time.monotonic() - self._stats_at < _STALE else {}

    # One life

    async def _one_life(self, host: Host, runs: Runs) -> str:
        """Load it and serve until it falls; the reason, for people."""
        llm: LLM | None = None
        try:
            if self._place is not None:
                # Before the package is loaded: the devices that a process sees are decided once.
                os.environ.update(await self._place())
            package = self._package = await asyncio.to_thread(load)
            llm = await asyncio.to_thread(made, package, self._settings)
            facts = await self._first_word(package, llm)
            self._starts += 1
            self._kept = Kept(self._settings.model, facts.block_tokens, self._starts)
        except (NotInstalled, CannotStart) as why:
            return str(why)
        except (Problem, TypeError, ValueError, TimeoutError, *_BROKEN) as error:
            await self._shut(llm)
            return f"TensorRT-LLM did not start: {_words(error)}"
        self._llm, self._problem, self._heard = llm, "", time.monotonic()
        host.ready(facts)
        readers = [asyncio.create_task(self._read(lambda: llm.get_stats_async(_READ), self._take_stats))]
        if facts.tells_prefixes:
            events = self._read(lambda: llm.get_kv_cache_events_async(_READ), self._take_event)
            readers.append(asyncio.create_task(events))
        for reader in readers:
            reader.add_done_callback(lambda _: self._doubt.set())
        try:
            reason = await self._until_gone(package, llm, readers)
        except asyncio.CancelledError:
            await self._shut(llm)
            raise
        finally:
            self._llm, self._stats = None, {}
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
        runs.fail_all(unavailable(reason))
        self._problem = reason
        host.unready(reason)  # before it is shut, which may take long
        await self._shut(llm)
        return reason

    async def _first_word(self, package: Package, llm: LLM) -> Facts:
        """Have it say one token, and what pool it has."""
        async with asyncio.timeout(_FIRST_WORD_WITHIN):
            await self._one_token(package, llm)
        async with aclosing(_one_by_one(llm.get_stats_async(2.0))) as entries:
            async for stats in entries:
                self._take_stats(stats)
                if stats.get("kvCacheStats", {}).get("maxNumBlocks"):
                    break
        pool = self._stats.get("kvCacheStats", {})
        return self._facts(package, llm, pool.get("maxNumBlocks", 0), pool.get("tokensPerBlock"))

    async def _one_token(self, package: Package, llm: LLM) -> None:
        words = {"max_tokens": 1, "ignore_eos": True, "detokenize": False}
        result = llm.generate_async([1], package.sampling(**words), streaming=True)
        try:
            async for _ in result:
                pass
        except asyncio.CancelledError:
            with suppress(*_BROKEN):
                result.abort()
            raise

    def _facts(self, package: Package, llm: LLM, said: Blocks, block_tokens: Tokens | None) -> Facts:
        settings = self._settings
        blocks = settings.capacity_blocks or said
        if not blocks:
            message = "it does not say how many KV blocks it has. Mend: the package's kv_blocks"
            raise Problem(StatusCode.FAILED_PRECONDITION, message, "ENGINE_UNSAID")
        if said and blocks > said:
            message = f"kv_blocks says {blocks} and it has {said}. Mend: kv_blocks: {said}, or leave it out"
            raise Problem(StatusCode.FAILED_PRECONDITION, message, "ENGINE_UNSAID")
        context = settings.context or getattr(getattr(llm, "args", None), "max_seq_len", None)
        if not context:
            message = "it does not say its context. Mend: the package's engine.context"
            raise Problem(StatusCode.FAILED_PRECONDITION, message, "ENGINE_UNSAID")
        return Facts(
            kind="trtllm",
            version=package.version,
            models=(ModelFacts(settings.model, has_chat_template=_has_template(llm.tokenizer)),),
            block_tokens=block_tokens or settings.block_tokens,
            capacity_blocks=blocks,
            capacity_slots=settings.slots,
            context=int(context),
            guard_blocks=blocks // 64 if settings.guard_blocks is None else settings.guard_blocks,
            tells_prefixes=settings.keeps_prefixes,
            prefill_budget_tokens=settings.step_budget or 0,
            draft_tokens=settings.drafted,
            profile=settings.profile,
            weights=settings.weights,
            kv_cache=settings.kv_cache,
        )

    async def _until_gone(self, package: Package, llm: LLM, readers: list[asyncio.Task[None]]) -> str:
        """Watch it; the reason why it counts as gone."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._silent / 4):
                    await self._doubt.wait()
            doubted = self._doubt.is_set()
            self._doubt.clear()
            for reader in readers:
                if reader.done():
                    return f"TensorRT-LLM went away: {_words(reader.exception())}"
            if doubted:
                asked = time.monotonic()
                try:
                    async with asyncio.timeout(_FREED_WITHIN):
                        await self._one_token(package, llm)
                except TimeoutError:
                    # Where all its slots are taken it may wait: then others hear of their tokens meanwhile.
                    if self._heard < asked:
                        return f"TensorRT-LLM went away: no token within {_FREED_WITHIN:g} s"
                except (ValueError, *_BROKEN) as error:
                    return f"TensorRT-LLM went away: {_words(error)}"
            elif self._running and time.monotonic() - self._heard > self._silent:
                return f"TensorRT-LLM hangs: nothing came for {self._silent:g} s while requests run"

    async def _shut(self, llm: LLM | None) -> None:
        """Give its devices back; one that does not return is left behind, and the next start says so."""
        if llm is not None:
            with suppress(TimeoutError, *_BROKEN):
                async with asyncio.timeout(_SHUT_WITHIN):
                    await asyncio.to_thread(llm.shutdown)

    # What it tells of itself

    async def _read(self, entries: Callable[[], AsyncIterator[T]], take: Callable[[T], None]) -> None:
        """The one reader of a queue. An idle engine has nothing to say: then it waits for a request."""
        while True:
            came = False
            async for entry in _one_by_one(entries()):
                came = True
                self._heard = time.monotonic()
                take(entry)
            if came:
                continue
            if self._running:
                await asyncio.sleep(_PAUSE)
            else:
                self._woken.clear()
                await self._woken.wait()

    def _take_stats(self, stats: IterationStats) -> None:
        self._stats, self._stats_at = stats, time.monotonic()

    def _take_event(self, event: KvEvent) -> None:
        if self._host is not None and self._kept is not None:
            self._host.kept(self._kept.take(event))

    # One job

    async def _talk(self, run: Run) -> None:
        assert self._host is not None and self._kept is not None
        job, (package, llm) = run.job, self._reachable()
        if left_to_produce(job) <= 0:
            self._host.deliver([run.end(choice, EndReason.LENGTH) for choice in sorted(run.open)])
            return
        prompt = job.counted.ids
        if prompt is None:
            prompt = await asyncio.to_thread(ids_of, job.prompt, llm.tokenizer)
        ids = [*prompt, *produced_before(job, llm.tokenizer)]
        sampling, placing = sampling_of(job, package), placing_of(job, package)
        self._kept.asked(ids, job.salt)
        try:
            result = llm.generate_async(ids, sampling, streaming=True, **placing)
        except (TypeError, ValueError) as error:
            message = f"TensorRT-LLM refuses the request: {_words(error)}"
            raise Problem(StatusCode.INVALID_ARGUMENT, message, "ENGINE_REFUSED") from error
        except _BROKEN as error:
            self._doubt.set()
            raise unavailable(f"TensorRT-LLM takes no requests: {_words(error)}") from error
        self._running[job.claim] = result
        self._woken.set()
        readers = [ChoiceReader(tuple(job.sampling.stop)) for _ in range(job.choices)]
        try:
            async for step in result:
                self._heard = time.monotonic()
                outputs = _news(run, step, readers)
                if outputs:
                    self._host.deliver(outputs)
        except asyncio.CancelledError:
            with suppress(*_BROKEN):
                result.abort()
            raise
        except _BROKEN as error:
            self._doubt.set()
            raise unavailable(f"TensorRT-LLM gave the request up: {_words(error)}") from error
        finally:
            if run.verdict is not EndReason.CANCELLED:
                self._running.pop(job.claim, None)

    async def _freed(self, run: Run) -> None:
        """Wait until it has let go of an aborted sequence: its last step says so."""
        result = self._running.get(run.job.claim)
        if result is None:
            return
        try:
            async with asyncio.timeout(_FREED_WITHIN):
                async for _ in result:
                    pass
        except (TimeoutError, *_BROKEN):
            self._doubt.set()
        finally:
            self._running.pop(run.job.claim, None)

    def _reachable(self) -> tuple[Package, LLM]:
        if self._llm is None or self._package is None:
            raise unavailable(self._problem)
        return self._package, self._llm


def _news(run: Run, step: RequestOutput, readers: list[ChoiceReader]) -> list[Output]:
    outputs = []
    cached = getattr(step, "cached_tokens", 0) or 0
    for choice in step.outputs:
        if choice.index not in run.open:
            continue
        ids, text, end = readers[choice.index].take(choice)
        if ids or text:
            outputs.append(run.tokens(choice.index, len(ids), ids, text))
        if end is not None:
            outputs.append(run.end(choice.index, end, cached=cached))
            cached = 0
    return outputs


async def _one_by_one(entries: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """Some versions hand several over at once."""
    async for entry in entries:
        for one in entry if isinstance(entry, list) else [entry]:
            yield one


def _has_template(tokenizer: Tokenizer | None) -> bool:
    return bool(getattr(getattr(tokenizer, "tokenizer", tokenizer), "chat_template", None))


def _words(error: BaseException | None) -> str:
    """An error's first line: the rest belongs into its own log."""
    text = str(error or "").strip().partition("\n")[0]
    return text or type(error).__name__
