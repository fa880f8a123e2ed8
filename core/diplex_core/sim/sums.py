"""Sums of step times over many iterations, wherever they have a closed form.

While the same sequences run, each iteration adds the same to their mean context. Where a step's time is a
line in the mean context, as the chapter's is, n of them take n * first + increase * n * (n - 1) / 2. And
where a prompt read in two parts takes as long as in one, the times of its chunks telescope. Both are looked
for in what the model says, not believed: one that bends is summed over as many steps as it runs straight.
"""

from typing import Final

from diplex_core.model.steps import StepTimes
from diplex_core.words import Seconds, Tokens

_LOOKED_AT: Final[tuple[Tokens, ...]] = (0, 1_000, 4_000, 16_000, 64_000, 256_000)
_ALIKE: Final = 1e-9
"""Two times that differ by less than this share are one and the same."""


class StepSums:
    """One engine's step times, in sums.

    Attributes:
        chunks_add_up: a prompt takes as long in chunks as in one, and no chunk is read faster than the one
            before it.
    """

    def __init__(self, times: StepTimes) -> None:
        self.times = times
        self.prefill = times.prefill
        self.chunks_add_up = _chunks_add_up(times)
        self._lines: dict[int, tuple[Seconds, Seconds] | None] = {}

    def decode_step(self, batch: int, context: float) -> Seconds:
        """One step; as the model says it."""
        line = self._lines[batch] if batch in self._lines else self._look(batch)
        return line[0] + line[1] * context if line is not None else self.times.decode_step(batch, context)

    def straight(self, batch: int, context: float, growth: float, most: int) -> tuple[int, Seconds, Seconds]:
        """How many steps run straight from here on, at most so many; the first one's time, and by how much
        each takes longer than the one before.

        Args:
            context: tokens that each sequence holds, their mean, in the first step; `growth`: that each
                further step adds to it.
        """
        line = self._lines[batch] if batch in self._lines else self._look(batch)
        if line is not None:
            return most, line[0] + line[1] * context, line[1] * growth
        step, steps = self.times.decode_step, most
        first = step(batch, context)
        while steps > 2:
            last = step(batch, context + (steps - 1) * growth)
            middle = step(batch, context + (steps - 1) // 2 * growth)
            if _alike(middle, first + (last - first) * ((steps - 1) // 2) / (steps - 1)):
                return steps, first, (last - first) / (steps - 1)
            steps //= 2
        return steps, first, step(batch, context + growth) - first

    def _look(self, batch: int) -> tuple[Seconds, Seconds] | None:
        """A step's time with nothing in the cache, and what each token of context adds; `None`: it bends."""
        step = self.times.decode_step
        start, end = step(batch, 0), step(batch, _LOOKED_AT[-1])
        slope = (end - start) / _LOOKED_AT[-1]
        straight = all(_alike(step(batch, at), start + slope * at) for at in _LOOKED_AT)
        self._lines[batch] = (start, slope) if straight else None
        return self._lines[batch]


_KNOWN: Final[dict[StepTimes, StepSums]] = {}


def sums_of(times: StepTimes) -> StepSums:
    """The sums of an engine's step times: engines of one kind share them."""
    found = _KNOWN.get(times)
    if found is None:
        found = _KNOWN[times] = StepSums(times)
    return found


def _chunks_add_up(times: StepTimes) -> bool:
    read = times.prefill
    sizes = (1, 64, 256, 1_500, 16_000)
    for behind in _LOOKED_AT:
        for chunk in sizes:
            first, second = read(chunk, behind=behind), read(chunk, behind=behind + chunk)
            together = read(2 * chunk, behind=behind)
            if not _alike(first + second, together) or second < first * (1.0 - _ALIKE):
                return False
    return True


def _alike(one: Seconds, other: Seconds) -> bool:
    return abs(one - other) <= _ALIKE * max(abs(one), abs(other))
