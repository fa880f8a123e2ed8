"""The page as values: what it is made for where nothing is said, and what its memory adds up to."""

from typing import Any

import pytest

from diplex_core.plan.deployment import Unplannable, deployment_of
from diplex_core.plan.page import BATCH, CHUNKS, CONTEXT, Page, page_of
from diplex_core.words import Pattern

QWEN = "qwen2.5-72b"


def page(
    model: str = QWEN, *, batch: int = BATCH, context: int = 0, prompt: int = 0, **deployed: Any
) -> Page:
    return page_of(model, deployment_of(model, **deployed), batch=batch, context=context, prompt=prompt)


def test_a_page_is_for_a_typical_load_where_nothing_is_said():
    made = page()
    assert (made.batch, made.context, made.prompt) == (16, CONTEXT, CONTEXT)


@pytest.mark.parametrize(
    ("model", "prompt", "context"), [("smollm2-135m", 0, 8192), (QWEN, 65536, 65536), (QWEN, 100, CONTEXT)]
)
def test_the_context_follows_the_model_and_the_prompt(model: str, prompt: int, context: int):
    assert page(model, prompt=prompt).context == context


@pytest.mark.parametrize("pattern", Pattern)
@pytest.mark.parametrize("gpu", ["b200", "h200"])
def test_groups_and_pool_are_each_device_to_the_last_byte(pattern: Pattern, gpu: str):
    made = page(gpu=gpu, pattern=pattern, count=2 if gpu == "h200" else 1)
    for column in made.columns:
        assert sum(group.bytes for group in column.groups) + column.pool == column.memory
    devices = made.deployment.package.memory_bytes
    assert sum(column.memory for column in made.columns) == devices


@pytest.mark.parametrize("pattern", Pattern)
def test_what_is_asked_for_is_shared_by_the_devices_without_a_loss(pattern: Pattern):
    made = page(pattern=pattern, batch=8)
    assert sum(column.asked for column in made.columns) == pytest.approx(made.asked_bytes, abs=2)


def test_a_load_fits_exactly_up_to_the_most_that_fit():
    most = page().most
    assert page(batch=most).fits and not page(batch=most + 1).fits


def test_what_does_not_fit_is_predicted_for_the_most_that_does():
    made = page(batch=64)
    assert (made.fits, made.most, made.at) == (False, 21, 21)
    assert made.predictions is not None and made.predictions == page(batch=21).predictions


def test_where_not_one_sequence_fits_nothing_is_predicted():
    made = page("qwen2.5-32b", gpu="h100", kv_cache="bf16", context=131072, batch=1)
    assert (made.most, made.predictions, made.beside) == (0, None, ())
    assert "Nearest: --context" in (made.objection or "")


def test_the_step_alone_comes_first_and_grows_with_the_prompt_beside_it():
    steps = page().beside
    assert [one.chunk for one in steps] == list(CHUNKS) and CHUNKS[0] == 0
    for column in ("chapter", "limit"):
        times = [getattr(one, column) for one in steps]
        assert times == sorted(times)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"batch": 0}, "is nothing to plan for"),
        ({"context": 131073}, "at most 131,072 tokens, not 131,073. Nearest: --context 131072"),
        ({"context": 8192, "prompt": 131073}, "at most 131,072 tokens, not 131,073"),
        ({"prompt": 200_000}, "at most 131,072 tokens, not 200,000"),
    ],
)
def test_a_load_that_no_deployment_takes_is_refused(asked: dict[str, int], told: str):
    with pytest.raises(Unplannable, match=told):
        page(**asked)


def test_figures_of_another_model_are_called_scaled():
    assert page().calibration == "chapter"
    assert page("qwen2.5-32b").calibration == "chapter, scaled from qwen2.5-72b"
    assert page(gpu="h200", pattern="C", count=2).calibration == ""
