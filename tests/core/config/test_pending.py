"""Whatever a configuration asks for and diplex does not do yet is said."""

from collections.abc import Callable
from typing import Any

import pytest

from diplex_core.config import Config, cannot_run, remarks

Built = Callable[..., Config]


def told(config: Config) -> list[str]:
    return [fault.lines()[0] for fault in remarks(config)]


def test_a_configuration_that_is_acted_on_whole_has_no_remark(built: Built):
    assert told(built()) == []


@pytest.mark.parametrize(
    ("path", "value", "remark"),
    [
        (
            ("tiers", "standard", "reserve"),
            "expected",
            "tiers.standard.reserve: not yet acted on: requests hold all",
        ),
        (("tiers", "standard", "preemptible"), True, "tiers.standard.preemptible: not yet acted on"),
        (("tiers", "standard", "when_late"), "degrade", "tiers.standard.when_late: not yet acted on"),
        (
            ("tiers", "standard", "when_late"),
            "reject",
            "tiers.standard.when_late: not yet acted on: only max_queue_ms",
        ),
        (("tiers", "standard", "deadline_s"), 600, "tiers.standard.deadline_s: not yet acted on"),
        (
            ("tiers", "standard", "models"),
            {"x": {}},
            "tiers.standard.models.x: is not one of models: never used",
        ),
        (
            ("tenants", "acme"),
            {"api_key_env": "K", "max_tokens_per_minute": 1},
            "tenants.acme.max_tokens_per_minute: not yet acted on",
        ),
        (("tenants", "acme"), {"api_key_env": "K", "weight": 2}, "tenants.acme.weight: not yet acted on"),
        (
            ("packages", "pkg0", "pattern"),
            "A+EAGLE",
            "packages.pkg0: not yet acted on: pkg0 is left out: pattern A+EAGLE is not simulated yet",
        ),
        (
            ("packages", "pkg0", "engine", "calibration"),
            "measured",
            "packages.pkg0: not yet acted on: pkg0 is left out: calibration measured is not there yet",
        ),
        (
            ("models", "big", "weights"),
            "fp8",
            "packages.pkg0: not yet acted on: pkg0 is left out: the chapter has "
            "figures of qwen2.5-72b, mxfp4-mixed, mxfp8, not of fp8",
        ),
    ],
)
def test_what_is_not_acted_on_is_said(built: Built, path: tuple[str, ...], value: Any, remark: str):
    (said,) = told(built((path, value)))
    assert said.startswith(remark)


def test_a_worker_that_listens_everywhere_must_say_where_clients_reach_it(built: Built):
    everywhere = (("packages", "pkg0", "host"), "0.0.0.0")
    (fault,) = remarks(built(everywhere))
    assert fault.lines() == (
        "packages.pkg0: clients on other machines are told 127.0.0.1:7610, which is their own",
        "  mend:  advertise: this-machine:7610",
    )
    assert told(built(everywhere, (("packages", "pkg0", "advertise"), "gpu7:7610"))) == []


def test_a_rejection_with_a_bound_is_acted_on(built: Built):
    late = (("tiers", "standard", "when_late"), "reject"), (("tiers", "standard", "max_queue_ms"), 200)
    assert told(built(*late)) == []


def test_a_model_that_nothing_serves_is_said(built: Built):
    config = built((("models", "other"), None), (("default_model",), "big"))
    assert told(config) == ["models.other: no package serves it"]


def test_engines_that_are_not_simulated_run_in_every_pattern(built: Built):
    engine = {"kind": "attach", "api": "vllm", "url": "http://127.0.0.1:8000"}
    package = {
        "gpu": "h200",
        "pattern": "D",
        "model": "big",
        "engine": engine,
        "draft": {"model": "qwen2.5-7b"},
    }
    assert cannot_run(built((("packages", "pkg0"), package)).workers[0]) is None
