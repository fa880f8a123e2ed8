"""Every row of the chapter that its calibration is made of, beside what comes out of it and what is possible.

The rows are those of calibrations/chapter.toml. The planner's own predictions are asked for each one's load,
so what stands here is what a user gets.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from diplex_core.model import catalogue
from diplex_core.plan.deployment import Deployment, deployment_of
from diplex_core.plan.prediction import Predictions, predictions_of
from diplex_core.words import Pattern

_QUANTILES: Final = {50: "ttft_p50", 95: "ttft_p95"}
# Where more is better; in times less is.
_RATES: Final = ("tok_s_stream", "tok_s_aggregate")


@dataclass(frozen=True, slots=True)
class Row:
    """A figure of the chapter.

    Attributes:
        row: where it stands.
        figure: its name in a `Prediction`.
        low, high: what the chapter says; the same but for ranges.
        ours, limit: what the columns of the planner say of the same load.
        instead: of a figure that contradicts another: what was taken; "": this one.
    """

    row: str
    figure: str
    low: float
    high: float
    ours: float
    limit: float
    instead: str = ""

    @property
    def beyond(self) -> float:
        """How many times better than the limit the chapter's figure is; up to 1.0: it is possible."""
        return self.low / self.limit if self.figure in _RATES else self.limit / self.high

    @property
    def off(self) -> float:
        """How far ours lies from it, as a share of it; 0.0 within a range."""
        if self.ours < self.low:
            return self.ours / self.low - 1
        return max(0.0, self.ours / self.high - 1)


def rows() -> tuple[Row, ...]:
    """All rows that were taken, in the order of the calibration's file."""
    said = _said()
    return (
        *_decode(said["decode"]),
        *_prefill(said["prefill"]),
        *_ttft(said["ttft"]),
        *_boxes(said["box"]),
        *_peaks(said["peak"]),
    )


def contradicted() -> tuple[Row, ...]:
    """The figures that cannot be had together with a row that was taken."""
    return tuple(
        _row(row["row"], row["figure"], (row["value"],) * 2, _predicted(row, row["prompt"]), row["taken"])
        for row in _said()["contradicted"]
    )


def _said() -> dict[str, Any]:
    return catalogue.read("calibrations", "chapter")


def _decode(rows: list[dict[str, Any]]) -> Iterator[Row]:
    """The file has pattern B's rows by engine; a deployment has two."""
    for row in rows:
        deployment = _package(row["pattern"])
        engines = deployment.engines
        found = predictions_of(
            deployment, batch=engines * row["batch"], context=row["context"], prompt=row["context"]
        )
        if row["batch"] > 1:
            together = engines * row["tok_s"]
            yield _row(row["row"], "tok_s_aggregate", (together, together), found)
        alone = row["tok_s"] if row["batch"] == 1 else row.get("stream")
        if alone is not None:
            yield _row(row["row"], "tok_s_stream", (alone, alone), found)


def _prefill(rows: list[dict[str, Any]]) -> Iterator[Row]:
    for row in rows:
        found = predictions_of(_package("A"), batch=1, context=row["tokens"], prompt=row["tokens"])
        yield _row(row["row"], "prefill", (row["seconds"],) * 2, found)


def _ttft(rows: list[dict[str, Any]]) -> Iterator[Row]:
    for row in rows:
        load = {**row, "batch": row["batch"] * _package(row["pattern"]).engines, "context": row["prompt"]}
        yield _row(
            row["row"], _QUANTILES[row["quantile"]], (row["seconds"],) * 2, _predicted(load, row["prompt"])
        )


def _boxes(rows: list[dict[str, Any]]) -> Iterator[Row]:
    for row in rows:
        deployment = deployment_of(
            _said()["model"],
            gpu=row["gpus"][0],
            weights=row["weights"],
            kv_cache=row["kv_cache"],
            count=row["tp"],
            tp=row["tp"],
        )
        found = predictions_of(deployment, batch=row["batch"], context=row["context"], prompt=row["context"])
        figure = "tok_s_stream" if row["batch"] == 1 else "tok_s_aggregate"
        yield _row(row["row"], figure, (row["tok_s"],) * 2, found)


def _peaks(rows: list[dict[str, Any]]) -> Iterator[Row]:
    for row in rows:
        found = _predicted({**row, "pattern": "A"}, row["context"])
        yield _row(row["row"], row["figure"], (row["low"], row["high"]), found)


def _package(pattern: str) -> Deployment:
    said = _said()
    return deployment_of(
        said["model"],
        gpu=said["gpu"],
        pattern=Pattern(pattern),
        weights=said["weights"],
        kv_cache=said["kv_cache"],
    )


def _predicted(load: dict[str, Any], prompt: int) -> Predictions:
    return predictions_of(
        _package(load["pattern"]), batch=load["batch"], context=load["context"], prompt=prompt
    )


def _row(name: str, figure: str, said: tuple[float, float], found: Predictions, instead: str = "") -> Row:
    assert found.chapter is not None, f"the chapter calibration has no figures for its own row: {name}"
    ours, limit = getattr(found.chapter, figure), getattr(found.limit, figure)
    return Row(name, figure, *said, ours, limit, instead)
