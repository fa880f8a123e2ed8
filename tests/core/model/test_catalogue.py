"""The data files, and what is refused with what there is."""

from collections.abc import Callable
from typing import Any

import pytest

from diplex_core.model import catalogue


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("qwen2.5-7b", 7_615_616_512),
        ("qwen2.5-14b", 14_770_033_664),
        ("qwen2.5-32b", 32_763_876_352),
        ("qwen2.5-72b", 72_706_203_648),
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.1-70b", 70_553_706_496),
        ("smollm2-135m", 134_515_008),
        ("smollm2-360m", 361_821_120),
        ("smollm2-1.7b", 1_711_376_384),
    ],
)
def test_the_dimensions_give_the_parameters_that_the_model_card_counts(name: str, published: int):
    assert catalogue.model(name).parameters == published


@pytest.mark.parametrize(
    ("folder", "look_up"),
    [
        ("profiles/gpus", catalogue.gpu),
        ("profiles/models", catalogue.model),
        ("profiles/formats", catalogue.number_format),
        ("profiles/recipes", catalogue.recipe),
    ],
)
def test_every_data_file_can_be_read_and_says_its_own_name(folder: str, look_up: Callable[[str], Any]):
    assert catalogue.names(folder)
    for name in catalogue.names(folder):
        assert look_up(name).name == name


@pytest.mark.parametrize(
    ("look_up", "message"),
    [
        (lambda: catalogue.gpu("b20"), "unknown gpu 'b20'; known: b200, h100, h200, hgx-b200; nearest: b200"),
        (
            lambda: catalogue.bytes_per_element("mxfp4-mixed"),
            "unknown number format 'mxfp4-mixed'; "
            "known: bf16, fp8, mxfp4, mxfp6, mxfp8, nvfp4; nearest: mxfp4",
        ),
        (
            lambda: catalogue.recipe("int4"),
            "unknown number format 'int4'; known: bf16, fp8, fp8-mxfp4, mxfp4, mxfp4-mixed, mxfp6, "
            "mxfp6-mxfp4, mxfp8, nvfp4",
        ),
    ],
)
def test_what_no_file_describes_is_refused_with_what_there_is(look_up: Callable[[], Any], message: str):
    with pytest.raises(catalogue.NotInCatalogue) as refused:
        look_up()
    assert str(refused.value) == message
