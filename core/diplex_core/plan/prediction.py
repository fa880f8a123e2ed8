"""What to expect of a deployment under a load, in columns that are never mixed.

    chapter    the figures of "Chapter 3: Qwen2.5-72B on a Single B200" and the lines through them; `None`
               where it says nothing of such a deployment
    measured   fitted to measurements; there are none yet, so `None`
    limit      every byte and every operation at the chip's full rate: no engine can do better

A figure of the chapter that no engine can reach is marked with how far beyond the limit it lies.

A prompt's limit is that it has the engine to itself. What is in use are peaks: of the memory's size with all
sequences there; of its bandwidth while they decode; of the tensor cores while the prompt is read.

Power is an estimate: idle power, and of the rest up to the chip's limit the larger of two shares: that of the
tensor cores at work, and 0.36 of the bandwidth's. Decoding that saturates memory was seen to draw up to 300 W
on an H200, whose limit is 700 W and which idles at 75 (Ma et al., "The Illusion of Power Capping in LLM
Decode", 2026); the same share is taken for other chips. The chapter has one figure, a peak; it stands where
the chip's limit does.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from diplex_core.model import boxes, catalogue, chapter
from diplex_core.model.chapter import Chapter
from diplex_core.model.roofline import LIMIT, Chips, Efficiency, Roofline, eagle_head
from diplex_core.model.scale import scale
from diplex_core.plan.deployment import Deployment
from diplex_core.words import Pattern, Seconds, Tokens

_TIMES: Final = ("prefill", "ttft_p50", "ttft_p95", "tpot")
_RATES: Final = ("tok_s_stream", "tok_s_aggregate")
_DECODING_DRAWS: Final = 0.36
# Less than rounding would make of two figures that are the same.
_SAME: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Prediction:
    """One column.

    Attributes:
        prefill: reading the prompt with an engine to itself.
        ttft_p50, ttft_p95: time to the first token of a prompt that arrives as one of the batch.
        tpot: mean time per output token of a stream.
        tok_s_stream, tok_s_aggregate: output tokens a second, of one stream and of all together.
        power: watts, all packages together.
        memory, bandwidth, compute: peak shares in use, 0 to 1; all of memory where the load does not fit.
        beyond: by figure, how many times better than the limit it is; only figures that are.
    """

    prefill: Seconds
    ttft_p50: Seconds
    ttft_p95: Seconds
    tpot: Seconds
    tok_s_stream: float
    tok_s_aggregate: float
    power: float
    memory: float
    bandwidth: float
    compute: float
    beyond: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Predictions:
    chapter: Prediction | None
    measured: Prediction | None
    limit: Prediction


@dataclass(frozen=True, slots=True)
class Beside:
    """How long a decode step takes with `chunk` tokens of a prompt in it, in each column."""

    chunk: Tokens
    chapter: Seconds | None
    measured: Seconds | None
    limit: Seconds


def predictions_of(deployment: Deployment, *, batch: int, context: Tokens, prompt: Tokens) -> Predictions:
    """What to expect.

    Args:
        batch: sequences of the whole deployment; its engines share them as evenly as they can.
        context: tokens that each of them holds.
        prompt: tokens of a prompt that arrives as one of them.
    """
    load = _Load(deployment, batch, context, prompt)
    limit = _limit(load)
    return Predictions(_claimed(load, limit), None, limit)


def interference(
    deployment: Deployment, *, batch: int, context: Tokens, chunks: Sequence[Tokens]
) -> tuple[Beside, ...]:
    """What a prompt does to the streams beside it: the time of one step of the fullest engine with each chunk
    of it. A chunk is taken to be a prompt's first; 0 is the step alone.

    Args:
        batch, context: the sequences beside it, as in `predictions_of`.
        chunks: tokens read in the step.
    """
    load = _Load(deployment, batch, context, 0)
    claims, bounds = chapter_times(deployment), roofline_of(deployment)

    def claimed(chunk: Tokens) -> Seconds | None:
        if claims is None:
            return None
        return claims.decode_step(load.fullest, context) + claims.prefill(chunk)

    return tuple(
        Beside(chunk, claimed(chunk), None, bounds.step(load.fullest, context, chunk).seconds)
        for chunk in chunks
    )


@dataclass(frozen=True, slots=True)
class _Load:
    deployment: Deployment
    batch: int
    context: Tokens
    prompt: Tokens

    @property
    def fullest(self) -> int:
        """Sequences of the engine that has most."""
        return -(-self.batch // self.deployment.engines)

    def together(self, stream: Callable[[int], float]) -> float:
        """Tokens a second of all engines, by what one stream of a batch has."""
        engines = self.deployment.engines
        each, more = divmod(self.batch, engines)
        fuller = more * (each + 1) * stream(each + 1)
        return fuller + ((engines - more) * each * stream(each) if each else 0.0)


@cache
def chapter_times(deployment: Deployment) -> Chapter | None:
    """The chapter's step times of one of the engines; `None`: it says nothing of such a deployment.

    Its figures are of one package and, for pattern A, of three boxes. Other models are scaled, and what they
    call their calibration says so."""
    it = deployment
    _, whose, weights, kv_cache = chapter.calibrated_for()
    if it.tp > 1:
        of_a_box = it.pattern is Pattern.A
        return boxes.box(it.gpu, it.tp, it.model, it.weights, it.kv_cache) if of_a_box else None
    if it.gpu.name not in chapter.gpus() or it.draft not in (None, chapter.drafter()):
        return None
    own = (catalogue.model(whose), weights, kv_cache)
    return Chapter(it.pattern, scale=scale((it.model, it.weights, it.kv_cache), own))


@cache
def roofline_of(deployment: Deployment, efficiency: Efficiency = LIMIT) -> Roofline:
    """The step times of one of the engines, from bytes and operations.

    Pattern B's engines have one die each: half of the package's bandwidth and rates. Pattern C's split adds
    nothing to them: both dies' memory serves one device in pattern A too. What speculates drafts as far ahead
    and as well as the chapter says.
    """
    it = deployment
    inside = it.tp == 1 and it.gpu.die_link is not None
    chips = Chips(
        it.gpu,
        packages=it.count / it.engines,
        shards=it.shards,
        link=it.gpu.die_link if inside and it.gpu.die_link else it.gpu.gpu_link,
    )
    draft = None
    if it.pattern is Pattern.D:
        drafter = it.draft or chapter.drafter()
        draft = (catalogue.model(drafter.profile), drafter.weights)
    elif it.pattern is Pattern.A_EAGLE:
        draft = (eagle_head(it.model), it.weights)
    return Roofline(
        it.model,
        weights=it.weights,
        kv_cache=it.kv_cache,
        chips=chips,
        draft=draft,
        speculates=chapter.speculation_of(it.pattern),
        efficiency=efficiency,
    )


def _limit(load: _Load) -> Prediction:
    times = roofline_of(load.deployment)
    step, reading = times.step(load.fullest, load.context), times.step(0, 0, load.prompt)
    return Prediction(
        prefill=reading.seconds,
        ttft_p50=reading.seconds,
        ttft_p95=reading.seconds,
        tpot=step.seconds / times.tokens_per_step,
        tok_s_stream=times.tokens_per_step / step.seconds,
        tok_s_aggregate=load.together(
            lambda batch: times.tokens_per_step / times.decode_step(batch, load.context)
        ),
        power=_power(load.deployment, max(step.compute, reading.compute), step.bandwidth),
        memory=_memory(load),
        bandwidth=step.bandwidth,
        compute=max(step.compute, reading.compute),
        beyond={},
    )


def _claimed(load: _Load, limit: Prediction) -> Prediction | None:
    times = chapter_times(load.deployment)
    if times is None:
        return None
    step = times.decode_step(load.fullest, load.context)
    reads = roofline_of(load.deployment).step(load.fullest, load.context).reading
    peaks = chapter.peaks()
    draws = peaks["power"] / catalogue.gpu(chapter.calibrated_for()[0]).power
    said = Prediction(
        prefill=times.prefill(load.prompt),
        ttft_p50=times.ttft_p50(load.prompt, load.fullest),
        ttft_p95=times.ttft_p95(load.prompt, load.fullest),
        tpot=step / times.tokens_per_step,
        tok_s_stream=times.tokens_per_step / step,
        tok_s_aggregate=load.together(
            lambda batch: times.tokens_per_step / times.decode_step(batch, load.context)
        ),
        power=draws * limit.power,
        memory=limit.memory,
        bandwidth=min(1.0, reads / step),
        compute=peaks["compute"] * limit.compute,
        beyond={},
    )
    return replace(said, beyond=dict(_beyond(said, limit)))


def _beyond(said: Prediction, limit: Prediction) -> Iterator[tuple[str, float]]:
    for name in (*_TIMES, *_RATES):
        ours, bound = getattr(said, name), getattr(limit, name)
        ratio = bound / ours if name in _TIMES else ours / bound
        if ratio > 1 + _SAME:
            yield name, ratio


def _memory(load: _Load) -> float:
    """Share of a GPU's memory, or of an engine's die, that is in use: all but reserve and free pool."""
    layout = load.deployment.layout
    used = sum(group.bytes for group in layout.groups) - layout.size("reserve")
    return min(1.0, (used + layout.kv_bytes(load.fullest, load.context)) / layout.memory_bytes)


def _power(deployment: Deployment, compute: float, bandwidth: float) -> float:
    gpu = deployment.gpu
    busy = max(compute, _DECODING_DRAWS * bandwidth)
    return deployment.count * (gpu.idle_power + (gpu.power - gpu.idle_power) * busy)
