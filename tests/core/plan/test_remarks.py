"""What a decision needs to know is said with the numbers of what is planned."""

import pytest

from diplex_core.plan.compare import compared
from diplex_core.plan.deployment import deployment_of
from diplex_core.plan.remarks import remarks


def said(model: str = "qwen2.5-72b", context: int = 32768, prompt: int = 0, **deployed: object) -> str:
    planned = deployment_of(model, **deployed)  # type: ignore[arg-type]
    patterns = tuple(compared(planned, model, batch=1, context=context, prompt=context))
    return "\n".join(remarks(planned, patterns, context, prompt or context))


def test_a_streams_bound_is_bandwidth_over_the_weights():
    assert "44.7 GB of weights, so 7.7 TB/s give at most 172 tok/s" in said()
    # The embedding table is looked up, not read.
    assert "42.0 GB of weights, so 7.7 TB/s give at most 183 tok/s" in said(weights="nvfp4")


def test_a_die_has_half_the_bound():
    assert "3.9 TB/s give at most 86 tok/s" in said(pattern="B")


def test_pattern_c_is_told_by_the_dies_that_there_are():
    assert "Pattern C adds no bandwidth" in said() and "160 all-reduces" in said()
    assert "does double one stream's bandwidth" in said(gpu="h200")


@pytest.mark.parametrize(
    ("weights", "kv_cache", "told"),
    [("mxfp4-mixed", "fp8", True), ("nvfp4", "mxfp8", True), ("nvfp4", "fp8", False)],
)
def test_formats_that_no_engine_serves_are_told(weights: str, kv_cache: str, told: bool):
    assert ("--weights nvfp4 --kv-cache fp8" in said(weights=weights, kv_cache=kv_cache)) is told


def test_a_stretched_context_is_told():
    assert "YaRN" in said(context=131072)
    assert "YaRN" not in said(context=65536)
    assert "YaRN" not in said("llama-3.1-8b", context=131072)


def test_a_prompt_that_is_longer_than_what_the_others_hold_is_told():
    assert "The prompt of 32,768 tokens is longer" in said(context=2048, prompt=32768)
    assert "is longer" not in said(context=2048, prompt=2048)
