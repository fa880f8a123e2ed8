"""Step times of one engine over all GPUs of a box, as the chapter compares them with its single B200.

The chapter has one or two rows of such a box, all of decoding. So pattern A's shape is taken, through them:

    step(b, c) = A.step(b, c) * (the row's step) / (A's step at the row's batch and context)

with the batch-32 row from batch 2 on and the single-stream row for a stream alone, where there are both. (The
two contradict each other, calibrations/chapter.toml says how: a stream alone is slower than one of 32.)

It has no row of reading prompts there. They are read as pattern A reads them, as much faster as the box's
dense rate for its weights is above that of one B200 at FP4.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from diplex_core.model import catalogue, chapter
from diplex_core.model.catalogue import Gpu, Model
from diplex_core.model.chapter import TYPICAL_CONTEXT, Chapter
from diplex_core.model.scale import scale
from diplex_core.words import Pattern, Seconds

_A: Final = Chapter(Pattern.A)


class Box(Chapter):
    """The chapter's figures for one engine over a box.

    Args:
        rows: those of the box.
        gpu: its GPUs.
        model, weights, kv_cache: another model than the rows' is scaled from it, as `Chapter` scales.
    """

    def __init__(self, rows: Sequence["Row"], gpu: Gpu, model: Model, weights: str, kv_cache: str) -> None:
        slower = {row.batch: row.step / _A.decode_step(row.batch, row.context) for row in rows}
        self._alone, self._among = slower[min(slower)], slower[max(slower)]
        chip, whose, *_ = chapter.calibrated_for()
        own = scale((model, weights, kv_cache), (catalogue.model(whose), rows[0].weights, rows[0].kv_cache))
        reads = catalogue.gpu(chip).flops("fp4") / (gpu.flops(catalogue.recipe(weights).rate) * rows[0].tp)
        super().__init__(Pattern.A, scale=replace(own, parameters=own.parameters * reads))

    def decode_step(self, batch: int, context: float = TYPICAL_CONTEXT) -> Seconds:
        return (self._alone if batch <= 1 else self._among) * super().decode_step(batch, context)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the chapter about a box: `batch` sequences make `tok_s` tokens a second, all together."""

    row: str
    gpus: Sequence[str]
    tp: int
    weights: str
    kv_cache: str
    batch: int
    context: int
    tok_s: float

    @property
    def step(self) -> Seconds:
        return self.batch / self.tok_s


def rows() -> tuple[Row, ...]:
    """All of them, in the chapter's order."""
    said: list[dict[str, Any]] = catalogue.read("calibrations", "chapter")["box"]
    return tuple(Row(**row) for row in said)


def box(gpu: Gpu, tp: int, model: Model, weights: str, kv_cache: str) -> Box | None:
    """The figures for one engine over `tp` GPUs; `None`: the chapter has none.

    Raises:
        NotInCatalogue: a format is unknown.
    """
    own = [row for row in rows() if gpu.name in row.gpus and tp == row.tp]
    return Box(own, gpu, model, weights, kv_cache) if own else None
