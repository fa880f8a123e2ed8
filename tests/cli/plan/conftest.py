"""Pages of all kinds, each made once."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from diplex_core.plan.deployment import deployment_of
from diplex_core.plan.page import Page, page_of

Pages = Callable[..., Page]

KINDS: dict[str, dict[str, Any]] = {
    "the chapter's": {},
    "B": {"pattern": "B", "batch": 9},
    "C": {"pattern": "C"},
    "D": {"pattern": "D"},
    "A+EAGLE": {"pattern": "A+EAGLE", "batch": 1, "context": 131072},
    "too many": {"batch": 999_999, "context": 131072},
    "not one": {"model": "qwen2.5-32b", "gpu": "h100", "kv_cache": "bf16", "context": 131072, "batch": 1},
    "a box": {"gpu": "hgx-b200", "weights": "bf16", "batch": 3000, "context": 2048, "prompt": 1},
    "engines in a box": {"gpu": "hgx-b200", "pattern": "B", "count": 8, "tp": 1, "batch": 100},
    "GPUs as dies": {"gpu": "h200", "pattern": "C", "count": 2, "weights": "fp8"},
    "many GPUs as dies": {"gpu": "h200", "pattern": "B", "count": 8, "tp": 4, "batch": 7},
    "small": {"model": "smollm2-135m", "gpu": "h100", "batch": 512, "context": 8192},
}


@cache
def _page(model: str, batch: int, context: int, prompt: int, **deployed: Any) -> Page:
    return page_of(model, deployment_of(model, **deployed), batch=batch, context=context, prompt=prompt)


@pytest.fixture(scope="session")
def page() -> Pages:
    """A page for what is asked, by default the chapter's model on a B200, 16 × 32k."""

    def make(
        model: str = "qwen2.5-72b", batch: int = 16, context: int = 0, prompt: int = 0, **deployed: Any
    ) -> Page:
        return _page(model, batch, context, prompt, **deployed)

    return make


@pytest.fixture(params=KINDS)
def any_page(request: pytest.FixtureRequest, page: Pages) -> Page:
    """One of every kind."""
    return page(**KINDS[request.param])
