"""What one more request would see on a worker: time to its first token, and time per token after it.

An engine reads prompts first come, first served, a chunk of at most `budget` tokens in each iteration,
beside a decode step of everything that runs. So the first token waits for three things: the prompts granted
before it (the backlog), the step under way, and its own prompt, chunk by chunk. Every later token waits for
one decode step, and for the chunks of prompts that come after: the share of the engine's time that reading
takes is estimated from the prompt tokens that were granted of late.

It is the same model that the simulated engine runs on, read forwards: for one request, in closed form.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Final

from diplex_core.events import WorkerFacts
from diplex_core.guests import Reading
from diplex_core.model.steps import StepTimes, step_times
from diplex_core.words import Seconds, Tokens


@dataclass(frozen=True, slots=True)
class Load:
    """What a worker has on it when one more request comes.

    Attributes:
        sequences: that run or wait to be read, the new one not among them.
        unread: of these, the ones whose prompt is still to be read.
        context: tokens that each of them holds, their mean.
        backlog: seconds until the engine has read the prompts that were granted before.
        intake: prompt tokens a second that were granted of late.
    """

    sequences: int
    unread: int
    context: float
    backlog: Seconds
    intake: float


_ALIKE: Final = 64
"""Contexts that differ by fewer tokens are predicted alike."""


class Forecast:
    """Predictions for one worker, in real seconds.

    Args:
        times: the worker's step times.
        budget: prompt tokens that one iteration reads at most; 0: as `times` says.
        time_scale: simulated seconds that pass in a real one; 1.0 on real engines.
    """

    def __init__(self, times: StepTimes, *, budget: Tokens = 0, time_scale: float = 1.0) -> None:
        self._budget = budget
        self._scale = time_scale
        self._gain = times.tokens_per_step
        self._prefill_per_step = times.prefill_per_step
        # The same few questions come with every request.
        self._prefill = lru_cache(maxsize=4096)(times.prefill)
        self._decode_step = lru_cache(maxsize=4096)(times.decode_step)

    def reading(self, prompt: Tokens, load: Load) -> Seconds:
        """Time to read a prompt that is next, beside what runs."""
        steps = ceil(prompt / self._chunk(load.sequences))
        # Those that are read before it speak beside it, as far as they are not done by then.
        beside = self._step(load.sequences - load.unread // 2, load.context)
        own = self._step(1, prompt)
        return (self._prefill(prompt) + (steps - 1) * beside + max(beside, own)) / self._scale

    def ttft(self, prompt: Tokens, load: Load) -> Seconds:
        """Time from the grant to the first token."""
        under_way = 0.5 * self._step(load.sequences - load.unread, load.context) / self._scale
        return load.backlog + under_way + self.reading(prompt, load)

    def disturbance(self, prompt: Tokens, load: Load) -> Reading:
        """What reading a prompt means for the streams that run."""
        chunk = self._prefill(self._chunk(load.sequences))
        step = self._step(max(1, load.sequences), load.context)
        seconds = self._prefill(prompt)
        return Reading(seconds / self._scale, (step + chunk) / self._gain / self._scale)

    def undisturbed_tpot(self, prompt: Tokens, load: Load, choices: int = 1) -> Seconds:
        """Mean time per output token while no prompt is read."""
        batch = load.sequences + choices
        context = (load.sequences * load.context + choices * prompt) / batch
        return self._step(batch, context) / self._gain / self._scale

    def tpot(self, prompt: Tokens, load: Load, choices: int = 1) -> Seconds:
        """Mean time per output token after the first."""
        step = self.undisturbed_tpot(prompt, load, choices) * self._gain * self._scale
        chunk = self._prefill(self._chunk(load.sequences))
        # Seconds of reading in a second of the engine's time; a full engine reads a chunk in every step.
        busy = load.intake / self._scale * chunk / self._chunk(load.sequences)
        beside = min(chunk, step * busy / (1.0 - busy)) if busy < 1.0 else chunk
        return (step + beside) / self._gain / self._scale

    def _chunk(self, sequences: int) -> Tokens:
        return self._budget or self._prefill_per_step(sequences + 1)

    def _step(self, batch: int, context: float) -> Seconds:
        """A decode step, for a context that is as good as the true one."""
        return self._decode_step(batch, _ALIKE * round(context / _ALIKE))


def times_of(facts: WorkerFacts) -> StepTimes:
    """The step times that a worker's own words name.

    Raises:
        ValueError: there are no figures for such a worker.
    """
    return step_times(
        facts.pattern,
        gpu=facts.gpu,
        profile=facts.profile,
        weights=facts.weights,
        kv_cache=facts.kv_cache,
        calibration=facts.calibration,
        draft_tokens=facts.draft_tokens,
    )


def forecast_of(facts: WorkerFacts) -> Forecast | None:
    """The predictions for a worker by what it says of itself; `None`: no figures are known of such a one."""
    try:
        return Forecast(times_of(facts), budget=facts.prefill_budget, time_scale=facts.time_scale)
    except ValueError:
        return None
