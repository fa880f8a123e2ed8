"""Step times as the chapter claims them: lines through its rows, kept going up in batch, context and load.

A decode step of `b` sequences with a mean context of `c` tokens takes

    step(b, c) = empty(b) + growth(b) * c

`growth` (seconds per token of mean context) goes through the two pairs of rows that differ in context alone,
`empty`, a step with nothing in the KV cache, through what the rows at a context of 2k leave. The two pairs
contradict each other if a step's cost is bytes read: per token of context in the whole batch, a step at
batch 1 slows 13.6 times more than at batch 32. Both are kept; `growth` runs straight between them. Patterns B
and C have no such pair: A's growth is taken, scaled by how much slower or faster their step is at batch 1.

A prompt that arrives among `b` sequences is read in chunks between their steps. The rows say how fine:
25 ms of prefill come to a TTFT of 50 ms at batch 8 and 90 ms at batch 32, which is 4 and 7 steps of the
neighbours for 2k tokens. That contradicts the 16k chunks of the chapter's own flags (§2), under which one
step would do; the table was taken. At both, a step with its chunk takes 12 ms. So that is the rule: a step
and the chunk beside it take as long as they do at the pattern's fullest row, at every batch up to that one;
beyond it the chunks stay as fine and the steps grow. It gives the TTFTs of 32k prompts too, except for what
§5 calls p95: alone (and for C among others) that lies above; the excess is the `tail`.

The patterns that speculate have few rows of their own (the calibration's file has the reasons):

    D        step(b, c) = 35 ms + A.step(b, c) - A.step(1, 2048), for 5 drafted tokens of 1/700 s each
    A+EAGLE  step(b, c) = A.step(b, c) * tokens per step / 1.4

They read prompts as A does, as finely at its fullest row; in D the draft model reads them too.

Another model than the chapter's is scaled: `empty` by the bytes of weights, `growth` by the bytes of KV cache
a token, reading by the parameters (so an FP8 prompt is read as fast as an FP4 one, which is generous). The
finest chunks and the tail stay.

All of it rises with batch, context and prompt, between the rows and beyond them, for every model: the parts
are lines that rise, added with factors above zero.
"""

from collections.abc import Callable, Mapping
from functools import cache
from math import ceil
from typing import Any, Final, assert_never

from diplex_core.model import catalogue, speculation
from diplex_core.model.lines import Line
from diplex_core.model.memory import Drafter
from diplex_core.model.scale import ITSELF, Scale
from diplex_core.model.speculation import Speculation
from diplex_core.words import Pattern, Seconds, Slots, Tokens

TYPICAL_CONTEXT: Final[Tokens] = 2048
"""The context and the prompt length of most of the chapter's rows."""
LONG_PROMPT: Final[Tokens] = 32768

# A request that comes while others run waits for the end of the step under way: half a step on average.
_STEP_UNDER_WAY: Final = 0.5


class Chapter:
    """The chapter's figures for one pattern.

    Args:
        draft_tokens: what a pattern that speculates drafts in each step; `None`: as the chapter says.
        scale: another model than the chapter's.
    """

    def __init__(
        self, pattern: Pattern, *, draft_tokens: Tokens | None = None, scale: Scale = ITSELF
    ) -> None:
        self.pattern = pattern
        self.speculation = _speculation(pattern, draft_tokens)
        steps, growths, self._drafting = _steps(pattern, self.speculation)
        self.largest_batch: Slots = max(steps)
        self.most_prefill_per_step: Tokens = _rows()["step"]["prefill_tokens"]
        self._scale = scale
        self._growth = Line(growths.items())
        self._empty = Line(
            (batch, step - self._growth(batch) * TYPICAL_CONTEXT) for batch, step in steps.items()
        )
        # Reading is A's where a pattern has no rows of it; the prefill rows are A's anyway.
        self._reads_as = pattern if pattern in _steps_at_typical_context() else Pattern.A
        share, fullest, finest = _reading(self._reads_as)
        self._share = scale.parameters * share + (_draft_share() if pattern is Pattern.D else 0.0)
        taken = self.decode_step(fullest) + self.prefill(finest)
        self._chunks: list[Tokens] = [
            min(self.most_prefill_per_step, self._read_in(taken - self.decode_step(batch)))
            for batch in range(2, fullest + 1)
        ]

    @property
    def calibration(self) -> str:
        """What to call figures of it: those of other models are not the chapter's own."""
        return "chapter" if self._scale.of_itself else f"chapter, scaled from {calibrated_for()[1]}"

    @property
    def draft_tokens(self) -> Tokens:
        return self.speculation.draft_tokens

    @property
    def acceptance(self) -> float:
        return self.speculation.acceptance

    @property
    def tokens_per_step(self) -> float:
        return self.speculation.tokens_per_step

    def decode_step(self, batch: int, context: float = TYPICAL_CONTEXT) -> Seconds:
        """Time of a step that gives each of `batch` sequences `tokens_per_step` tokens; 0 for none.

        Args:
            context: tokens that the sequences hold, their mean.
        """
        if batch < 1:
            return 0.0
        growth = self._scale.kv * self._growth(batch) * context
        return self._drafting + self._scale.weights * self._empty(batch) + growth

    def prefill(self, tokens: Tokens, *, behind: Tokens = 0) -> Seconds:
        """Time to read `tokens` of a prompt of which `behind` are read already, with the engine to itself."""
        alone = _alone()
        return self._share * (alone(behind + tokens) - alone(behind))

    def _read_in(self, seconds: Seconds) -> Tokens:
        return round(_read_alone_in()(seconds / self._share))

    def prefill_per_step(self, batch: int) -> Tokens:
        """Prompt tokens that are read beside a step of `batch` sequences, the arriving one included."""
        if batch <= 1:
            return self.most_prefill_per_step
        return self._chunks[min(batch - 2, len(self._chunks) - 1)]

    def ttft_p50(self, prompt: Tokens, batch: int) -> Seconds:
        """Median time to the first token of a prompt that arrives as one of `batch` sequences."""
        steps = 1.0 if batch <= 1 else ceil(prompt / self.prefill_per_step(batch)) + _STEP_UNDER_WAY
        return self.prefill(prompt) + steps * self.decode_step(batch)

    def ttft_p95(self, prompt: Tokens, batch: int) -> Seconds:
        """95th percentile of the same. Where alone it would be longer, that stands: nobody is served sooner
        in a fuller engine."""
        alone = self.prefill(prompt)
        return max(self.ttft_p50(prompt, n) + alone * (self.tail(n) - 1.0) for n in (1, max(1, batch)))

    def tail(self, batch: int) -> float:
        """The 95th percentile of a prefill's own time over its median."""
        return max(1.0, _tail(self._reads_as, among=batch > 1)(batch))


def calibrated_for() -> tuple[str, str, str, str]:
    """GPU, model, weights and KV cache format that the rows are about."""
    data = _rows()
    return data["gpu"], data["model"], data["weights"], data["kv_cache"]


def gpus() -> tuple[str, ...]:
    """The catalogue's names for where such a package is: alone, and in a box."""
    return tuple(_rows()["gpus"])


def speculation_of(pattern: Pattern) -> Speculation:
    """How far ahead a pattern drafts, and how well, where nothing else is said."""
    return _speculation(pattern, None)


def peaks() -> Mapping[str, float]:
    """What is used at most, by figure: shares, and watts of power; the middle of each range in §3."""
    return {row["figure"]: (row["low"] + row["high"]) / 2 for row in _rows()["peak"]}


def memory_beside() -> tuple[tuple[str, int], ...]:
    """Bytes in HBM beside weights and KV pool, by group (§1)."""
    return tuple((name, size) for name, size in _rows()["memory"].items() if name != "weights")


def drafter() -> Drafter:
    """Pattern D's draft model (§4.4)."""
    said = _rows()["speculation"]
    return Drafter(said["draft_model"], said["draft_weights"])


@cache
def _rows() -> dict[str, Any]:
    return catalogue.read("calibrations", "chapter")


def _speculation(pattern: Pattern, draft_tokens: Tokens | None) -> Speculation:
    if pattern not in (Pattern.D, Pattern.A_EAGLE):
        return speculation.NONE
    said = _rows()["speculation"]
    return Speculation(said["draft_tokens"] if draft_tokens is None else draft_tokens, said["acceptance"])


def _steps(
    pattern: Pattern, speculates: Speculation
) -> tuple[dict[int, Seconds], dict[int, Seconds], Seconds]:
    """A pattern's steps at the typical context and their growth, both by batch; and beside them the time in
    which a draft model drafts."""
    bases, growths = _steps_at_typical_context(), _growths()
    a, said = bases[Pattern.A], _rows()["speculation"]
    match pattern:
        case Pattern.A | Pattern.B | Pattern.C:
            slower = bases[pattern][1] / a[1]
            return bases[pattern], {batch: slope * slower for batch, slope in growths.items()}, 0.0
        case Pattern.D:
            verifying = said["step_seconds"] - said["draft_tokens"] / said["draft_tok_s"]
            steps = {batch: verifying + step - a[1] for batch, step in a.items()}
            return steps, growths, speculates.draft_tokens / said["draft_tok_s"]
        case Pattern.A_EAGLE:
            slower = speculates.tokens_per_step / said["gain_under_load"]
            times = {batch: step * slower for batch, step in a.items()}
            return times, {batch: slope * slower for batch, slope in growths.items()}, 0.0
        case _:
            assert_never(pattern)


def _steps_at_typical_context() -> dict[Pattern, dict[int, Seconds]]:
    """Seconds a step by batch, for each pattern that has rows."""
    found: dict[Pattern, dict[int, Seconds]] = {}
    for row in _rows()["decode"]:
        if row["context"] == TYPICAL_CONTEXT:
            found.setdefault(Pattern(row["pattern"]), {})[row["batch"]] = row["batch"] / row["tok_s"]
    return found


def _growths() -> dict[int, Seconds]:
    """Seconds a step that each token of mean context adds, by batch: from the rows with a longer context."""
    base = _steps_at_typical_context()[Pattern.A]
    return {
        row["batch"]: (row["batch"] / row["tok_s"] - base[row["batch"]]) / (row["context"] - TYPICAL_CONTEXT)
        for row in _rows()["decode"]
        if row["context"] != TYPICAL_CONTEXT
    }


@cache
def _alone() -> Line:
    """Seconds in which pattern A reads a prompt by its tokens."""
    return Line([(0, 0.0), *((row["tokens"], row["seconds"]) for row in _rows()["prefill"])])


@cache
def _read_alone_in() -> Line:
    """The same, the other way round: tokens by seconds."""
    return Line([(0.0, 0), *((row["seconds"], row["tokens"]) for row in _rows()["prefill"])])


def _ttfts(pattern: Pattern, quantile: int) -> dict[int, Seconds]:
    rows = [row for row in _rows()["ttft"] if (row["pattern"], row["quantile"]) == (pattern, quantile)]
    return {row["batch"]: row["seconds"] for row in rows}


def _reading(pattern: Pattern) -> tuple[float, int, Tokens]:
    """The share of A's time that a prompt takes; the batch of the fullest row, and the chunks it reads in."""
    medians, steps = _ttfts(pattern, 50), _steps_at_typical_context()[pattern]
    fullest, alone, share = max(medians), _alone()(TYPICAL_CONTEXT), 1.0
    if pattern is Pattern.B:
        die = _rows()["die"]
        return die["prefill"], fullest, ceil(TYPICAL_CONTEXT / die["chunks"])
    if pattern is Pattern.C:
        # What its own TTFT leaves after one step.
        share = (medians[1] - steps[1]) / alone
    chunks = round((medians[fullest] - share * alone) / steps[fullest] - _STEP_UNDER_WAY)
    return share, fullest, ceil(TYPICAL_CONTEXT / chunks)


@cache
def _tail(pattern: Pattern, *, among: bool) -> Callable[[float], float]:
    """By batch, alone or among others: the 95th percentile of a prompt's own time over its median."""
    model = Chapter(pattern)
    points = [
        (batch, 1.0 + (seconds - model.ttft_p50(LONG_PROMPT, batch)) / model.prefill(LONG_PROMPT))
        for batch, seconds in _ttfts(pattern, 95).items()
        if (batch > 1) == among
    ]
    line, first = Line(points or [(1, 1.0)]), min(points, default=(1, 1.0))[0]
    return lambda batch: line(max(batch, first))


def _draft_share() -> float:
    """The draft model's part of the time in which the chapter's model reads: it has so many parameters."""
    return catalogue.model(drafter().profile).parameters / catalogue.model(calibrated_for()[1]).parameters
