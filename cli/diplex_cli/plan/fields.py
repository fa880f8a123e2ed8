"""The page as `--json` prints it: times in milliseconds, memory in bytes, rates a second, shares 0 to 1."""

from collections.abc import Mapping
from typing import Any, Final

from diplex_cli.plan.figures import GIB
from diplex_core.plan.claims import Claims
from diplex_core.plan.compare import MEANT_FOR, Compared
from diplex_core.plan.frontier import Curve
from diplex_core.plan.page import BLOCK, Page
from diplex_core.plan.prediction import Beside, Prediction, Predictions

_TIMES: Final = ("prefill", "ttft_p50", "ttft_p95", "tpot")


def fields(page: Page) -> dict[str, Any]:
    """Everything that the text says."""
    it = page.deployment
    layout = it.layout
    return {
        "model": it.model.name,
        "gpu": it.gpu.name,
        "count": it.count,
        "tp": it.tp,
        "pattern": str(it.pattern),
        "weights": it.weights,
        "kv_cache": it.kv_cache,
        "engines": it.engines,
        "batch": page.batch,
        "context": page.context,
        "prompt": page.prompt,
        "fits": page.fits,
        "nearest": {"batch": page.most, "context": page.longest},
        "memory": [
            {"group": name, "die": column.die, "bytes": size, "gib": size / GIB}
            for column in page.columns
            for name, size in (*((one.name, one.bytes) for one in column.groups), ("kv pool", column.pool))
        ],
        "memory_bytes": sum(column.memory for column in page.columns),
        "memory_fraction": {
            "free_gpu_memory_fraction": layout.free_gpu_memory_fraction,
            "gpu_memory_utilization": layout.gpu_memory_utilization,
        },
        "kv": {
            "bytes_per_token": layout.kv_bytes_per_token,
            "pool_bytes": page.pool_bytes,
            "pool_tokens": page.pool_tokens,
            "pool_blocks": page.pool_blocks,
            "block_tokens": BLOCK,
            "asked_bytes": page.asked_bytes,
        },
        "max_batch_by_context": _by_text(page.inverse.batches),
        "inverse": {
            "max_batch_by_context": _by_text(page.inverse.batches),
            "max_context_by_batch": _by_text(page.inverse.contexts),
        },
        "calibration": page.calibration or None,
        "predicted_batch": page.at,
        "predictions": _predictions(page.predictions),
        "beyond_limit": _beyond(page.predictions.chapter if page.predictions else None),
        "patterns": {str(row.pattern): _compared(row) for row in page.compared},
        "interference": [_beside(one) for one in page.beside],
        "frontier": {str(curve.pattern): _curve(curve) for curve in page.curves},
        "discrepancies": None if page.claims is None else _claims(page.claims),
        "notes": list(page.remarks),
    }


def _by_text(table: Mapping[int, int]) -> dict[str, int]:
    return {str(key): value for key, value in table.items()}


def _predictions(three: Predictions | None) -> dict[str, Any]:
    """All three columns, each `null` where it has nothing to say; where not one sequence fits, none has."""
    return {name: _prediction(getattr(three, name, None)) for name in ("chapter", "measured", "limit")}


def _prediction(one: Prediction | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        **{f"{name}_ms": 1000 * getattr(one, name) for name in _TIMES},
        "tok_s_stream": one.tok_s_stream,
        "tok_s_aggregate": one.tok_s_aggregate,
        "power_w": one.power,
        "utilization": {"memory": one.memory, "bandwidth": one.bandwidth, "compute": one.compute},
    }


def _beyond(one: Prediction | None) -> dict[str, float]:
    """By figure, as `predictions` calls it: how many times better than the limit."""
    if one is None:
        return {}
    return {f"{name}_ms" if name in _TIMES else name: ratio for name, ratio in one.beyond.items()}


def _compared(row: Compared) -> dict[str, Any]:
    return {
        "possible": not row.impossible,
        "why": row.impossible,
        "fits": row.fits,
        "max_batch": row.most,
        "predicted_batch": row.at,
        "predictions": _predictions(row.predictions),
        "beyond_limit": _beyond(row.predictions.chapter if row.predictions else None),
        "for": MEANT_FOR[row.pattern],
    }


def _beside(one: Beside) -> dict[str, Any]:
    steps = {"chapter": one.chapter, "measured": one.measured, "limit": one.limit}
    return {
        "prompt_tokens": one.chunk,
        "step_ms": {name: None if step is None else 1000 * step for name, step in steps.items()},
    }


def _curve(curve: Curve) -> list[dict[str, Any]]:
    return [
        {
            "batch": point.batch,
            **{
                name: None if one is None else {"tok_s_stream": one.tok_s_stream,
                                                "tok_s_aggregate": one.tok_s_aggregate}
                for name, one in (("chapter", point.predictions.chapter), ("limit", point.predictions.limit))
            },
        }
        for point in curve.points
    ]  # fmt: skip


def _claims(said: Claims) -> dict[str, Any]:
    return {
        "memory": [
            {"what": row.what, "chapter_bytes": row.claimed, "counted_bytes": row.counted, "why": row.because}
            for row in said.rows
        ],
        "corner_cases": [
            {
                "batch": one.batch,
                "context": one.context,
                "chapter_kv_bytes": one.claimed_kv,
                "counted_kv_bytes": one.counted_kv,
                "chapter_total_bytes": one.claimed_total or None,
                "counted_total_bytes": one.counted_total,
                "chapter_fits": one.claimed_fits,
                "fits": one.fits,
                "why": one.because,
            }
            for one in said.corners
        ],
        "notes": list(said.notes),
    }
