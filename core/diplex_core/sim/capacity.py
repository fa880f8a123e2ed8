"""How many requests a second a fleet can take, estimated from its workers' own step times.

A worker that is full runs as many sequences as its slots and KV blocks allow. Its engine's time then goes
into two things: reading prompts, each once, and decode steps, which serve all that run. So a request costs

    read(prompt) + n · step(batch, context),   n = max(output / (batch · tokens per step), prompt / budget)

where n is how many steps fall to it: as many as its answer needs, or as many as its prompt needs where the
engine reads at most `budget` tokens beside a step. Context and blocks are means over the time for which
requests stay, so that long answers weigh more. Promises are not looked at: a tier that promises a speed is
full earlier, and then its requests wait, are rejected or go elsewhere.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from diplex_core.events import WorkerFacts
from diplex_core.model.forecast import times_of
from diplex_core.model.steps import StepTimes
from diplex_core.sim.batch import MEAN_UNLUCKY
from diplex_core.words import Blocks, Tokens, blocks_needed


@dataclass(frozen=True, slots=True)
class Mix:
    """Requests by their sizes. `read`: tokens of each prompt that none before it had; others are resident."""

    read: Sequence[Tokens]
    prompts: Sequence[Tokens]
    outputs: Sequence[Tokens]


def capacity_of(workers: Iterable[WorkerFacts], mix: Mix) -> float:
    """Requests a second of this mix that these workers can serve together."""
    # Most of a large fleet is alike but for its names.
    alike: dict[tuple[WorkerFacts, Blocks], float] = {}
    total = 0.0
    for worker in workers:
        kind = worker.kind, worker.usable_blocks
        if kind not in alike:
            alike[kind] = _of_one(worker, mix)
        total += alike[kind]
    return total


def _of_one(worker: WorkerFacts, mix: Mix) -> float:
    times = times_of(worker)
    output, read = _mean(mix.outputs), _mean(mix.read)
    stays = sum(mix.outputs)
    context = sum(o * (p + o / 2) for p, o in zip(mix.prompts, mix.outputs, strict=True)) / stays
    blocks = (
        sum(
            o * blocks_needed(own, o, worker.block_tokens, draft=worker.draft_tokens)
            for own, o in zip(mix.read, mix.outputs, strict=True)
        )
        / stays
    )
    gain = times.tokens_per_step
    batch = max(1, min(worker.capacity_slots, int(worker.usable_blocks / blocks)))
    # Where reading holds everything up, fewer run at a time, and with fewer beside it more is read in a step.
    while batch > 1 and output / (batch * gain) < read / _budget(worker, times, batch):
        batch -= 1
    steps = max(output / (batch * gain), read / _budget(worker, times, batch))
    reading = _mean([times.prefill(own) for own in mix.read])
    reading *= 1.0 + MEAN_UNLUCKY * (times.tail(batch + 1) - 1.0)
    return worker.time_scale / (reading + steps * times.decode_step(batch, context))


def _budget(worker: WorkerFacts, times: StepTimes, batch: int) -> Tokens:
    """Prompt tokens that are read beside a step of so many sequences."""
    return worker.prefill_budget or times.prefill_per_step(batch + 1)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
