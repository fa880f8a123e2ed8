"""What the chapter says of the memory (§1 and §1.1), beside what comes of counting it.

The chapter's own recipe, mxfp4-mixed, is "mixed FP4/FP6". Counted, that is FP6 attention and FP4 FFN with
their block scales, two BF16 tables and FP32 norms and biases; what cannot be counted (context, scratch,
activations, reserve) is taken as it stands.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from diplex_core.model import catalogue, chapter
from diplex_core.model.memory import kv_bytes_per_token
from diplex_core.plan.deployment import Deployment
from diplex_core.words import Pattern, Tokens

_COUNTED_RECIPE: Final = "mxfp6-mxfp4"
_GB: Final = 10**9
_GIB: Final = 2**30
_FP32: Final = 4

# §1, the drawn box.
_CONTEXT, _SCRATCH, _ACTIVATIONS, _RESERVE = 1.5, 3.0, 12.0, 10.0
_ATTENTION, _FFN, _EMBEDDINGS, _NORMS, _WEIGHTS = 14.0, 28.0, 2.6, 0.1, 44.7
_KV, _SUM, _FREE, _MEMORY = 82.0, 152.0, 40.0, 192.0
_KV_BATCH, _KV_CONTEXT = 16, 32768
# §1.1: batch, context, KV and total in GB (0: not said), and whether it fits. The KV of the
# last two is in GiB.
_CORNERS: Final = ((1, 131072, 21, 80, True), (64, 2048, 20, 80, True), (64, 32768, 320, 0, False))
# §2, the flags.
_MAX_BATCH: Final = 32
_FRACTION: Final = 0.7


@dataclass(frozen=True, slots=True)
class Claim:
    """A figure of §1, and what it comes to.

    Attributes:
        claimed, counted: bytes.
        because: what the difference is; "": it was taken as it stands.
        sums: names of the rows that this one is the sum of.
    """

    what: str
    claimed: int
    counted: int
    because: str = ""
    sums: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Corner:
    """One of §1.1's cases.

    Attributes:
        claimed_kv, claimed_total, counted_kv, counted_total: bytes; a total of 0 was not claimed.
        claimed_fits, fits: whether it fits: as claimed, and as counted.
        because: what the difference is.
    """

    batch: int
    context: Tokens
    claimed_kv: int
    claimed_total: int
    claimed_fits: bool
    counted_kv: int
    counted_total: int
    fits: bool
    because: str


@dataclass(frozen=True, slots=True)
class Claims:
    """The chapter's memory beside ours.

    Attributes:
        notes: what does not go together in the chapter, in sentences.
    """

    rows: tuple[Claim, ...]
    corners: tuple[Corner, ...]
    notes: tuple[str, ...]


def claims_about(planned: Deployment) -> Claims | None:
    """The chapter's figures, where they are about what is planned: its model in its recipe on one B200."""
    gpu, model, weights, kv_cache = chapter.calibrated_for()
    about = (planned.gpu.name, planned.model.name, planned.weights, planned.kv_cache, planned.count)
    if about != (gpu, model, weights, kv_cache, 1) or planned.pattern not in (Pattern.A, Pattern.A_EAGLE):
        return None
    counting = _Counting(planned)
    return Claims(tuple(counting.rows()), tuple(counting.corners()), tuple(counting.notes()))


class _Counting:
    def __init__(self, planned: Deployment) -> None:
        self._model = planned.model
        self._memory = planned.gpu.memory_bytes
        self._bytes = catalogue.recipe(_COUNTED_RECIPE).bytes_of(planned.model)
        self._bytes["norms"] = _FP32 * planned.model.norm_parameters
        self._weights = sum(self._bytes.values())
        self._per_token = kv_bytes_per_token(planned.model, planned.kv_cache)
        self._beside = round((_CONTEXT + _SCRATCH + _ACTIVATIONS + _RESERVE) * _GB)

    def rows(self) -> Iterator[Claim]:
        """The box from top to bottom."""
        around, weights = list(self._around()), list(self._weights_told())
        kv = self._kv(_KV_BATCH, _KV_CONTEXT)
        why = f"5.12 GB each is 160,000 B × 32,000, not {self._per_token:,.0f} × 32,768"
        pool = Claim(f"KV cache, {_KV_BATCH} × 32k", _gb(_KV), kv, why)
        yield from around[:2]
        yield from weights
        why = "so near only because the errors cancel"
        yield Claim("weights", _gb(_WEIGHTS), self._weights, why, _names(weights))
        yield pool
        yield from around[2:]
        total, own = self._weights + self._beside + kv, self._own_sum()
        parts = _names([*around, *weights, pool])
        yield Claim("sum", _gb(_SUM), total, f"its own groups add up to {own:.1f}", parts)
        there = self._memory / _GB
        why = f"{_MEMORY:.0f} less {own:.1f} is {_MEMORY - own:.1f}; the runtime reports {there:.1f}"
        yield Claim("free", _gb(_FREE), self._memory - total, why)

    def _around(self) -> Iterator[Claim]:
        """What cannot be counted."""
        for name, size in (
            ("CUDA context, libraries", _CONTEXT),
            ("engine and scratch", _SCRATCH),
            ("activations", _ACTIVATIONS),
            ("headroom, reserve", _RESERVE),
        ):
            yield Claim(name, _gb(size), _gb(size))

    def _weights_told(self) -> Iterator[Claim]:
        model, size = self._model, self._bytes
        each = _ATTENTION * _GB / model.attention_parameters
        why = f"{each:.2f} bytes a parameter, above FP8's 1.00; FP6 takes 0.78"
        yield Claim("attention, FP4/FP6", _gb(_ATTENTION), size["attention"], why)
        each = _FFN * _GB / model.ffn_parameters
        why = f"{each:.3f} bytes a parameter, below FP4 with scales, 0.531"
        yield Claim("FFN, FP4/FP6", _gb(_FFN), size["ffn"], why)
        why = f"counts one table; untied, there are two of {size['head'] / _GB:.2f} GB"
        yield Claim("embeddings, LM head", _gb(_EMBEDDINGS), size["embeddings"] + size["head"], why)
        why = f"{model.norm_parameters / 1e6:.1f} million parameters of 4 bytes"
        yield Claim("norms, biases (FP32)", _gb(_NORMS), size["norms"], why)

    def corners(self) -> Iterator[Corner]:
        """§1.1, in its order."""
        reserved = _RESERVE * _GB
        for batch, context, kv, total, fits in _CORNERS:
            counted = self._kv(batch, context)
            in_all = counted + self._weights + self._beside
            if batch == 1:
                why = f"{(in_all - reserved) / _GB:.1f} GB without the reserve"
            else:
                plain = batch * context * self._model.kv_elements
                why = f"{plain / _GIB:.0f} GiB of plain FP8 = {plain / _GB:.1f} GB"
            yield Corner(
                batch, context, _gb(kv), _gb(total), fits, counted, in_all, in_all <= self._memory, why
            )  # fmt: skip

    def notes(self) -> Iterator[str]:
        """What §2's flags come to."""
        flagged = self._kv(_MAX_BATCH, _KV_CONTEXT) / _GB
        left = self._memory - self._weights - self._beside
        yield (
            f"--max_batch_size {_MAX_BATCH} (§2) with 32k each needs {flagged:.1f} GB of KV cache; "
            f"{left / _GB:.1f} GB are left for it, where {int(left // (self._per_token * _KV_CONTEXT))} fit. "
            f"--max_seq_len is a cap on one sequence; the paged pool decides."
        )
        # What is free when the pool is made: all but context, scratch and weights.
        free = self._memory - self._weights - _gb(_CONTEXT) - _gb(_SCRATCH)
        pool = _FRACTION * free
        yield (
            f"--kv_cache_free_gpu_memory_fraction {_FRACTION} (§2) makes a pool of {pool / _GB:.1f} GB, "
            f"{pool / self._per_token:,.0f} tokens: neither the box's {_KV:.0f} GB nor those and its "
            f"{_FREE:.0f} GB free."
        )

    def _own_sum(self) -> float:
        return _CONTEXT + _SCRATCH + _WEIGHTS + _KV + _ACTIVATIONS + _RESERVE

    def _kv(self, batch: int, context: Tokens) -> int:
        return round(batch * context * self._per_token)


def _gb(size: float) -> int:
    return round(size * _GB)


def _names(rows: Iterable[Claim]) -> tuple[str, ...]:
    return tuple(row.what for row in rows)
