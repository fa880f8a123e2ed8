"""What one key means for another."""

from collections.abc import Callable
from typing import Any

import pytest

from diplex_core.config import Config
from diplex_core.placement.book import OWN, Unusable

Faults = Callable[..., list[str]]
SIM = {"kind": "sim", "calibration": "chapter"}
LLAMACPP = {"kind": "llamacpp", "weights": "smollm2"}
TWO = [{"die": 0, "model": "big"}, {"die": 1, "model": "big"}]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({("default_model",): "bigg"}, "default_model: 'bigg' is not one of models mend: big"),
        (
            {("models", "other"): {}},
            "default_model: is missing, and there are 2 models mend: default_model: big",
        ),
        ({("default_tier",): "gold"}, "default_tier: 'gold' is not one of tiers known: standard"),
        (
            {("tiers", "standard", "degrade_to"): "standrad"},
            "tiers.standard.degrade_to: 'standrad' is not one of tiers mend: standard",
        ),
        (
            {
                ("tiers", "standard", "degrade_to"): "same",
                ("tiers", "same"): {"patterns": ["A"]},
                ("tiers", "low"): {"patterns": ["A"], "priority": -1},
                ("default_tier",): "standard",
            },
            "tiers.standard.degrade_to: tier same has priority 0, no lower than standard's 0 "
            "mend: degrade_to: low",
        ),
        (
            {("tiers", "standard", "reserve"): "expected"},
            "tiers.standard.reserve: a request that grows must be able to give way "
            "mend: preemptible: true, or reserve: full",
        ),
        (
            {
                ("tiers", "standard", "min_share"): 0.5,
                ("tiers", "other"): {"patterns": ["A"], "min_share": 0.4},
                ("tiers", "low"): {"patterns": ["A"]},
                ("default_tier",): "standard",
            },
            "tiers.standard.min_share: least shares come to 0.95 of what is granted, and 0.9 is the most: "
            "standard 0.5, other 0.4, low 0.05 mend: less, so that priorities still count",
        ),
        (
            {("tiers", "standard", "filters"): ["keeps_tfft"]},
            "tiers.standard.filters: 'keeps_tfft' is not an optional filter "
            "known: keeps_ttft, keeps_tpot, spares_streams, leaves_room mend: filters: [spares_streams]",
        ),
        (
            {("tiers", "standard", "scorers"): {"rooms": 1}},
            "tiers.standard.scorers.rooms: is no key of the scorers section mend: room",
        ),
        (
            {("tiers", "auto"): {"patterns": ["A"]}, ("default_tier",): "standard"},
            "tiers.auto: 'auto' means the default tier in requests mend: another name",
        ),
        (
            {("packages", "pkg0", "model"): "bigg"},
            "packages.pkg0.model: 'bigg' is not one of models mend: big",
        ),
        ({("packages", "pkg0", "model"): None}, "packages.pkg0.model: nothing is not text"),
        (
            {("packages", "pkg0", "tiers"): ["standrad"]},
            "packages.pkg0.tiers: 'standrad' is not one of tiers mend: standard",
        ),
        (
            {("packages", "pkg0", "tiers"): ["standard"], ("tiers", "standard", "patterns"): ["C"]},
            "packages.pkg0.tiers: tier standard does not allow pattern A "
            "mend: tiers.standard.patterns: [C, A]",
        ),
        (
            {("packages", "pkg0", "instances"): TWO},
            "packages.pkg0.instances: only pattern B has instances, not A mend: pattern: B",
        ),
        (
            {("packages", "pkg0", "pattern"): "D"},
            "packages.pkg0.draft: pattern D needs a draft model mend: draft: {model: qwen2.5-7b, tokens: 5}",
        ),
        (
            {("packages", "pkg0", "draft"): {"model": "qwen2.5-7b"}},
            "packages.pkg0.draft: pattern A does not speculate mend: pattern: D, or no draft",
        ),
        (
            {("packages", "pkg0", "pattern"): "D", ("packages", "pkg0", "draft"): {"model": "qwen2.5-7c"}},
            "packages.pkg0.draft.model: 'qwen2.5-7c' is not a model's profile mend: qwen2.5-7b",
        ),
        (
            {("packages", "pkg0", "gpu"): "h200"},
            "packages.pkg0.gpu: only a b200 can be simulated, not h200 mend: gpu: b200",
        ),
        (
            {("packages", "pkg0", "engine"): LLAMACPP},
            "packages.pkg0.gpu: the llamacpp engine computes on the CPU, not on b200 mend: gpu: cpu",
        ),
        (
            {
                ("packages", "pkg0", "engine"): LLAMACPP,
                ("packages", "pkg0", "gpu"): "cpu",
                ("packages", "pkg0", "pattern"): "C",
            },
            "packages.pkg0.pattern: a CPU has no dies for pattern C mend: pattern: A",
        ),
        (
            {("models", "big"): None},
            "models.big.profile: is missing: a simulated engine needs it mend: profile: qwen2.5-72b",
        ),
        (
            {("tenants", "acme"): {"api_key_env": "ACME_KEY", "tiers": ["gold"]}},
            "tenants.acme.tiers: 'gold' is not one of tiers known: standard",
        ),
        (
            {("tenants", "acme"): {"api_key_env": "ACME_KEY", "packages": ["pkg9"]}},
            "tenants.acme.packages: 'pkg9' is not one of packages mend: pkg0",
        ),
        (
            {("tenants", "acme"): {"api_key_env": "KEY"}, ("tenants", "bcme"): {"api_key_env": "KEY"}},
            "tenants.bcme.api_key_env: KEY is the key of acme already mend: a variable of its own",
        ),
        ({("router", "port"): 7601}, "rest.port: port 7601 is taken by router.port mend: another port"),
        (
            {("packages", "pkg0", "port"): 7600},
            "packages.pkg0: port 7600 is taken by router.port (its metrics are at its port + 100) "
            "mend: another port",
        ),
        (
            {("packages", "pkg0", "port"): 7502, ("router", "host"): "0.0.0.0"},
            "packages.pkg0: port 7602 is taken by router.metrics_port (its metrics are at its port + 100) "
            "mend: another port",
        ),
    ],
)
def test_a_word_that_does_not_go_with_another_is_told(
    faults: Faults, changes: dict[tuple[str, ...], Any], told: str
):
    assert faults(*changes.items()) == [told]


@pytest.mark.parametrize(
    ("package", "told"),
    [
        ({"engine": SIM}, "instances: is missing: pattern B is one engine a die"),
        (
            {"engine": SIM, "instances": TWO, "model": "big"},
            "model: in pattern B each instance has its own model",
        ),
        ({"engine": SIM, "instances": TWO, "port": 8}, "port: in pattern B each instance has its own port"),
        (
            {"engine": SIM, "instances": [TWO[0], {**TWO[0], "tiers": ["standard"]}]},
            "instances: two instances on die 0",
        ),
        ({"engine": SIM, "instances": [{"die": 2, "model": "big"}]}, "instances[0].die: 2 is out of bounds"),
        ({"engine": SIM, "instances": [{"die": 0}]}, "instances[0].model: is missing"),
        ({"instances": [TWO[0]]}, "instances[0].engine: is missing"),
    ],
)
def test_pattern_b_says_what_its_instances_lack(faults: Faults, package: dict[str, Any], told: str):
    found = faults(
        (("packages", "pkg2"), {"pattern": "B", **package}), (("tiers", "standard", "patterns"), ["A", "B"])
    )
    assert len(found) == 1
    assert found[0].startswith(f"packages.pkg2.{told}")


def test_a_package_cannot_be_named_like_an_instance_of_another(faults: Faults):
    pattern_b = {"pattern": "B", "engine": SIM, "instances": TWO}
    alike = {"model": "big", "engine": SIM}
    assert faults((("packages", "pkg2"), pattern_b), (("packages", "pkg2.1"), alike)) == [
        "packages.pkg2.1: is also a worker of pkg2, by its die mend: another name"
    ]


def test_ports_of_different_addresses_do_not_clash(built: Callable[..., Config]):
    config = built((("rest", "host"), "127.0.0.2"), (("rest", "port"), 7600))
    assert (config.router.address, config.rest.port) == ("127.0.0.1:7600", 7600)


def test_a_rule_of_another_package_that_cannot_be_used_is_a_fault_where_a_tier_names_it(
    faults: Faults, built: Callable[..., Config]
):
    unusable = {("picker", "odd"): Unusable("does not load", "upgrade it")}
    book = OWN.with_rules({}, {}, {}, unusable)
    assert faults((("tiers", "standard", "picker"), "odd"), book=book) == [
        "tiers.standard.picker: picker odd: does not load mend: upgrade it"
    ]
    assert built(book=book).rules.tiers["standard"].picker == "best"


def test_a_scorer_of_another_package_that_a_tier_switches_off_need_not_load(built: Callable[..., Config]):
    book = OWN.with_rules({}, {}, {}, {("scorer", "odd"): Unusable("does not load", "upgrade it")})
    assert built((("tiers", "standard", "scorers"), {"odd": 0}), book=book).rules.tiers["standard"].scorers
