"""How much KV cache is left in a package's memory once everything else lies in it."""

from collections.abc import Mapping

from diplex_core.model import catalogue
from diplex_core.words import Blocks, Tokens


def kv_bytes_per_token(model: catalogue.Model, kv_cache: str) -> float:
    """Bytes of KV cache that one token takes: a key and a value for each layer and KV head.

    Raises:
        NotInCatalogue: the number format is unknown.

    >>> kv_bytes_per_token(catalogue.model("qwen2.5-72b"), "mxfp8")
    168960.0
    """
    elements = 2 * model.layers * model.kv_heads * model.head_dim
    return elements * catalogue.bytes_per_element(kv_cache)


def capacity_blocks(
    gpu: catalogue.Gpu,
    model: catalogue.Model,
    kv_cache: str,
    groups: Mapping[str, int],
    block_tokens: Tokens,
) -> Blocks:
    """Whole KV blocks that fit into what the other groups leave of the package's memory.

    Args:
        groups: bytes by name: weights, context, scratch, activations, reserve.
    Raises:
        ValueError: the groups alone do not fit; the message has the sums.
    """
    left = gpu.memory_bytes - sum(groups.values())
    if left <= 0:
        needed = ", ".join(f"{name} {size / 1e9:.1f} GB" for name, size in groups.items())
        raise ValueError(
            f"{model.name} does not fit into {gpu.name}'s {gpu.memory_bytes / 1e9:.1f} GB: {needed}"
        )
    return int(left // (kv_bytes_per_token(model, kv_cache) * block_tokens))
