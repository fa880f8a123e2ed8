"""The shape of a dense transformer: from its dimensions follow its parameters, its KV cache and its work.

The dimensions come from a data file or from a Hugging Face `config.json`. Of those, families whose layers are
Llama's are understood; whatever would make the sums wrong (experts, latent attention, a window) is refused.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from diplex_core.words import Tokens


class NotInCatalogue(ValueError):
    """No data file describes it. The message lists those that there are."""


@dataclass(frozen=True, slots=True)
class Model:
    """A dense transformer with grouped-query attention and a gated FFN.

    Attributes:
        hidden, intermediate: width of the residual stream and of the FFN.
        heads, kv_heads, head_dim: of the attention.
        tied: the output head is the embedding table.
        qkv_bias, output_bias, ffn_bias: which linear layers add a bias.
        qk_norm: queries and keys are normed, each by one vector of `head_dim` a layer.
        context: the longest prompt plus output, in tokens.
        stretched: the same with rescaled positions (YaRN) as its publisher describes them; 0: none.
    """

    name: str
    title: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: Tokens
    tied: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    ffn_bias: bool = False
    qk_norm: bool = False
    stretched: Tokens = 0

    @property
    def longest(self) -> Tokens:
        """The longest context that an engine can be set up for."""
        return max(self.context, self.stretched)

    @property
    def attention_parameters(self) -> int:
        """Query, key, value and output projections of all layers."""
        return self.layers * 2 * self.hidden * (self.heads + self.kv_heads) * self.head_dim

    @property
    def ffn_parameters(self) -> int:
        """Gate, up and down projections of all layers."""
        return self.layers * 3 * self.hidden * self.intermediate

    @property
    def embedding_parameters(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def head_parameters(self) -> int:
        """The output projection; 0 where it is the embedding table."""
        return 0 if self.tied else self.vocabulary * self.hidden

    @property
    def whole_parameters(self) -> int:
        """Norms, and the biases of what tensor parallelism sums up: every GPU has them whole."""
        a_layer = 2 * self.hidden + self.qk_norm * 2 * self.head_dim
        a_layer += (self.output_bias + self.ffn_bias) * self.hidden
        return self.layers * a_layer + self.hidden

    @property
    def bias_parameters(self) -> int:
        """The other biases, which are split as their layers are."""
        a_layer = self.qkv_bias * (self.heads + 2 * self.kv_heads) * self.head_dim
        return self.layers * (a_layer + self.ffn_bias * 2 * self.intermediate)

    @property
    def norm_parameters(self) -> int:
        """Norms and biases."""
        return self.whole_parameters + self.bias_parameters

    @property
    def parameters(self) -> int:
        """All of them, as model cards count them."""
        return (
            self.attention_parameters
            + self.ffn_parameters
            + self.embedding_parameters
            + self.head_parameters
            + self.norm_parameters
        )

    @property
    def kv_elements(self) -> int:
        """Numbers that one token keeps in the KV cache: a key and a value for each layer and KV head."""
        return 2 * self.layers * self.kv_heads * self.head_dim


# By `model_type`: what the family's code does whatever its config says, and which of its keys adds biases to
# all four projections of the attention. Source: the families' modelling files in huggingface/transformers.
_FAMILIES: Final[dict[str, dict[str, bool]]] = {
    "llama": {"attention_bias": True},
    "mistral": {},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"attention_bias": True, "qk_norm": True},
}

# Keys of what is not understood, with what they mean. A value that is empty (null, 0, false) means: not used.
_NOT_DENSE: Final = {
    "num_local_experts": "a mixture of experts",
    "num_experts": "a mixture of experts",
    "n_routed_experts": "a mixture of experts",
    "moe_intermediate_size": "a mixture of experts",
    "kv_lora_rank": "latent attention",
}


def config_at(name: str) -> Path | None:
    """The config file that a path means: itself, or the one in its folder; `None`: it is no path but a name.

    A path ends in .json, or has a slash, or is a folder with a config.json.
    """
    path = Path(name)
    if name.endswith(".json"):
        return path
    if "/" in name or (path / "config.json").is_file():
        return path / "config.json"
    return None


def model_of_config(path: Path) -> Model:
    """The model that a Hugging Face `config.json` describes.

    Raises:
        NotInCatalogue: it is not there, is not JSON, or describes what is not understood; one line, with the
            key and the mend.
    """
    config = _read(path)
    family = config.get("model_type")
    if family not in _FAMILIES:
        known = ", ".join(_FAMILIES)
        said = "is missing" if family is None else f"is {family!r}, which is not understood"
        raise _refusal(path, "model_type", said, f"a dense model of {known}, or a file in profiles/models")
    for key, meaning in _NOT_DENSE.items():
        if config.get(key):
            said = f"is {config[key]!r}: {meaning}"
            raise _refusal(path, key, said, "a dense model; these have no sums here yet")
    return _dense(path, config, _FAMILIES[family])


def _dense(path: Path, config: dict[str, Any], family: dict[str, bool]) -> Model:
    hidden, heads = _count(path, config, "hidden_size"), _count(path, config, "num_attention_heads")
    if config.get("head_dim") is None and hidden % heads:
        said = f"is {heads}, which does not divide hidden_size {hidden}, and head_dim is missing"
        raise _refusal(path, "num_attention_heads", said, '"head_dim": a head\'s width')
    kv_heads = _count(path, config, "num_key_value_heads", heads)
    if heads % kv_heads:
        said = f"is {kv_heads}, which does not divide num_attention_heads {heads}"
        raise _refusal(path, "num_key_value_heads", said, "a divisor of the heads")
    context = _count(path, config, "max_position_embeddings")
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    if isinstance(window, int) and 0 < window < context:
        said = f"is {window}: a window over the last tokens, whose KV cache stops growing"
        raise _refusal(path, "sliding_window", said, "sliding_window: null counts it as if there were none")
    biased = family.get("attention_bias", False) and config.get("attention_bias") is True
    name = path.parent.resolve().name if path.name == "config.json" else path.stem
    return Model(
        name=name,
        title=name,
        layers=_count(path, config, "num_hidden_layers"),
        hidden=hidden,
        intermediate=_count(path, config, "intermediate_size"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=_count(path, config, "head_dim", hidden // heads),
        vocabulary=_count(path, config, "vocab_size"),
        context=context,
        stretched=_stretched(config),
        tied=config.get("tie_word_embeddings") is True,
        qkv_bias=biased or family.get("qkv_bias", False),
        output_bias=biased,
        ffn_bias=config.get("mlp_bias") is True,
        qk_norm=family.get("qk_norm", False),
    )


def _stretched(config: dict[str, Any]) -> Tokens:
    """The context that rescaled positions (YaRN) reach; 0: the config has none."""
    scaling = config.get("rope_scaling")
    if not isinstance(scaling, dict) or (scaling.get("rope_type") or scaling.get("type")) != "yarn":
        return 0
    factor, trained = scaling.get("factor"), scaling.get("original_max_position_embeddings")
    if isinstance(factor, (int, float)) and isinstance(trained, int):
        return int(factor * trained)
    return 0


def _read(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        why = (error.strerror or "cannot be read").lower()
        raise NotInCatalogue(f"{path}: {why}. Mend: the path of a Hugging Face config.json") from error
    except ValueError as error:
        raise NotInCatalogue(f"{path}: is not JSON ({error}). Mend: a Hugging Face config.json") from error
    if not isinstance(read, dict):
        raise NotInCatalogue(f"{path}: has no keys. Mend: a Hugging Face config.json")
    return read


def _count(path: Path, config: dict[str, Any], key: str, otherwise: int | None = None) -> int:
    value = config.get(key)
    if value is None:
        if otherwise is None:
            raise _refusal(path, key, "is missing", f'"{key}": a whole number, as its model card has it')
        return otherwise
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _refusal(path, key, f"is {value!r}", f'"{key}": a whole number above 0')
    return value


def _refusal(path: Path, key: str, said: str, mend: str) -> NotInCatalogue:
    return NotInCatalogue(f"{path}: {key} {said}. Mend: {mend}")
