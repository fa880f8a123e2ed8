"""What one worker's own steps teach about its predictions: a factor on reading prompts, one on decode steps.

Each factor is a geometric moving average of observed over predicted time, so that twice as slow and twice as
fast weigh the same. An observation moves it by a fifth of the way, and by 15 % at most: something odd (a
preempted step, a stall of the host) is a word among many, whatever its size. What is between an eighth of the
prediction and eight times is believed; a worker further off is not what it says it is. An average within 12 %
of the prediction is taken for chance: what is seen scatters by as much, and the model knows better.

>>> learned = Correction()
>>> for _ in range(20):
...     learned.saw_step(predicted=0.010, observed=0.016)
>>> round(learned.step, 2), learned.reading
(1.59, 1.0)
"""

from math import exp, inf, log
from typing import Final

from diplex_core.words import Seconds

_SHARE: Final = 0.2
_MOST_AT_ONCE: Final = log(1.15)
_BOUND: Final = log(8.0)
_CHANCE: Final = log(1.12)


class Correction:
    """The factors of one worker, 1.0 until something is seen. Time predicted by the model times the factor is
    the better prediction; what is told here is always the model's own, without the factor."""

    __slots__ = ("_reading", "_step", "reading", "step")

    def __init__(self) -> None:
        self.reading = 1.0  # how many times longer than predicted the worker reads a prompt; 1/8 to 8
        self.step = 1.0  # how many times longer than predicted its decode steps take; 1/8 to 8
        self._reading = 0.0
        self._step = 0.0

    def saw_reading(self, predicted: Seconds, observed: Seconds) -> None:
        """A prompt, or a piece of one, was read."""
        self._reading = _moved(self._reading, predicted, observed)
        self.reading = _believed(self._reading)

    def saw_step(self, predicted: Seconds, observed: Seconds) -> None:
        """Decode steps went by, one or many: the mean of both."""
        self._step = _moved(self._step, predicted, observed)
        self.step = _believed(self._step)


UNTAUGHT: Final = Correction()
"""Of a worker that nothing was seen of. Nobody teaches this one."""


def _believed(factor: float) -> float:
    return exp(factor) if abs(factor) > _CHANCE else 1.0


def _moved(factor: float, predicted: Seconds, observed: Seconds) -> float:
    """A factor's logarithm after one observation. What is no time (0, negative, nan) teaches nothing."""
    if not (0.0 < predicted < inf and 0.0 < observed < inf):
        return factor
    way = _SHARE * (log(observed) - log(predicted) - factor)
    factor += min(_MOST_AT_ONCE, max(-_MOST_AT_ONCE, way))
    return min(_BOUND, max(-_BOUND, factor))
