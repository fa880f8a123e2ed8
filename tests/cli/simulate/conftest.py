"""A configuration of two simulated packages, and a small fleet of it."""

from collections.abc import Callable
from typing import Any

import pytest

from diplex_cli.simulate.fleet import Fleet, fleet_of
from diplex_cli.simulate.session import Settings, Simulated, simulate
from diplex_cli.simulate.streams import stream_of
from diplex_core import config
from diplex_core.config import Config

TREE = {
    "models": {"m": {"profile": "qwen2.5-72b", "weights": "mxfp4-mixed", "kv_cache": "mxfp8"}},
    "packages": {
        name: {
            "gpu": "b200",
            "pattern": pattern,
            "model": "m",
            "engine": {"kind": "sim", "calibration": "chapter"},
        }
        for name, pattern in (("pkg0", "C"), ("pkg1", "A"))
    },
    "tiers": {
        "fast": {
            "patterns": ["C", "A"],
            "ttft_p95_ms": {"base": 40, "per_1k_prompt_tokens": 45},
            "max_output_tokens": 1024,
            "priority": 100,
            "max_queue_ms": 200,
            "when_late": "reject",
        },
        "bulk": {"patterns": ["A"], "max_output_tokens": 8192},
    },
    "default_tier": "bulk",
}


@pytest.fixture
def tree() -> dict[str, Any]:
    return {**TREE}


@pytest.fixture
def small(tree: dict[str, Any]) -> Config:
    return config.build(tree)


@pytest.fixture
def fleet(small: Config) -> Fleet:
    return fleet_of(small)


@pytest.fixture
def simulated(fleet: Fleet) -> Callable[..., Simulated]:
    """Run a stream of so many requests against the small fleet."""

    def run(text: str, requests: int, within: Fleet | None = None, **settings: Any) -> Simulated:
        stream = stream_of(text, limit=None, rounds=None, requests=requests, seed=settings.get("seed", 0))
        return simulate(stream, within or fleet, Settings(config="small.yaml", **settings))

    return run
