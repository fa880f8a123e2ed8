"""What a configuration that was read again says about itself."""

from collections.abc import Callable
from typing import Any

import pytest

from diplex_core.config import Config
from diplex_core.config.changes import beside_rules, of_rules

Built = Callable[..., Config]
ACME = {"api_key_env": "ACME_KEY"}
SIM = {"kind": "sim", "calibration": "chapter"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, ""),
        ({("tiers", "standard", "priority"): 5}, "tiers standard changed"),
        (
            {("tiers", "bulk"): {"patterns": ["A"]}, ("default_tier",): "bulk"},
            "tiers bulk added; default_tier is bulk",
        ),
        ({("tenants", "acme"): {**ACME, "tiers": ["standard"]}}, "tenants acme changed"),
        ({("limits", "enforce"): False}, "limits are not enforced"),
        ({("tiers", "standard", "picker"): "best"}, ""),
        ({("tenants", "acme"): {**ACME, "isolate_prefixes": True}}, "tenants acme changed"),
        ({("tenants", "bcme"): {"api_key_env": "BCME_KEY"}}, "tenants bcme added"),
        ({("tenants",): {"bcme": ACME}}, "tenants bcme added, acme removed"),
        (
            {("models", "small"): {}, ("default_model",): "small", ("tiers", "standard", "priority"): 5},
            "models small added; tiers standard changed; default_model is small",
        ),
        ({("packages", "pkg0", "slots"): 7, ("router", "port"): 9}, ""),
    ],
)
def test_changed_rules_are_told_in_one_line(built: Built, changes: dict[Any, Any], told: str):
    tenant = (("tenants", "acme"), ACME)
    environment = {"ACME_KEY": "a", "BCME_KEY": "b"}
    old = built(tenant, environment=environment)
    new = built(tenant, *changes.items(), environment=environment)
    assert of_rules(old.rules, new.rules) == told


def test_a_tenants_new_key_is_a_change_of_the_tenant(built: Built):
    tenant = (("tenants", "acme"), {"api_key_file": "acme.key"})
    old, new = (built(tenant, key_files={"acme": key}) for key in ("one", "two"))
    assert of_rules(old.rules, new.rules) == "tenants acme changed"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, ""),
        ({("packages", "pkg0", "slots"): 7}, "packages.pkg0 changed"),
        ({("packages", "pkg9"): {"model": "big", "engine": SIM}}, "packages.pkg9 added"),
        ({("packages",): {"pkg1": {"model": "big", "engine": SIM}}},
         "packages.pkg1 added, packages.pkg0 removed"),
        ({("models", "big", "kv_cache"): "fp8"}, "models.big changed"),
        ({("models", "small"): {}, ("default_model",): "big"}, ""),
        ({("router", "port"): 9}, "router, rest changed"),
        ({("grants", "key_env"): "KEY"}, "grants changed"),
        ({("tiers", "standard", "priority"): 5, ("tenants", "acme"): ACME}, ""),
    ],
)  # fmt: skip
def test_what_takes_effect_at_the_next_start_is_told_in_one_line(
    built: Built, changes: dict[Any, Any], told: str
):
    assert beside_rules(built(), built(*changes.items())) == told


def test_both_halves_of_a_package_are_one_change(built: Built):
    def halves(slots: int) -> dict[str, Any]:
        dies = [{"die": 0, "model": "big"}, {"die": 1, "model": "big"}]
        return {"pattern": "B", "engine": SIM, "slots": slots, "instances": dies}

    old, new = (built((("packages", "pkg0"), halves(slots))) for slots in (4, 5))
    assert beside_rules(old, new) == "packages.pkg0 changed"
