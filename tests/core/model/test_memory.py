"""What is left of an engine's memory for its KV cache."""

from collections.abc import Callable
from typing import Any

import pytest

from diplex_core.model import catalogue
from diplex_core.model.chapter import calibrated_for, memory_beside
from diplex_core.model.memory import Layout, kv_bytes_per_token, weights_bytes
from diplex_core.model.steps import memory_of
from diplex_core.words import Pattern

B200, QWEN = catalogue.gpu("b200"), catalogue.model("qwen2.5-72b")
OWN = dict(zip(("gpu", "profile", "weights", "kv_cache"), calibrated_for(), strict=True))


def memory(pattern: Pattern = Pattern.A, **other: Any) -> Layout:
    return memory_of(pattern, **{**OWN, **other})


@pytest.mark.parametrize(("kv_cache", "size"), [("bf16", 327_680), ("fp8", 163_840), ("mxfp8", 168_960)])
def test_a_token_of_qwen_takes_two_vectors_a_layer_and_head(kv_cache: str, size: int):
    assert kv_bytes_per_token(QWEN, kv_cache) == size


@pytest.mark.parametrize(
    ("profile", "weights", "size"),
    [
        ("qwen2.5-72b", "mxfp4-mixed", 44.7e9),
        ("qwen2.5-72b", "fp8", 75.20e9),
        ("qwen2.5-32b", "fp8", 34.32e9),
        (
            "qwen2.5-7b",
            "mxfp4",
            5.65e9,
        ),  # the chapter's "~4 GB" leaves out the tables: 3.47 GB of linear layers
    ],
)
def test_weights_take_what_their_parameters_take(profile: str, weights: str, size: float):
    assert weights_bytes(catalogue.model(profile), weights) == pytest.approx(size, rel=0.002)


def test_the_pool_is_what_the_chapters_groups_leave():
    left = B200.memory_bytes - (1.5e9 + 3e9 + 44.7e9 + 12e9 + 10e9)
    assert memory().capacity_blocks(32) == int(left / (168_960 * 32))
    assert memory(Pattern.C) == memory(Pattern.A_EAGLE) == memory()


def test_the_pool_holds_more_than_the_chapters_box_which_leaves_memory_free():
    assert memory().capacity_blocks(32) * 32 > 16 * 32_768


def test_an_engine_on_one_die_has_half_the_memory_and_everything_of_its_own_in_it():
    half = memory(Pattern.B)
    assert half.memory_bytes == B200.memory_bytes // 2
    assert half.groups == {
        "weights": 44_700_000_000,
        "context": 1_500_000_000,
        "scratch": 3_000_000_000,
        "activations": 6_000_000_000,
        "reserve": 5_000_000_000,
    }
    assert half.capacity_blocks(32) < memory().capacity_blocks(32) / 3


def test_a_draft_model_takes_memory_and_keeps_a_kv_cache_of_its_own():
    both = memory(Pattern.D)
    assert both.groups["draft weights"] == pytest.approx(5.65e9, rel=0.002)
    assert both.kv_bytes_per_token == 168_960 + 28_672 * 1.03125


@pytest.mark.parametrize(
    ("look_up", "message"),
    [
        (
            lambda: memory(Pattern.B, weights="bf16").capacity_blocks(32),
            r"qwen2\.5-72b does not fit into one die of b200's 95\.8 GB: weights 145\.4 GB, .*Mend:",
        ),
        (
            lambda: memory(Pattern.D, draft="qwen2.5-32b"),
            r"drafts with qwen2\.5-7b, not qwen2\.5-32b\. Mend: draft: \{model: qwen2\.5-7b\}",
        ),
    ],
)
def test_what_does_not_fit_or_has_no_figures_is_refused_with_the_numbers(
    look_up: Callable[[], Any], message: str
):
    with pytest.raises(ValueError, match=message):
        look_up()


def test_the_calibration_names_what_it_is_about_and_the_catalogue_has_it():
    gpu, model, weights, kv_cache = calibrated_for()
    assert (catalogue.gpu(gpu), catalogue.model(model)) == (B200, QWEN)
    assert catalogue.bytes_per_element(kv_cache) == 1 + 1 / 32
    assert catalogue.recipe(weights).weights(QWEN).total == 44_700_000_000


def test_the_mixed_format_is_the_weights_of_the_chapters_box():
    groups = catalogue.read("calibrations", "chapter")["memory"]
    assert weights_bytes(QWEN, "mxfp4-mixed") == groups["weights"]
    assert dict(memory_beside()) == {name: size for name, size in groups.items() if name != "weights"}
