"""What one more request would see on a worker: time to its first token, and time per token after it.

An engine reads prompts first come, first served, a chunk of at most `budget` tokens in each iteration,
beside a decode step of everything that runs. So the first token waits for three things: the prompts granted
before it (the backlog), the step under way, and its own prompt, chunk by chunk. Every later token waits for
one decode step, and for the chunks of prompts that come after: the share of the engine's time that reading
takes is estimated from the prompt tokens that were granted of late.

It is the same model that the simulated engine runs on, read forwards: for one request, in closed form.
"""

from functools import lru_cache
from typing import Final, NamedTuple

from diplex_core.events import WorkerFacts
from diplex_core.guests import Reading
from diplex_core.model.correction import UNTAUGHT, Correction
from diplex_core.model.steps import StepTimes, step_times
from diplex_core.value import value
from diplex_core.words import Seconds, Tokens


@value
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
_REMEMBERED: Final = 32_768


@value
class Outlook:
    """What one more request would see, and what it would mean for those that are there.

    Attributes:
        ttft: from the grant to the first token.
        tpot: mean time per output token after it, as prompts keep coming at the rate of late.
        undisturbed: the same, if none came.
        reading: what its prompt means for the streams that run.
        reads, steps: the model's own words, uncorrected, on the engine's time from where it takes the prompt
            up to its first token: reading it, and the steps between.
        step: the same of `undisturbed`.
    """

    ttft: Seconds
    tpot: Seconds
    undisturbed: Seconds
    reading: Reading
    reads: Seconds
    steps: Seconds
    step: Seconds


class _Engine(NamedTuple):
    """What an engine does with so many sequences, whatever prompt comes, in simulated seconds.

    Attributes:
        chunk: prompt tokens that an iteration reads beside them.
        own_chunk: the same of a prompt that comes now, which may be alone.
        reads_a_chunk: the time that takes.
        half: what is left of the step under way, in the mean.
        beside: a step of them, as far as they speak while a prompt that comes now is read.
        slowest: a step of all of them.
    """

    chunk: Tokens
    own_chunk: Tokens
    reads_a_chunk: Seconds
    half: Seconds
    beside: Seconds
    slowest: Seconds


class Forecast:
    """Predictions for workers of one kind, in real seconds.

    Args:
        times: the workers' step times.
        budget: prompt tokens that one iteration reads at most; 0: as `times` says.
        time_scale: simulated seconds that pass in a real one; 1.0 on real engines.
    """

    def __init__(self, times: StepTimes, *, budget: Tokens = 0, time_scale: float = 1.0) -> None:
        self._budget = budget
        self._scale = time_scale
        self._gain = times.tokens_per_step
        # The same few questions come with every request.
        self._prefill_per_step = lru_cache(maxsize=_REMEMBERED)(times.prefill_per_step)
        self._decode_step = lru_cache(maxsize=_REMEMBERED)(times.decode_step)
        self._prefill = lru_cache(maxsize=_REMEMBERED)(
            lambda tokens, behind: times.prefill(tokens, behind=behind)
        )
        self._engine = lru_cache(maxsize=_REMEMBERED)(self._engine_with)

    def outlook(
        self,
        prompt: Tokens,
        load: Load,
        *,
        choices: int = 1,
        cached: Tokens = 0,
        learned: Correction = UNTAUGHT,
    ) -> Outlook:
        """All that is predicted of a request.

        Args:
            prompt: its tokens.
            cached: of these, the leading ones that are resident: they need no reading.
            learned: what the worker's own steps have taught.
        """
        sequences, scale, gain = load.sequences, self._scale, self._gain
        reading, stepping = learned.reading / scale, learned.step / scale
        chunk, own_chunk, reads_a_chunk, half, beside, slowest = self._engine(
            sequences, load.unread, _alike(load.context)
        )
        reads_a_chunk *= reading
        reads = self._prefill(prompt - cached, cached)
        own = self._decode_step(1, _alike(prompt))
        steps = half + _between(prompt - cached, own_chunk, beside, own)

        batch = sequences + choices
        context = (sequences * load.context + choices * prompt) / batch
        step = self._decode_step(batch, _alike(context))
        taken = stepping * step
        # Seconds of reading in a second of the engine's time; a full engine reads a chunk in every step.
        busy = load.intake * reads_a_chunk / chunk
        slowed = min(reads_a_chunk, taken * busy / (1.0 - busy)) if busy < 1.0 else reads_a_chunk
        reads_for = reading * reads
        return Outlook(
            load.backlog + reads_for + stepping * steps,
            (taken + slowed) / gain,
            taken / gain,
            Reading(reads_for, (stepping * slowest + reads_a_chunk) / gain),
            reads / scale,
            steps / scale,
            step / (gain * scale),
        )

    def _engine_with(self, sequences: int, unread: int, context: Tokens) -> _Engine:
        # Others are read beside at least one stream: this one, once its own prompt is read.
        chunk = self._budget or self._prefill_per_step(max(2, sequences + 1))
        return _Engine(
            chunk,
            chunk if sequences else self._budget or self._prefill_per_step(1),
            self._prefill(chunk, 0),
            0.5 * self._decode_step(sequences - unread, context),
            # Those that are read before it speak beside it, as far as they are not done by then.
            self._decode_step(sequences - unread // 2, context),
            self._decode_step(max(1, sequences), context),
        )

    def ttft(self, prompt: Tokens, load: Load) -> Seconds:
        """Time from the grant to the first token."""
        return self.outlook(prompt, load).ttft

    def tpot(self, prompt: Tokens, load: Load) -> Seconds:
        """Mean time per output token after the first."""
        return self.outlook(prompt, load).tpot

    def undisturbed_tpot(self, prompt: Tokens, load: Load) -> Seconds:
        """The same, while no prompt is read."""
        return self.outlook(prompt, load).undisturbed

    def reading(self, prompt: Tokens, load: Load, learned: Correction = UNTAUGHT) -> Seconds:
        """Time to read a prompt that is next, beside what runs."""
        chunk = self._budget or self._prefill_per_step(load.sequences + 1)
        beside = self._decode_step(load.sequences - load.unread // 2, _alike(load.context))
        own = self._decode_step(1, _alike(prompt))
        reads, steps = self._prefill(prompt, 0), _between(prompt, chunk, beside, own)
        return (learned.reading * reads + learned.step * steps) / self._scale


def _between(to_read: Tokens, chunk: Tokens, beside: Seconds, own: Seconds) -> Seconds:
    """The engine's time for the steps between a prompt's chunks, and for the one that ends it.

    Args:
        beside: a step of those that speak meanwhile.
        own: one of the prompt alone, once it is read.
    """
    return (to_read - 1) // chunk * beside + (beside if beside > own else own)


def _alike(context: float) -> int:
    """A context that is as good as the true one."""
    return (int(context) + _ALIKE // 2) // _ALIKE * _ALIKE


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
    """The predictions for a worker by what it says of itself; `None`: no figures are known of such a one.
    Workers that are alike share one, and what it remembers."""
    return _forecast_of(facts.kind)


@lru_cache(maxsize=256)
def _forecast_of(kind: WorkerFacts) -> Forecast | None:
    try:
        times = times_of(kind)
    except ValueError:
        return None
    return Forecast(times, budget=kind.prefill_budget, time_scale=kind.time_scale)
