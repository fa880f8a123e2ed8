"""The memory asked the other way round: how many sequences of a length fit, and how long so many can be."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from diplex_core.plan.deployment import Deployment
from diplex_core.words import Tokens

CONTEXTS: Final[tuple[Tokens, ...]] = tuple(2048 * 2**step for step in range(7))
BATCHES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True, slots=True)
class Inverse:
    """Attributes:
    batches: the most sequences by context, 0 where not one fits.
    contexts: the longest context by batch, never beyond the model's; 0 where not one block is left for each.
    """

    batches: Mapping[Tokens, int]
    contexts: Mapping[int, Tokens]


def inverse(planned: Deployment) -> Inverse:
    """Both tables, the contexts as far as the model goes."""
    most = planned.model.longest
    contexts = [context for context in CONTEXTS if context < most]
    return Inverse(
        MappingProxyType({context: planned.largest_batch(context) for context in [*contexts, most]}),
        MappingProxyType({batch: planned.largest_context(batch) for batch in BATCHES}),
    )
