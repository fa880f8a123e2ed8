"""What one stream gets against what all get together, over the batch: a curve for each pattern."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from diplex_core.plan.deployment import Deployment
from diplex_core.plan.prediction import Predictions, predictions_of
from diplex_core.words import Pattern, Tokens


@dataclass(frozen=True, slots=True)
class Point:
    """`batch` sequences of the whole deployment, and what is expected of them."""

    batch: int
    predictions: Predictions


@dataclass(frozen=True, slots=True)
class Curve:
    """A pattern's points, the batch growing from the least to the most that fits."""

    pattern: Pattern
    points: tuple[Point, ...]


def frontier(
    deployments: Iterable[tuple[Deployment, int]], *, context: Tokens, prompt: Tokens
) -> Iterator[Curve]:
    """A curve for each deployment of which a sequence fits.

    Args:
        deployments: each with the most sequences that fit.
    """
    for deployment, most in deployments:
        points = tuple(
            Point(batch, predictions_of(deployment, batch=batch, context=context, prompt=prompt))
            for batch in _batches(deployment.engines, most)
        )
        if points:
            yield Curve(deployment.pattern, points)


def _batches(engines: int, most: int) -> Iterator[int]:
    """Powers of two for each engine, and the most."""
    batch = engines
    while batch < most:
        yield batch
        batch *= 2
    if most >= engines:
        yield most
