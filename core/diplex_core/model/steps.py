"""Step times of an engine: the simulated engine and the router's predictions both take them from here."""

from functools import cache
from typing import Final, Protocol

from diplex_core.model import catalogue, chapter
from diplex_core.model.memory import Layout, layout
from diplex_core.model.scale import scale
from diplex_core.words import Pattern, Seconds, Slots, Tokens

CALIBRATIONS: Final = ("chapter",)
_NOT_YET: Final = {
    "measured": ": its efficiencies are not fitted yet",
    "limit": ": no engine is that fast",
}

LATENCY_PREFILL_BUDGET: Final[Tokens] = 256
"""Prompt tokens that a latency worker reads in one step where nothing else is said: no stream beside a long
prompt waits for more than these."""


class StepTimes(Protocol):
    """What a performance model says of one engine's steps, in simulated seconds."""

    @property
    def calibration(self) -> str:
        """What these figures are called wherever they are shown."""

    @property
    def largest_batch(self) -> Slots: ...

    @property
    def most_prefill_per_step(self) -> Tokens: ...

    @property
    def draft_tokens(self) -> Tokens:
        """Tokens drafted ahead in each step; 0: no speculation."""

    @property
    def acceptance(self) -> float:
        """How often a drafted token is right, where all before it were; 0 to 1."""

    @property
    def tokens_per_step(self) -> float:
        """Tokens that one sequence gains in a decode step, on average; 1.0 without speculation."""

    def decode_step(self, batch: int, context: float) -> Seconds:
        """One step of `batch` sequences that hold `context` tokens each, in their mean."""

    def prefill(self, tokens: Tokens, *, behind: Tokens = 0) -> Seconds:
        """Reading `tokens` of a prompt of which `behind` are read already."""

    def prefill_per_step(self, batch: int) -> Tokens:
        """Prompt tokens read beside a step of `batch` sequences, the arriving one included."""

    def tail(self, batch: int) -> float:
        """The 95th percentile of a prompt's own reading time over its median."""


@cache
def step_times(
    pattern: Pattern,
    *,
    gpu: str,
    profile: str,
    weights: str,
    kv_cache: str,
    calibration: str,
    draft_tokens: Tokens | None = None,
) -> StepTimes:
    """The step times of a model in a pattern.

    Args:
        calibration: whose figures: as a configuration says it, or as a worker does ("chapter, scaled …").
        draft_tokens: drafted ahead in each step; `None` or 0: as the calibration says.
    Raises:
        ValueError: there are no such figures; the message ends in the mend.
    """
    pattern, calibration = Pattern(pattern), calibration.partition(",")[0]
    if calibration not in CALIBRATIONS:
        raise ValueError(
            f"unknown calibration '{calibration}' for a simulated engine{_NOT_YET.get(calibration, '')}. "
            f"Mend: calibration: chapter"
        )
    own_gpu, *own = chapter.calibrated_for()
    if gpu != own_gpu:
        raise ValueError(f"the chapter calibration is about {own_gpu}, not {gpu}. Mend: gpu: {own_gpu}")
    try:
        model = catalogue.model(profile)
        scaled = scale((model, weights, kv_cache), (catalogue.model(own[0]), own[1], own[2]))
    except catalogue.NotInCatalogue as error:
        mend = f"profile: {own[0]}, weights: {own[1]}, kv_cache: {own[2]}"
        raise ValueError(f"{error}. Mend: {mend}") from error
    times = chapter.Chapter(pattern, draft_tokens=draft_tokens or None, scale=scaled)
    if draft_tokens and not times.draft_tokens:
        raise ValueError(f"pattern {pattern} does not speculate. Mend: pattern: D, or no draft")
    return times


def memory_of(
    pattern: Pattern, *, gpu: str, profile: str, weights: str, kv_cache: str, draft: str | None = None
) -> Layout:
    """How the model lies in memory, by the chapter's groups.

    Args:
        draft: pattern D's draft model by its profile; `None`: the calibration's.
    Raises:
        ValueError: there are no such figures; the message ends in the mend.
    """
    beside_it = None
    if pattern is Pattern.D:
        beside_it = chapter.drafter()
        known = beside_it.profile
        if draft not in (None, known):
            raise ValueError(f"the chapter drafts with {known}, not {draft}. Mend: draft: {{model: {known}}}")
    return layout(
        pattern,
        gpu=gpu,
        profile=profile,
        weights=weights,
        kv_cache=kv_cache,
        beside=chapter.memory_beside(),
        drafter=beside_it,
    )
