"""Each key by itself: what is understood, and how a fault is told."""

from collections.abc import Callable
from typing import Any

import pytest

from diplex_core.config import build
from diplex_core.config.faults import ConfigErrors

Faults = Callable[..., list[str]]


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (
            ("foo",),
            1,
            "foo: is no key of a configuration known: models, default_model, packages, tiers, "
            "default_tier, tenants, limits, router, rest, workers, grants",
        ),
        (("packages", "pkg0", "patern"), "A", "packages.pkg0.patern: is no key of a package mend: pattern"),
        (
            ("packages", "pkg0", "pattern"),
            "E",
            "packages.pkg0.pattern: 'E' is not a pattern known: A, B, C, D, A+EAGLE",
        ),
        (
            ("packages", "pkg0", "gpu"),
            "b20",
            "packages.pkg0.gpu: 'b20' is not a GPU known: b200, h200, h100, cpu mend: b200",
        ),
        (("packages", "pkg0", "port"), "x", "packages.pkg0.port: 'x' is not a whole number"),
        (
            ("packages", "pkg0", "port"),
            70000,
            "packages.pkg0.port: 70000 is out of bounds mend: a whole number, 1 to 65535",
        ),
        (("packages", "pkg0", "open"), "maybe", "packages.pkg0.open: 'maybe' is neither true nor false"),
        (
            ("packages", "pkg0", "url"),
            "http://10.0.0.7/x",
            "packages.pkg0.url: 'http://10.0.0.7/x' is not text like 10.0.0.7:7610 mend: url: 10.0.0.7:7610",
        ),
        (
            ("packages", "pkg0", "engine"),
            {"kind": "simm"},
            "packages.pkg0.engine.kind: 'simm' is not an engine mend: sim",
        ),
        (
            ("packages", "pkg0", "engine"),
            {"kind": "sim"},
            "packages.pkg0.engine.calibration: is missing mend: calibration: chapter",
        ),
        (
            ("packages", "pkg0", "engine"),
            {"kind": "sim", "calibration": "chapter", "threads": 2},
            "packages.pkg0.engine.threads: is no key of a sim engine known: calibration, time_scale, seed",
        ),
        (
            ("packages", "pkg0", "engine"),
            {"kind": "sim", "calibration": "chapter", "time_scale": 0},
            "packages.pkg0.engine.time_scale: 0 is out of bounds mend: a number above 0",
        ),
        (
            ("packages", "pkg0", "engine"),
            "sim",
            "packages.pkg0.engine.kind: is missing: one of sim, llamacpp, attach, trtllm mend: {kind: …}",
        ),
        (
            ("tiers", "standard", "patterns"),
            ["A", "E"],
            "tiers.standard.patterns: 'E' is not a pattern known: A, B, C, D, A+EAGLE mend: patterns: [C, A]",
        ),
        (
            ("tiers", "standard", "patterns"),
            ["A", "A"],
            "tiers.standard.patterns: 'A' is in the list already mend: patterns: [C, A]",
        ),
        (
            ("tiers", "standard", "patterns"),
            "A",
            "tiers.standard.patterns: 'A' is not a list mend: patterns: [C, A]",
        ),
        (("tiers", "standard"), None, "tiers.standard.patterns: is missing mend: patterns: [C, A]"),
        (
            ("tiers", "standard", "ttft_p95_ms"),
            {"bas": 1, "base": 2},
            "tiers.standard.ttft_p95_ms.bas: is no key of a TTFT target mend: base",
        ),
        (("tiers", "standard", "ttft_p95_ms"), "fast", "tiers.standard.ttft_p95_ms: 'fast' is not a number"),
        (
            ("tiers", "standard", "tpot_p95_ms"),
            float("nan"),
            "tiers.standard.tpot_p95_ms: nan is not a number",
        ),
        (
            ("tiers", "standard", "reserve"),
            "fulll",
            "tiers.standard.reserve: 'fulll' is not a reserve policy known: full, expected mend: full",
        ),
        (
            ("tiers", "standard", "expected_quantile"),
            0.4,
            "tiers.standard.expected_quantile: 0.4 is out of bounds mend: a number from 0.5 to 0.999",
        ),
        (
            ("tiers", "standard", "min_share"),
            0.6,
            "tiers.standard.min_share: 0.6 is out of bounds mend: a number from 0 to 0.5",
        ),
        (
            ("tiers", "standard", "max_queue_blocks"),
            0,
            "tiers.standard.max_queue_blocks: 0 is out of bounds mend: a whole number, at least 1",
        ),
        (
            ("tiers", "standard", "picker"),
            "bets",
            "tiers.standard.picker: 'bets' is not a picker known: best mend: best",
        ),
        (("limits",), {"enforced": False}, "limits.enforced: is no key of the limits section mend: enforce"),
        (("models", "big", "weights"), 4, 'models.big.weights: 4 is not text mend: weights: "4"'),
        (
            ("tenants",),
            {"acme": {}},
            "tenants.acme.api_key_env: is missing: one of api_key_env, api_key_file "
            "mend: api_key_env: ACME_KEY",
        ),
        (
            ("tenants",),
            {"acme": {"api_key_env": "ACME_KEY", "api_key_file": "keys/acme"}},
            "tenants.acme.api_key_file: is there beside api_key_env "
            "mend: only one of api_key_env, api_key_file",
        ),
        (("packages",), {}, "packages: names no package"),
        (("packages",), [1], "packages: names no package"),
        (
            ("router",),
            7600,
            "router: 7600 is not the router section mend: a mapping of name, host, port, metrics_port",
        ),
    ],
)
def test_a_wrong_value_is_told_with_its_key_its_reason_and_the_mend(
    faults: Faults, path: tuple[str, ...], value: Any, told: str
):
    assert faults((path, value)) == [told]


@pytest.mark.parametrize("name", [0, "a b", "", "-x"])
def test_a_package_needs_a_name_that_can_stand_in_an_address(faults: Faults, name: Any):
    (fault,) = faults(
        (("packages", name), {"model": "big", "engine": {"kind": "sim", "calibration": "chapter"}})
    )
    assert f"{name!r} is no name for a package" in fault


@pytest.mark.parametrize("tree", [None, [], "text", {}])
def test_what_is_no_configuration_at_all_says_what_one_needs(tree: Any):
    with pytest.raises(ConfigErrors):
        build(tree)


def test_all_faults_are_found_in_one_run(faults: Faults):
    found = faults(
        (("packages", "pkg0", "patern"), "C"),
        (("packages", "pkg0", "model"), "bigg"),
        (("tiers", "standard", "prio"), 1),
        (("default_tier",), "none"),
    )
    assert [fault.partition(": ")[0] for fault in found] == [
        "packages.pkg0.patern",
        "tiers.standard.prio",
        "default_tier",
        "packages.pkg0.model",
    ]


def test_a_wrong_value_is_not_also_called_missing(faults: Faults):
    assert faults((("packages", "pkg0", "model"), 5)) == [
        'packages.pkg0.model: 5 is not text mend: model: "5"'
    ]
