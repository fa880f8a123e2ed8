"""Whatever a right configuration asks for in vain is said."""

from collections.abc import Callable
from typing import Any

import pytest

from diplex_core.config import Config, cannot_run, remarks

Built = Callable[..., Config]
SIM = {"kind": "sim", "calibration": "chapter"}


def told(config: Config) -> list[str]:
    return [fault.lines()[0] for fault in remarks(config)]


def test_a_configuration_all_of_which_has_an_effect_has_no_remark(built: Built):
    assert told(built()) == []


@pytest.mark.parametrize(
    ("path", "value", "remark"),
    [
        (("tiers", "standard", "preemptible"), True, "tiers.standard.preemptible: nobody gives way"),
        (("tiers", "standard", "when_late"), "degrade", "tiers.standard.when_late: nothing is ever late"),
        (("tiers", "standard", "when_late"), "reject", "tiers.standard.when_late: nothing is ever late"),
        (
            ("tiers", "standard", "models"),
            {"x": {}},
            "tiers.standard.models.x: is not one of models: never used",
        ),
        (
            ("packages", "pkg0", "engine", "calibration"),
            "measured",
            "packages.pkg0: pkg0 is left out: unknown calibration 'measured'",
        ),
        (
            ("models", "big", "profile"),
            "gpt-2",
            "packages.pkg0: pkg0 is left out: unknown model 'gpt-2'; known: llama-3.1-70b, llama-3.1-8b",
        ),
        (
            ("packages", "pkg0"),
            {"pattern": "D", "model": "big", "engine": SIM, "draft": {"model": "qwen2.5-32b"}},
            "packages.pkg0: pkg0 is left out: the chapter drafts with qwen2.5-7b, not qwen2.5-32b",
        ),
        (
            ("packages", "pkg0"),
            {"pattern": "A+EAGLE", "model": "big", "engine": SIM, "draft": {"model": "qwen2.5-7b"}},
            "packages.pkg0.draft.model: pattern A+EAGLE drafts with a head of its own: never used",
        ),
    ],
)
def test_what_has_no_effect_is_said(built: Built, path: tuple[str, ...], value: Any, remark: str):
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


@pytest.mark.parametrize("answer", ["reject", "degrade"])
def test_what_is_late_by_a_target_is_acted_on(built: Built, answer: str):
    late = (("tiers", "standard", "when_late"), answer), (("tiers", "standard", "ttft_p95_ms"), 200)
    assert told(built(*late)) == []


def test_only_engines_that_go_on_behind_given_output_let_requests_hold_less(built: Built):
    growing = (("tiers", "standard"), {"patterns": ["A"], "reserve": "expected", "preemptible": True})
    attached = {"kind": "attach", "api": "vllm", "url": "http://127.0.0.1:8000"}
    assert told(built(growing)) == []
    assert told(built(growing, (("packages", "pkg0", "engine"), attached))) == [
        "tiers.standard.reserve: requests hold all that they may need: its servers cannot go on behind given "
        "output"
    ]


def test_a_deadline_is_acted_on(built: Built):
    assert told(built((("tiers", "standard", "deadline_s"), 600))) == []


def test_a_model_that_nothing_serves_is_said(built: Built):
    config = built((("models", "other"), None), (("default_model",), "big"))
    assert told(config) == ["models.other: no package serves it"]


@pytest.mark.parametrize("weights", ["fp8", "nvfp4"])
def test_other_weights_than_the_chapters_are_simulated(built: Built, weights: str):
    assert told(built((("models", "big", "weights"), weights))) == []


@pytest.mark.parametrize(
    "more",
    [
        {"pattern": "D", "draft": {"model": "qwen2.5-7b"}},
        {"pattern": "A+EAGLE"},
        {"pattern": "A+EAGLE", "draft": {"tokens": 3}},
    ],
)
def test_patterns_that_speculate_are_simulated(built: Built, more: dict[str, Any]):
    package = {"model": "big", "engine": SIM, **more}
    assert told(built((("packages", "pkg0"), package))) == []


@pytest.mark.parametrize(("weights", "left_out"), [("mxfp4-mixed", False), ("bf16", True)])
def test_a_half_that_a_model_does_not_fit_is_left_out_with_the_sums(
    built: Built, weights: str, left_out: bool
):
    package = {
        "pattern": "B",
        "engine": SIM,
        "instances": [{"die": 0, "model": "big"}, {"die": 1, "model": "big"}],
    }
    said = told(built((("packages", "pkg0"), package), (("models", "big", "weights"), weights)))
    assert len(said) == 2 * left_out
    assert all("does not fit into one die of b200's 95.8 GB: weights 145.4 GB" in line for line in said)


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
