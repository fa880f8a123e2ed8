"""The five patterns beside each other, on the same GPUs, for the same load."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from diplex_core.plan.deployment import Deployment, Unplannable, deployment_of
from diplex_core.plan.prediction import Predictions, predictions_of
from diplex_core.words import Pattern, Tokens

MEANT_FOR: Final[Mapping[Pattern, str]] = MappingProxyType(
    {
        Pattern.A: "Many tenants, high throughput: the simplest, and the one to start with",
        Pattern.B: "Two models or versions side by side: neither can fail or crowd the other",
        Pattern.C: "The lowest latency for one user, by the chapter: see below what is left of that",
        Pattern.D: "Latency with a 7B draft, if the complexity is worth it",
        Pattern.A_EAGLE: "Code and long answers under high load: continuous batching, speculation inline",
    }
)
"""What the chapter recommends each pattern for (§4.5)."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One pattern's row.

    Attributes:
        impossible: why the pattern cannot be deployed so, with the mend; "": it can.
        fits: whether the batch that was asked for does.
        most: sequences of this context that fit, in the whole deployment.
        deployment: `None` where it is impossible.
        at: the batch that the predictions are for: what was asked, or the most that fits.
        predictions: `None` where not even one sequence fits.
    """

    pattern: Pattern
    impossible: str = ""
    fits: bool = False
    most: int = 0
    deployment: Deployment | None = None
    at: int = 0
    predictions: Predictions | None = None


def compared(
    planned: Deployment, name: str, *, batch: int, context: Tokens, prompt: Tokens
) -> Iterator[Compared]:
    """Every pattern with the same model, formats and GPUs.

    Args:
        name: the model as it was asked for: its name, or the path of its config.json.
        batch: sequences of the whole deployment.
    """
    for pattern in Pattern:
        try:
            other = deployment_of(
                name,
                gpu=planned.gpu.name,
                pattern=pattern,
                weights=planned.weights,
                kv_cache=planned.kv_cache,
                count=planned.count,
                tp=planned.tp,
            )
            most = other.largest_batch(context)
        except Unplannable as error:
            yield Compared(pattern, impossible=str(error))
            continue
        at = min(batch, most)
        predictions = predictions_of(other, batch=at, context=context, prompt=prompt) if at else None
        yield Compared(
            pattern, fits=batch <= most, most=most, deployment=other, at=at, predictions=predictions
        )
