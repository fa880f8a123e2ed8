"""How an engine is sized for what it serves: running sequences, prompt tokens a step, the longest sequence.

A latency worker keeps a gap between two tokens of one stream. So a step must be short, and what makes it long
is the prompt read in it: the prefill budget is the largest chunk with which a step of all running sequences
still keeps the gap, and the bound on running sequences is what leaves half of the gap for that chunk. A
throughput worker reads as much in a step as engines do where nothing is said, and runs what its pool holds.

Measured on one H200 with a real engine, eight chat streams beside 8k prompts: with a budget of 8,192 tokens a
stream's gap p99 was 1.6 s, with 1,024 it was 110 ms (23 November 2026, one run; docs/guide/placement.md).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from diplex_core.model.steps import LATENCY_PREFILL_BUDGET
from diplex_core.plan.deployment import Deployment, Unplannable
from diplex_core.plan.prediction import roofline_of
from diplex_core.words import Seconds, Slots, Tokens

REACHED: Final = 0.5
"""What share of the limit's speed a step is planned with. Published prompts reach 50 to 65 % of it and
decoding 70 to 80 %; until the planner's own column `measured` is fitted, the lower one holds for both."""
GAP: Final[Seconds] = 0.05
"""Time per output token that a latency worker keeps where no tier promises one: faster than people read."""
CONTEXT: Final[Tokens] = 8192
"""Tokens that a running sequence holds where nothing is said."""
LONGEST: Final[Tokens] = 32768
_THROUGHPUT_BUDGET: Final[Tokens] = 8192  # max_num_tokens where TensorRT-LLM is told nothing
_MOST_SEQUENCES: Final[Slots] = 256
_BUDGETS: Final = tuple(LATENCY_PREFILL_BUDGET * 2**step for step in range(6))


class Serves(StrEnum):
    """What a worker is configured for."""

    LATENCY = "latency"
    THROUGHPUT = "throughput"


@dataclass(frozen=True, slots=True)
class Sizes:
    """One engine's.

    Attributes:
        sequences: running at once.
        prefill_budget: prompt tokens that one step reads beside them.
        step_tokens: tokens of one step, all sequences' own included: what engines call max_num_tokens.
        longest: prompt and output of one sequence.
        pool_tokens: of the KV pool that the planner leaves.
        gap: what a latency worker was sized for; `None`: nothing is promised.
        kept: whether a step of its own sequences with such a chunk keeps the gap.
    """

    serves: Serves
    sequences: Slots
    prefill_budget: Tokens
    step_tokens: Tokens
    longest: Tokens
    pool_tokens: Tokens
    gap: Seconds | None = None
    kept: bool = True


def sizes_of(
    deployment: Deployment,
    serves: Serves,
    *,
    gap: Seconds = GAP,
    context: Tokens = CONTEXT,
    longest: Tokens = 0,
    sequences: Slots = 0,
    budget: Tokens = 0,
) -> Sizes:
    """The planner's figures for one engine.

    Args:
        gap: the time per output token that a latency worker keeps.
        context: tokens that a running sequence holds, in the mean.
        longest: of one sequence; 0: `LONGEST`, or as many as the model is set up for.
        sequences, budget: where somebody has said them; 0: the planner's.
    Raises:
        Unplannable: the model reads no such sequence, or the pool holds none.
    """
    longest = longest or min(LONGEST, deployment.model.context)
    if longest > deployment.model.longest:
        name, most = deployment.model.name, deployment.model.longest
        raise Unplannable(f"{name} reads at most {most:,} tokens, not {longest:,}. Nearest: --longest {most}")
    layout = deployment.layout
    if (room := layout.largest_context(1)) < longest:
        raise Unplannable(
            f"the KV pool holds {room:,} tokens, less than one sequence of {longest:,}. "
            f"Nearest: --longest {room}, or a smaller --weights"
        )
    most = max(1, min(_MOST_SEQUENCES, layout.largest_batch(min(context, longest))))
    draft = roofline_of(deployment).draft_tokens
    if serves is Serves.THROUGHPUT:
        # In eights, as CUDA graphs are captured.
        running, chunk, kept = most - most % 8 or most, _THROUGHPUT_BUDGET, True
    else:
        running, chunk, kept = _for_latency(deployment, gap, min(context, longest), most)
    running, chunk = sequences or running, budget or chunk
    return Sizes(
        serves=serves,
        sequences=running,
        prefill_budget=chunk,
        step_tokens=chunk + running * (1 + draft),
        longest=longest,
        pool_tokens=room,
        gap=gap if serves is Serves.LATENCY else None,
        kept=kept,
    )


def _for_latency(
    deployment: Deployment, gap: Seconds, context: Tokens, most: Slots
) -> tuple[Slots, Tokens, bool]:
    """Running sequences, the prefill budget beside them, and whether both keep the gap."""
    times = roofline_of(deployment)

    def takes(sequences: Slots, chunk: Tokens) -> Seconds:
        """A step's time per token of a stream, as an engine is taken to reach it."""
        return times.step(sequences, context, chunk).seconds / times.tokens_per_step / REACHED

    alone = max(2 * takes(1, 0), takes(1, LATENCY_PREFILL_BUDGET))
    if alone > gap:
        # No engine here keeps it: a worker for one stream would help nobody, so half as much again is kept.
        running, chunk, _ = _for_latency(deployment, 1.5 * alone, context, most)
        return running, chunk, False
    # A step grows with what runs and with what is read: halving finds the last that keeps its share.
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if takes(middle, 0) <= gap / 2 else (low, middle - 1)
    budget = max((chunk for chunk in _BUDGETS if takes(low, chunk) <= gap), default=LATENCY_PREFILL_BUDGET)
    return low, budget, True
