"""How much more one model has to read and compute than another: what a calibration is scaled by."""

from dataclasses import dataclass

from diplex_core.model import catalogue
from diplex_core.model.catalogue import Model
from diplex_core.model.memory import kv_bytes_per_token


@dataclass(frozen=True, slots=True)
class Scale:
    """Ratios of a model to the one that a calibration is about."""

    weights: float = 1.0  # bytes that each decode step reads
    kv: float = 1.0  # bytes of KV cache a token
    parameters: float = 1.0  # operations for each prompt token

    @property
    def of_itself(self) -> bool:
        return self == ITSELF


ITSELF = Scale()


def scale(model: tuple[Model, str, str], reference: tuple[Model, str, str]) -> Scale:
    """The ratios of one model to another, each given with the formats of its weights and its KV cache.

    Raises:
        NotInCatalogue: a format is unknown.

    >>> qwen = catalogue.model("qwen2.5-72b")
    >>> scale((qwen, "mxfp4-mixed", "fp8"), (qwen, "mxfp4-mixed", "bf16"))
    Scale(weights=1.0, kv=0.5, parameters=1.0)
    """
    (own, own_weights, own_kv), (other, other_weights, other_kv) = model, reference
    return Scale(
        weights=catalogue.recipe(own_weights).weights(own).read
        / catalogue.recipe(other_weights).weights(other).read,
        kv=kv_bytes_per_token(own, own_kv) / kv_bytes_per_token(other, other_kv),
        parameters=own.parameters / other.parameters,
    )
