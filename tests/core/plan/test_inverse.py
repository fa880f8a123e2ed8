"""The memory asked the other way round."""

import pytest

from diplex_core.plan.deployment import deployment_of, fits
from diplex_core.plan.inverse import inverse

DEPLOYED = [
    ("qwen2.5-72b", {}),
    ("qwen2.5-72b", {"pattern": "B"}),
    ("qwen2.5-72b", {"pattern": "D"}),
    ("qwen2.5-72b", {"gpu": "hgx-b200", "tp": 2}),
    ("llama-3.1-8b", {"gpu": "h100"}),
]


def test_contexts_go_as_far_as_the_model_does():
    assert list(inverse(deployment_of("qwen2.5-72b")).batches) == [2**power for power in range(11, 18)]
    assert list(inverse(deployment_of("smollm2-135m", gpu="h100")).batches) == [2048, 4096, 8192]


@pytest.mark.parametrize(("model", "deployed"), DEPLOYED)
def test_the_most_fit_and_one_more_does_not(model: str, deployed: dict[str, str]):
    planned = deployment_of(model, **deployed)  # type: ignore[arg-type]
    for context, most in inverse(planned).batches.items():
        assert most == 0 or fits(planned, most, context)
        assert not fits(planned, most + 1, context)


@pytest.mark.parametrize(("model", "deployed"), DEPLOYED)
def test_the_longest_context_fits_and_a_block_more_does_not(model: str, deployed: dict[str, str]):
    planned = deployment_of(model, **deployed)  # type: ignore[arg-type]
    for batch, longest in inverse(planned).contexts.items():
        assert fits(planned, batch, longest)
        assert longest == planned.model.longest or not fits(planned, batch, longest + 32)
