"""A Hugging Face config.json as a model, and what of such files is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from diplex_core.model import catalogue
from diplex_core.model.memory import kv_bytes_per_token

# What says the shape in the published config.json of meta-llama/Llama-3.1-8B-Instruct, and of others.
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192},
}
QWEN2 = {
    "model_type": "qwen2",
    "num_hidden_layers": 28,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
    "sliding_window": 131072,
    "use_sliding_window": False,
}
QWEN3 = {
    "model_type": "qwen3",
    "num_hidden_layers": 64,
    "hidden_size": 5120,
    "intermediate_size": 25600,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "attention_bias": False,
}
MISTRAL = {
    "model_type": "mistral",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32768,
    "max_position_embeddings": 32768,
    "sliding_window": None,
}


def written(folder: Path, config: object, name: str = "config.json") -> str:
    path = folder / name
    path.write_text(config if isinstance(config, str) else json.dumps(config), encoding="utf-8")
    return str(path)


def without(key: str) -> dict[str, Any]:
    return {other: value for other, value in LLAMA.items() if other != key}


@pytest.mark.parametrize(
    ("config", "published"),
    [
        (LLAMA, 8_030_261_248),
        (QWEN2, 7_615_616_512),
        (QWEN3, 32_762_123_264),  # Qwen3-32B
        (MISTRAL, 7_248_023_552),  # Mistral-7B-Instruct-v0.3
    ],
)
def test_a_config_gives_the_parameters_that_the_model_card_counts(
    tmp_path: Path, config: dict[str, Any], published: int
):
    assert catalogue.model(written(tmp_path, config)).parameters == published


def test_a_config_of_a_known_model_is_that_model_but_for_its_name(tmp_path: Path):
    read, known = catalogue.model(written(tmp_path, LLAMA, "mine.json")), catalogue.model("llama-3.1-8b")
    assert (read.name, read.context, read.longest) == ("mine", 131_072, 131_072)
    assert kv_bytes_per_token(read, "fp8") == kv_bytes_per_token(known, "fp8") == 65_536


def test_a_folder_with_a_config_is_a_model_of_that_name(tmp_path: Path):
    folder = tmp_path / "my-model"
    folder.mkdir()
    written(folder, LLAMA)
    assert catalogue.model(str(folder)).name == "my-model"


def test_a_name_of_the_catalogue_is_never_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "smollm2-360m").mkdir()
    written(tmp_path / "smollm2-360m", LLAMA)
    monkeypatch.chdir(tmp_path)
    catalogue.model.cache_clear()
    assert (
        catalogue.model("smollm2-360m").layers == catalogue.read("profiles/models", "smollm2-360m")["layers"]
    )


def test_rescaled_positions_stretch_the_context(tmp_path: Path):
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    read = catalogue.model(written(tmp_path, {**QWEN2, "rope_scaling": yarn}))
    assert (read.context, read.longest) == (32_768, 131_072)


@pytest.mark.parametrize(
    ("more", "adds"),
    [
        ({"attention_bias": True}, 32 * (4096 + 2 * 1024 + 4096)),
        ({"mlp_bias": True}, 32 * (2 * 14336 + 4096)),
        ({"tie_word_embeddings": True}, -128256 * 4096),
        ({"head_dim": 64}, -32 * 2 * 4096 * (32 + 8) * 64),
    ],
)
def test_what_a_config_says_of_biases_and_heads_is_counted(tmp_path: Path, more: dict[str, Any], adds: int):
    assert catalogue.model(written(tmp_path, {**LLAMA, **more})).parameters - 8_030_261_248 == adds


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {**LLAMA, "model_type": "mixtral", "num_local_experts": 8},
            "model_type is 'mixtral', which is not understood. "
            "Mend: a dense model of llama, mistral, qwen2, qwen3, or a file in profiles/models",
        ),
        (
            {**LLAMA, "num_local_experts": 8},
            "num_local_experts is 8: a mixture of experts. Mend: a dense model; these have no sums here yet",
        ),
        (
            {**LLAMA, "kv_lora_rank": 512},
            "kv_lora_rank is 512: latent attention. Mend: a dense model; these have no sums here yet",
        ),
        (
            without("model_type"),
            "model_type is missing. "
            "Mend: a dense model of llama, mistral, qwen2, qwen3, or a file in profiles/models",
        ),
        (
            without("vocab_size"),
            'vocab_size is missing. Mend: "vocab_size": a whole number, as its model card has it',
        ),
        (
            {**LLAMA, "num_hidden_layers": "32"},
            "num_hidden_layers is '32'. Mend: \"num_hidden_layers\": a whole number above 0",
        ),
        (
            {**LLAMA, "num_key_value_heads": 5},
            "num_key_value_heads is 5, which does not divide num_attention_heads 32. "
            "Mend: a divisor of the heads",
        ),
        (
            {**LLAMA, "num_attention_heads": 30},
            "num_attention_heads is 30, which does not divide hidden_size 4096, and head_dim is missing. "
            'Mend: "head_dim": a head\'s width',
        ),
        (
            {**MISTRAL, "sliding_window": 4096},
            "sliding_window is 4096: a window over the last tokens, whose KV cache stops growing. "
            "Mend: sliding_window: null counts it as if there were none",
        ),
        ([1, 2], None),
        ("{", None),
    ],
)
def test_a_config_that_is_not_understood_is_refused_in_one_line(
    tmp_path: Path, config: object, said: str | None
):
    path = written(tmp_path, config)
    with pytest.raises(catalogue.NotInCatalogue) as refused:
        catalogue.model(path)
    message = str(refused.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and " Mend: " in message
    assert said is None or message == f"{path}: {said}"


def test_a_file_that_is_not_there_is_said_to_be_so(tmp_path: Path):
    with pytest.raises(
        catalogue.NotInCatalogue, match=r"config\.json: no such file or directory\. Mend: the path"
    ):
        catalogue.model(str(tmp_path / "config.json"))


def test_a_name_from_a_hub_leads_to_the_nearest_of_the_catalogue():
    with pytest.raises(
        catalogue.NotInCatalogue, match=r"'Qwen/Qwen2\.5-72B-Instruct'.*nearest: qwen2\.5-72b$"
    ):
        catalogue.model("Qwen/Qwen2.5-72B-Instruct")
