"""llama.cpp as an engine: starts its HTTP server in a child process, and speaks its native interface.

Counts and token ids are llama.cpp's own, so they are exact, and a sequence can go on behind output that
another worker produced. Closing a stream frees its slot: the claim is let go once llama.cpp says so.
"""

import asyncio
import os
import secrets
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from diplex.v1 import generation_pb2 as pb
from diplex.wire.status import Problem
from diplex_core.words import Blocks, Claim, EndReason, Seconds, Slots, Tokens
from diplex_workers.engines.engine import Counted, Facts, Host, Job, ModelFacts, Output
from diplex_workers.engines.llamacpp_questions import Questions, tokens_in
from diplex_workers.engines.llamacpp_wire import ChoiceReader, completion, left_to_produce, named
from diplex_workers.engines.openai_http import Upstream, problem_of, status_of, unavailable, unreadable
from diplex_workers.engines.runs import Run, Runs
from diplex_workers.launch import weights
from diplex_workers.launch.child import Child, LaunchFailed, launched
from diplex_workers.launch.gguf import vocabulary_hash

_SERVER: Final = "diplex_workers.launch.llamacpp_server"
# Between two looks at the slots; three that fail in a row, and the child is ended.
_LOOK_EVERY: Final[Seconds] = 1.0
_LOOK_FAILS: Final = 3
# Between two tries to start it: doubled each time, from the start again after a life of that length.
_PAUSE_FIRST: Final[Seconds] = 0.2
_PAUSE_LAST: Final[Seconds] = 5.0
_LONG_LIFE: Final[Seconds] = 30.0
# Longest wait for a slot that llama.cpp was told to free; a prompt chunk may be computing.
_FREED_WITHIN: Final[Seconds] = 10.0


def half_the_cores() -> int:
    """Threads for one of two workers on this machine: with more, both wait for each other's (measured: two
    workers of two threads on two cores take 280 ms a token, two of one thread 51 ms)."""
    return max(1, len(os.sched_getaffinity(0)) // 2)


@dataclass(frozen=True, slots=True)
class LlamaCppSettings:
    """One llama.cpp server.

    Args:
        model: the name that clients use.
        weights: a name that `diplex fetch` knows, or the path of a .gguf file.
        context: most prompt and output tokens of one sequence.
        slots: sequences at once; each has `context` tokens of KV cache to itself.
        threads: cores that it computes on; `None`: half of this machine's, since two workers share it.
        prefill_chunk: prompt tokens computed in one go, while running sequences wait.
        port: where the child listens, on loopback; 0: any free port.
        niceness: added to the child's, so that a bulk worker yields the cores to its neighbours.
        start_within: seconds that loading may take.
    """

    model: str
    weights: str | Path = "smollm2"
    context: Tokens = 2048
    slots: Slots = 4
    threads: int | None = None
    block_tokens: Tokens = 32
    prefill_chunk: Tokens = 16
    port: int = 0
    niceness: int = 0
    start_within: Seconds = 120.0


class LlamaCppEngine:
    """Runs llama.cpp, and starts it again when it falls."""

    def __init__(self, settings: LlamaCppSettings) -> None:
        self._settings = settings
        self._host: Host | None = None
        self._runs: Runs | None = None
        self._upstream: Upstream | None = None
        self._problem = "llama.cpp is starting"
        # The slots that worked when it was last asked; `None`: not known.
        self._busy: Sequence[dict[str, Any]] | None = None
        # The running child's process id, for people and for tests.
        self.child_pid: int | None = None

    async def serve(self, host: Host) -> None:
        """Run until cancelled. Weights that are missing are looked for again: fetched, it comes up."""
        self._host = host
        loop = asyncio.get_running_loop()
        pause = _PAUSE_FIRST
        async with Runs(host, self._talk, self._freed) as self._runs:
            while True:
                began = loop.time()
                problem = await self._one_life(host, self._runs)
                if problem != self._problem:
                    host.unready(problem)
                    self._problem = problem
                if loop.time() - began > _LONG_LIFE:
                    pause = _PAUSE_FIRST
                await asyncio.sleep(pause)
                pause = min(2 * pause, _PAUSE_LAST)

    async def count(self, model: str, prompt: pb.Prompt) -> Counted:
        _, questions = self._reachable()
        ids = await questions.ids_of(prompt)
        return Counted(len(ids), ids=ids)

    def submit(self, job: Job) -> None:
        assert self._runs is not None, "submit comes after ready"
        self._runs.start(job)

    def cancel(self, claim: Claim) -> None:
        if self._runs is not None:
            self._runs.cancel(claim)

    def limit(self, claim: Claim, tokens: Tokens) -> None:
        """Nothing waits at a limit here: the worker ends what comes to one."""

    def observed_blocks(self) -> Blocks | None:
        if self._busy is None:
            return None
        return sum(-(-tokens_in(slot) // self._settings.block_tokens) for slot in self._busy)

    def slots_now(self) -> Slots | None:
        return None if self._busy is None else len(self._busy)

    # The child's life

    async def _one_life(self, host: Host, runs: Runs) -> str:
        """Start the child and serve until it falls; the reason, for people."""
        try:
            file = weights.find(self._settings.weights)
            options, tokenizer = self._options(file), await asyncio.to_thread(vocabulary_hash, file)
            async with (
                launched(_SERVER, options, within=self._settings.start_within) as child,
                Upstream(child.hello["url"], options["api_key"]) as upstream,
            ):
                facts = self._facts(await upstream.get("/props"), str(child.hello["version"]), tokenizer)
                self._upstream, self._problem, self.child_pid = upstream, "", child.pid
                host.ready(facts)
                reason = await self._until_gone(child, upstream)
                self._upstream = self._busy = None
                runs.fail_all(unavailable(reason))
                return reason
        except weights.WeightsMissing as missing:
            return str(missing)
        except (LaunchFailed, Problem) as failed:
            return f"llama.cpp did not start: {failed}"
        finally:
            self._upstream = self._busy = self.child_pid = None

    def _options(self, file: Path) -> dict[str, Any]:
        settings = self._settings
        return {
            "weights": str(file),
            "slots": settings.slots,
            "context": settings.context,
            "threads": settings.threads or half_the_cores(),
            "prefill_chunk": settings.prefill_chunk,
            "port": settings.port,
            "niceness": settings.niceness,
            # Nobody else on this machine is to take slots that the pool has promised.
            "api_key": secrets.token_urlsafe(16),
        }

    def _facts(self, props: dict[str, Any], version: str, tokenizer: str) -> Facts:
        settings = self._settings
        context = min(settings.context, props["default_generation_settings"]["n_ctx"])
        return Facts(
            kind="llamacpp",
            version=version,
            models=(
                ModelFacts(
                    settings.model,
                    has_chat_template=bool(props.get("chat_template")),
                    tokenizer_hash=tokenizer,
                ),
            ),
            block_tokens=settings.block_tokens,
            capacity_blocks=settings.slots * -(-context // settings.block_tokens),
            capacity_slots=settings.slots,
            context=context,
            can_grow=True,
            prefill_budget_tokens=settings.prefill_chunk,
        )

    async def _until_gone(self, child: Child, upstream: Upstream) -> str:
        """Watch the child, and its slots as a gauge."""
        missed = 0
        while True:
            try:
                async with asyncio.timeout(_LOOK_EVERY):
                    return f"llama.cpp {await child.ended()}"
            except TimeoutError:
                pass
            try:
                self._busy = await Questions(upstream).busy_slots()
                missed = 0
            except Problem:
                missed += 1
                if missed == _LOOK_FAILS:
                    child.kill()

    # One job

    async def _talk(self, run: Run) -> None:
        job, host, (upstream, questions) = run.job, self._host, self._reachable()
        assert host is not None
        if left_to_produce(job) <= 0:
            host.deliver([run.end(choice, EndReason.LENGTH) for choice in sorted(run.open)])
            return
        prompt = job.counted.ids or await questions.ids_of(job.prompt)
        body = completion(job, (*prompt, *await _produced_before(job, questions)))
        readers = [ChoiceReader() for _ in range(job.choices)]
        async with aclosing(upstream.events("/completion", body)) as stream:
            async for events in stream:
                outputs: list[Output] = []
                try:
                    for event in events:
                        outputs += await self._told(run, event, readers, questions)
                finally:  # what came before an error is told before it
                    if outputs:
                        host.deliver(outputs)

    async def _told(
        self, run: Run, event: dict[str, Any], readers: Sequence[ChoiceReader], questions: Questions
    ) -> list[Output]:
        if "error" in event:
            raise problem_of(status_of(event["error"]), _words(event["error"]), "llama.cpp")
        if not run.began:
            run.began = True
            if self._host is not None:
                self._host.prefilling(run.job.claim)
        if "prompt_progress" in event:
            return []
        try:
            return await _news(run, event, readers[event.get("index", 0)], questions)
        except (KeyError, IndexError, TypeError) as error:
            raise unreadable(f"llama.cpp said what is not understood: {error!r}") from error

    async def _freed(self, run: Run) -> None:
        """Wait until no more slots work than those of the jobs that are known to run."""
        assert self._runs is not None
        pause = 0.01
        try:
            async with asyncio.timeout(_FREED_WITHIN):
                while self._upstream is not None:
                    live = sum(len(other.open) for other in self._runs if other.began and not other.verdict)
                    if len(await Questions(self._upstream).busy_slots()) <= live:
                        return
                    await asyncio.sleep(pause)  # llama.cpp has no event for it
                    pause = min(2 * pause, 0.05)
        except (TimeoutError, Problem):
            return

    def _reachable(self) -> tuple[Upstream, Questions]:
        if self._upstream is None:
            raise unavailable(self._problem)
        return self._upstream, Questions(self._upstream)


async def _news(run: Run, event: dict[str, Any], reader: ChoiceReader, questions: Questions) -> list[Output]:
    """What one event tells. Waits only for what llama.cpp left out: ids inside a long character."""
    choice = event.get("index", 0)
    outputs = []
    count, ids, text = reader.take(event)
    if count:
        if len(ids) < count:
            ids = list(named(count, ids, await questions.tokenise(text, special=False)))
        outputs.append(run.tokens(choice, count, ids, text))
    if event.get("stop"):
        stopped = event["stop_type"] in ("eos", "word")
        count, ids, _ = reader.release()
        if count:
            # At a limit, llama.cpp forgets text that it held back for a stop string.
            text = "" if stopped or len(ids) < count else await questions.text_of(ids)
            outputs.append(run.tokens(choice, count, ids if len(ids) == count else (), text))
        outputs.append(run.end(choice, EndReason.STOP if stopped else EndReason.LENGTH))
    return outputs


async def _produced_before(job: Job, questions: Questions) -> Sequence[int]:
    if job.resume is None:
        return ()
    return job.resume.ids or await questions.tokenise(job.resume.text, special=False)


def _words(error: object) -> str:
    return str(error.get("message", error) if isinstance(error, dict) else error)
