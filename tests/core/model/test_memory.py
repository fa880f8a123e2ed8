"""What is left of a package's memory for the KV cache."""

import pytest

from diplex_core.model import catalogue
from diplex_core.model.chapter import calibrated_for, memory_groups
from diplex_core.model.memory import capacity_blocks, kv_bytes_per_token

B200, QWEN = catalogue.gpu("b200"), catalogue.model("qwen2.5-72b")


@pytest.mark.parametrize(("kv_cache", "size"), [("bf16", 327_680), ("fp8", 163_840), ("mxfp8", 168_960)])
def test_a_token_of_qwen_takes_two_vectors_a_layer_and_head(kv_cache: str, size: int):
    assert kv_bytes_per_token(QWEN, kv_cache) == size


def test_the_pool_is_what_the_chapters_groups_leave():
    left = B200.memory_bytes - (1.5e9 + 3e9 + 44.7e9 + 12e9 + 10e9)
    assert capacity_blocks(B200, QWEN, "mxfp8", memory_groups(), 32) == int(left / (168_960 * 32))


def test_the_pool_holds_more_than_the_chapters_box_which_leaves_memory_free():
    tokens = capacity_blocks(B200, QWEN, "mxfp8", memory_groups(), 32) * 32
    assert tokens > 16 * 32_768


def test_a_model_that_does_not_fit_is_refused_with_the_sums():
    with pytest.raises(ValueError, match=r"does not fit into b200's 191\.5 GB: weights 400\.0 GB"):
        capacity_blocks(B200, QWEN, "mxfp8", {"weights": 400_000_000_000}, 32)


def test_the_calibration_names_what_it_is_about_and_the_catalogue_has_it():
    gpu, model, _, kv_cache = calibrated_for()
    assert (catalogue.gpu(gpu), catalogue.model(model)) == (B200, QWEN)
    assert catalogue.bytes_per_element(kv_cache) == 1 + 1 / 32


@pytest.mark.parametrize(
    ("look_up", "message"),
    [
        (lambda: catalogue.gpu("b20"), "unknown gpu 'b20'; known: b200"),
        (lambda: catalogue.model("gpt-2"), "unknown model 'gpt-2'; known: qwen2.5-72b"),
        (lambda: catalogue.bytes_per_element("fp3"), "unknown number format 'fp3'; known: bf16, fp8, mxfp8"),
    ],
)
def test_what_no_file_describes_is_refused_with_what_there_is(look_up, message: str):
    with pytest.raises(catalogue.NotInCatalogue) as refused:
        look_up()
    assert str(refused.value) == message
