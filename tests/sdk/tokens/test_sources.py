"""Which tokenizer is whose."""

from collections.abc import Callable
from pathlib import Path

import pytest

from diplex.tokens.sources import given, known


@pytest.mark.parametrize(
    "name", ["qwen3-8b", "Qwen/Qwen3-0.6B", "qwen3-30b-a3b", "Qwen/Qwen3-32B-AWQ", "qwen3-8b-fp8"]
)
def test_qwen3_models_are_known_with_their_template(name: str):
    source = known(name)
    assert source is not None
    assert source.file.name == "tokenizer.json"
    assert source.with_template


@pytest.mark.parametrize("name", ["qwen2.5-72b-instruct", "Qwen/Qwen2.5-7B-Instruct-AWQ", "qwen2.5-0.5b"])
def test_qwen25_models_have_four_tokens_fewer_and_another_template(name: str):
    source = known(name)
    assert source is not None
    assert len(source.without) == 4
    assert not source.with_template


@pytest.mark.parametrize(
    "name",
    ["qwen2.5-coder-7b", "qwen3-vl-8b", "qwen2.5-32b-canary", "my-qwen3-8b", "smollm2-135m-instruct", ""],
)
def test_a_name_that_may_mean_another_tokenizer_is_not_guessed_at(name: str):
    assert known(name) is None


def test_a_tokenizer_is_given_as_its_file_or_as_the_folder_that_holds_it(folder: Callable[..., Path]):
    place = folder()
    assert given("m", place) == given("m", str(place / "tokenizer.json"))
    assert given("m", place).with_template


def test_qwens_can_be_given_by_name_to_models_of_any_name():
    assert given("canary", "qwen3") == known("qwen3-8b")


def test_a_tokenizer_that_is_not_there_is_named_with_the_mend(tmp_path: Path):
    with pytest.raises(
        ValueError, match=r"there is no .*tokenizer\.json to count m's tokens with\. Mend: the path"
    ):
        given("m", tmp_path)
