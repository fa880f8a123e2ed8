"""How much more one model has to read and compute than another: what a calibration is scaled by."""

from dataclasses import dataclass

from diplex_core.model import catalogue
from diplex_core.model.memory import kv_bytes_per_token, weights_bytes


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


def scale(model: tuple[str, str, str], reference: tuple[str, str, str]) -> Scale:
    """The ratios of one model to another, each given by its profile and the formats of weights and KV cache.

    Raises:
        NotInCatalogue: a profile or a format is unknown.

    >>> scale(("qwen2.5-72b", "mxfp4-mixed", "fp8"), ("qwen2.5-72b", "mxfp4-mixed", "bf16"))
    Scale(weights=1.0, kv=0.5, parameters=1.0)
    """
    (own, own_weights, own_kv), (other, other_weights, other_kv) = model, reference
    ours, its = catalogue.model(own), catalogue.model(other)
    return Scale(
        weights=weights_bytes(ours, own_weights) / weights_bytes(its, other_weights),
        kv=kv_bytes_per_token(ours, own_kv) / kv_bytes_per_token(its, other_kv),
        parameters=ours.parameters / its.parameters,
    )
