"""What lies in an engine's memory, and how much is left for its KV cache."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from diplex_core.model import catalogue
from diplex_core.words import Blocks, Pattern, Tokens

# Of what lies beside the weights, these grow with the batch or with the memory itself: an engine on one die
# has half of each. Context and scratch are a process's own, and each of two processes has them whole.
_HALVED: Final = ("activations", "reserve")


def kv_bytes_per_token(model: catalogue.Model, kv_cache: str) -> float:
    """Bytes of KV cache that one token takes: a key and a value for each layer and KV head.

    Raises:
        NotInCatalogue: the number format is unknown.

    >>> kv_bytes_per_token(catalogue.model("qwen2.5-72b"), "mxfp8")
    168960.0
    """
    return model.kv_elements * catalogue.bytes_per_element(kv_cache)


def weights_bytes(model: catalogue.Model, weights: str) -> int:
    """Bytes that the weights take.

    Raises:
        NotInCatalogue: the format is unknown.

    >>> weights_bytes(catalogue.model("qwen2.5-72b"), "mxfp4-mixed")
    44700000000
    """
    return catalogue.recipe(weights).weights(model).total


@dataclass(frozen=True, slots=True)
class Layout:
    """The memory of one engine.

    Attributes:
        model, where: whose it is, and what it lies on, in words.
        memory_bytes: all of it.
        groups: bytes by name, beside the KV pool.
        kv_bytes_per_token: of all models that keep a KV cache of the same sequence.
    """

    model: str
    where: str
    memory_bytes: int
    groups: Mapping[str, int]
    kv_bytes_per_token: float

    def capacity_blocks(self, block_tokens: Tokens) -> Blocks:
        """Whole KV blocks that fit into what the groups leave.

        Raises:
            ValueError: the groups alone do not fit; the message has the sums.
        """
        left = self.memory_bytes - sum(self.groups.values())
        if left <= 0:
            needed = ", ".join(f"{name} {size / 1e9:.1f} GB" for name, size in self.groups.items())
            raise ValueError(
                f"{self.model} does not fit into {self.where}'s {self.memory_bytes / 1e9:.1f} GB: {needed}. "
                f"Mend: a smaller model, or smaller weights"
            )
        return int(left // (self.kv_bytes_per_token * block_tokens))


@dataclass(frozen=True, slots=True)
class Drafter:
    """A draft model beside its target, by its profile and the format of its weights."""

    profile: str
    weights: str


@cache
def layout(
    pattern: Pattern,
    *,
    gpu: str,
    profile: str,
    weights: str,
    kv_cache: str,
    beside: tuple[tuple[str, int], ...],
    drafter: Drafter | None = None,
) -> Layout:
    """How a model lies in the memory that the pattern gives one engine.

    Pattern B's engines have a die each. Pattern D keeps two models, and a KV cache of both for each sequence;
    its pool is counted over the whole package, whichever die a model lies on. The head that A+EAGLE drafts
    with is taken to lie in the reserve.

    Args:
        beside: what an engine over the whole package has in its memory beside weights and KV: name, bytes.
        drafter: pattern D's draft model.
    Raises:
        NotInCatalogue: no data file describes the GPU, a model or a format.
    """
    package, model = catalogue.gpu(gpu), catalogue.model(profile)
    groups = {"weights": weights_bytes(model, weights)}
    per_token = kv_bytes_per_token(model, kv_cache)
    if drafter is not None:
        draft = catalogue.model(drafter.profile)
        groups["draft weights"] = weights_bytes(draft, drafter.weights)
        per_token += kv_bytes_per_token(draft, kv_cache)
    on_a_die = pattern is Pattern.B
    for name, size in beside:
        groups[name] = size // package.dies if on_a_die and name in _HALVED else size
    memory, where = package.memory_bytes, package.name
    if on_a_die:
        memory, where = memory // package.dies, f"one die of {where}"
    return Layout(model.name, where, memory, groups, per_token)
