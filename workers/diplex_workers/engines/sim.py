"""The simulated B200: the core's batch, driven in real time on absolute deadlines.

An iteration ends when the model says, counted from the end of the one before: a late wake-up makes nothing
slower, the next iterations catch up. Everything it says of itself is labelled simulated.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

import grpc

from diplex.v1 import generation_pb2 as pb
from diplex.wire.simulated import FIGURES, TOKENIZER_HASH, count_simulated
from diplex.wire.status import Problem
from diplex_core.model import catalogue
from diplex_core.model.steps import LATENCY_PREFILL_BUDGET, memory_of, step_times
from diplex_core.sim.batch import Batch, Work
from diplex_core.sim.speech import prompt_digest
from diplex_core.words import Blocks, Claim, EndReason, Pattern, Slots, Tokens
from diplex_workers.engines.engine import Counted, Facts, Host, Job, ModelFacts, Output


@dataclass(frozen=True, slots=True)
class SimSettings:
    """A simulated engine.

    Attributes:
        models: the names that clients use.
        calibration: whose figures time comes from; there is no default, and every report names it.
        profile, gpu, weights, kv_cache: what the figures must be about.
        time_scale: simulated seconds that pass in a real one.
        capacity_blocks, slots: `None`: what the memory leaves, and the calibration's largest batch.
        prefill_budget: prompt tokens read in one step whatever runs beside; `None`: on a latency worker
            (pattern C) a small one, elsewhere as the calibration says.
        draft_model, draft_tokens: what speculates in D and A+EAGLE; `None`: as the calibration says.
        context: longest prompt plus output in tokens; `None`: the profile's.
    """

    models: tuple[str, ...]
    calibration: str
    pattern: Pattern = Pattern.A
    profile: str = "qwen2.5-72b"
    gpu: str = "b200"
    weights: str = "mxfp4-mixed"
    kv_cache: str = "mxfp8"
    time_scale: float = 1.0
    seed: int = 0
    capacity_blocks: Blocks | None = None
    slots: Slots | None = None
    prefill_budget: Tokens | None = None
    draft_model: str | None = None
    draft_tokens: Tokens | None = None
    block_tokens: Tokens = 32
    context: Tokens | None = None


class SimEngine:
    """One simulated engine.

    Raises:
        ValueError: the settings ask for what no calibration has; the message ends in the mend.
    """

    def __init__(self, settings: SimSettings) -> None:
        if settings.time_scale <= 0:
            raise ValueError(f"time_scale is {settings.time_scale:g}. Mend: more than 0; 1 is real time")
        times = step_times(
            settings.pattern,
            gpu=settings.gpu,
            profile=settings.profile,
            weights=settings.weights,
            kv_cache=settings.kv_cache,
            calibration=settings.calibration,
            draft_tokens=settings.draft_tokens,
        )
        memory = memory_of(
            settings.pattern,
            gpu=settings.gpu,
            profile=settings.profile,
            weights=settings.weights,
            kv_cache=settings.kv_cache,
            draft=settings.draft_model,
        )
        capacity = settings.capacity_blocks or memory.capacity_blocks(settings.block_tokens)
        budget = _prefill_budget(settings)
        self._facts = Facts(
            kind="sim",
            models=tuple(ModelFacts(name, tokenizer_hash=TOKENIZER_HASH) for name in settings.models),
            block_tokens=settings.block_tokens,
            capacity_blocks=capacity,
            capacity_slots=settings.slots or times.largest_batch,
            context=settings.context or catalogue.model(settings.profile).context,
            version="1",
            simulated=True,
            calibration=times.calibration,
            can_grow=True,
            can_pause=True,
            time_scale=settings.time_scale,
            prefill_budget_tokens=budget or 0,
            draft_tokens=times.draft_tokens,
            keeps_prefixes=True,
            profile=settings.profile,
            weights=settings.weights,
            kv_cache=settings.kv_cache,
        )
        self._batch = Batch(
            times,
            capacity=capacity,
            slots=self._facts.capacity_slots,
            block_tokens=settings.block_tokens,
            prefill_budget=budget,
            seed=settings.seed,
        )
        self._scale = settings.time_scale
        self._woken = asyncio.Event()
        self._impossible: list[Output] = []
        self.bounds: Mapping[str, pb.CountBound] = dict.fromkeys(settings.models, FIGURES)

    async def serve(self, host: Host) -> None:
        host.ready(self._facts)
        now = time.monotonic  # not the loop's time: uvloop keeps that in whole milliseconds
        end = now()
        while True:
            if self._batch.idle and not self._impossible:
                self._woken.clear()
                await self._woken.wait()
                end = now()
            end += self._batch.plan(host.prefilling) / self._scale
            # A late iteration still lets the loop turn once, so that streams are written and read.
            await asyncio.sleep(max(0.0, end - now()))
            outputs, self._impossible = self._impossible, []
            self._batch.finish(_Writer(outputs))
            host.deliver(outputs)

    async def count(self, model: str, prompt: pb.Prompt) -> Counted:
        return Counted(count_simulated(prompt))

    def submit(self, job: Job) -> None:
        sampling = job.sampling
        # Told that an answer has at least so many tokens, it ends it right there: so a load can say how long
        # each answer is, and ask for more.
        least = 0 if sampling.ignore_eos else sampling.min_tokens
        work = Work(
            claim=job.claim,
            digest=digest_of(job.prompt),
            prompt_tokens=job.counted.tokens,
            max_tokens=job.max_tokens,
            choices=job.choices,
            from_index=job.resume.from_index if job.resume is not None else 0,
            to_the_limit=sampling.ignore_eos or sampling.max_tokens_stated,
            stop=tuple(sampling.stop),
            limit=job.limit,
            length=least,
            cached=job.cached,
        )
        try:
            self._batch.submit(work)
        except ValueError as error:
            problem = Problem(grpc.StatusCode.INVALID_ARGUMENT, f"the simulated engine: {error}", "BAD_JOB")
            self._impossible += [
                Output(job.claim, choice, end=EndReason.FAILED, problem=problem)
                for choice in range(job.choices)
            ]
        self._woken.set()

    def cancel(self, claim: Claim) -> None:
        self._batch.cancel(claim)
        self._woken.set()

    def limit(self, claim: Claim, tokens: Tokens) -> None:
        self._batch.set_limit(claim, tokens)
        self._woken.set()

    def observed_blocks(self) -> Blocks:
        return self._batch.cache.used

    def slots_now(self) -> Slots:
        return self._batch.used_slots


class _Writer:
    """Turns what the batch says into the worker's outputs."""

    def __init__(self, outputs: list[Output]) -> None:
        self._outputs = outputs

    def __call__(
        self, claim: Claim, choice: int, token_id: int | None, text: str, end: EndReason | None
    ) -> None:
        if token_id is None:
            self._outputs.append(Output(claim, choice, end=end))
        else:
            self._outputs.append(Output(claim, choice, 1, (token_id,), text, end))


def digest_of(prompt: pb.Prompt) -> int:
    """The number that a simulated answer is a function of."""
    match prompt.WhichOneof("content"):
        case "chat":
            tools = b"\0" + prompt.chat.tools if prompt.chat.tools else b""
            return prompt_digest("chat", prompt.chat.messages + tools)
        case "ids":
            return prompt_digest("ids", ",".join(map(str, prompt.ids.ids)).encode())
        case _:
            return prompt_digest("text", prompt.text.encode())


def _prefill_budget(settings: SimSettings) -> Tokens | None:
    if settings.prefill_budget is None and settings.pattern is Pattern.C:
        return LATENCY_PREFILL_BUDGET
    return settings.prefill_budget
