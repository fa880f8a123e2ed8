"""Step times as the chapter claims them: lines through its rows, kept going up in batch, context and load.

A decode step of `b` sequences with a mean context of `c` tokens takes

    step(b, c) = base(b) + growth(b) * (c - 2048)

`base` goes through the rows at a context of 2k, `growth` (seconds per token of mean context) through the
two pairs of rows that differ in context alone. Those two contradict each other if a step's cost is bytes
read: per token of context in the whole batch, a step at batch 1 slows 13 times more than at batch 32. Both
rows are kept; `growth` runs straight between them. Pattern C has no such pair: A's growth is taken,
scaled by how much faster C's step is at batch 1.

A prompt that arrives among `b` sequences is read in chunks between their steps. The rows say how fine:
25 ms of prefill come to a TTFT of 50 ms at batch 8 and 90 ms at batch 32, which is 4 and 7 steps of the
neighbours for 2k tokens. That contradicts the 16k chunks of the chapter's own flags (§2), under which one
step would do; the table was taken. It then gives the TTFTs of 32k prompts too, except for what §5 calls
p95: at batch 1 (and for C at 16) that lies above; the excess is the `tail`.
"""

from functools import cache
from math import ceil
from typing import Any, Final

from diplex_core.model import catalogue
from diplex_core.model.lines import Line
from diplex_core.words import Pattern, Seconds, Slots, Tokens

TYPICAL_CONTEXT: Final[Tokens] = 2048
"""The context and the prompt length of most of the chapter's rows."""
LONG_PROMPT: Final[Tokens] = 32768

# A request that comes while others run waits for the end of the step under way: half a step on average.
_STEP_UNDER_WAY: Final = 0.5


class Chapter:
    """The chapter's figures for one pattern.

    Raises:
        ValueError: the chapter has no rows for the pattern.
    """

    def __init__(self, pattern: Pattern) -> None:
        data = _rows()
        bases = _steps_at_typical_context(data)
        if pattern not in bases:
            known = ", ".join(bases)
            raise ValueError(f"the chapter calibration has no rows for pattern {pattern}; it has {known}")
        own, reference = bases[pattern], bases[Pattern.A]
        faster = own[1] / reference[1]
        self.pattern = pattern
        self.largest_batch: Slots = max(own)
        self.most_prefill_per_step: Tokens = data["step"]["prefill_tokens"]
        self._base = Line(own.items())
        self._growth = Line((batch, slope * faster) for batch, slope in _growths(data).items())
        ttft = {(r["quantile"], r["batch"]): r["seconds"] for r in data["ttft"] if r["pattern"] == pattern}
        alone = Line([(0, 0.0), *((row["tokens"], row["seconds"]) for row in data["prefill"])])
        # The prefill rows are A's. C reads a prompt in what its own TTFT leaves after one step.
        share = 1.0 if pattern is Pattern.A else (ttft[50, 1] - own[1]) / alone(TYPICAL_CONTEXT)
        self._alone, self._share = alone, share
        self._chunks = Line(
            (batch, max(1, round((seconds - self.prefill(TYPICAL_CONTEXT)) / own[batch] - _STEP_UNDER_WAY)))
            for (quantile, batch), seconds in ttft.items()
            if quantile == 50
        )
        self._tail = Line(
            (batch, 1.0 + (seconds - self.ttft_p50(LONG_PROMPT, batch)) / self.prefill(LONG_PROMPT))
            for (quantile, batch), seconds in ttft.items()
            if quantile == 95
        )

    def decode_step(self, batch: int, context: float = TYPICAL_CONTEXT) -> Seconds:
        """Time of a step that gives each of `batch` sequences one token; 0 for none.

        Args:
            context: tokens that the sequences hold, their mean.
        """
        if batch < 1:
            return 0.0
        return self._base(batch) + self._growth(batch) * (context - TYPICAL_CONTEXT)

    def prefill(self, tokens: Tokens, *, behind: Tokens = 0) -> Seconds:
        """Time to read `tokens` of a prompt of which `behind` are read already, with the engine to itself."""
        return self._share * (self._alone(behind + tokens) - self._alone(behind))

    def prefill_per_step(self, batch: int) -> Tokens:
        """Prompt tokens that are read beside a step of `batch` sequences, the arriving one included."""
        if batch <= 1:
            return self.most_prefill_per_step
        return ceil(TYPICAL_CONTEXT / self._chunks(batch))

    def ttft_p50(self, prompt: Tokens, batch: int) -> Seconds:
        """Median time to the first token of a prompt that arrives as one of `batch` sequences."""
        steps = 1.0 if batch <= 1 else ceil(prompt / self.prefill_per_step(batch)) + _STEP_UNDER_WAY
        return self.prefill(prompt) + steps * self.decode_step(batch)

    def ttft_p95(self, prompt: Tokens, batch: int) -> Seconds:
        """95th percentile of the same. Where the tail shrinks faster than the median grows, the longest time
        of a smaller batch stands: nobody is served sooner in a fuller engine."""
        alone = self.prefill(prompt)
        sizes = range(1, max(1, batch) + 1)
        return max(self.ttft_p50(prompt, size) + alone * (self.tail(size) - 1.0) for size in sizes)

    def tail(self, batch: int) -> float:
        """The 95th percentile of a prefill's own time over its median."""
        return max(1.0, self._tail(batch))


@cache
def _rows() -> dict[str, Any]:
    return catalogue.read("calibrations", "chapter")


def memory_groups() -> dict[str, int]:
    """Bytes in HBM beside the KV pool, by group (§1)."""
    return dict(_rows()["memory"])


def calibrated_for() -> tuple[str, str, str, str]:
    """GPU, model, weights and KV cache format that the rows are about."""
    data = _rows()
    return data["gpu"], data["model"], data["weights"], data["kv_cache"]


def _steps_at_typical_context(data: dict[str, Any]) -> dict[Pattern, dict[int, Seconds]]:
    """Seconds a step by batch, for each pattern."""
    found: dict[Pattern, dict[int, Seconds]] = {}
    for row in data["decode"]:
        if row["context"] == TYPICAL_CONTEXT:
            found.setdefault(Pattern(row["pattern"]), {})[row["batch"]] = row["batch"] / row["tok_s"]
    return found


def _growths(data: dict[str, Any]) -> dict[int, Seconds]:
    """Seconds a step that each token of mean context adds, by batch: from the rows with a longer context."""
    base = _steps_at_typical_context(data)[Pattern.A]
    return {
        row["batch"]: (row["batch"] / row["tok_s"] - base[row["batch"]]) / (row["context"] - TYPICAL_CONTEXT)
        for row in data["decode"]
        if row["context"] != TYPICAL_CONTEXT
    }
