"""What comes of a configuration that is right."""

from collections.abc import Callable
from typing import Any

import pytest

from diplex_core.config import AttachConfig, Config, Fault, LlamaCppConfig, SimConfig
from diplex_core.words import DEFAULT_TENANT, Pattern, Promise, Reserve, Target, WhenLate

Built = Callable[..., Config]
SIM = {"kind": "sim", "calibration": "chapter"}
PACKAGE = {"model": "big", "engine": SIM}


def test_what_is_left_out_has_its_default(built: Built):
    config = built()
    (worker,) = config.workers
    assert (worker.name, worker.package, worker.gpu, worker.dies) == ("pkg0", "pkg0", "b200", (0, 1))
    assert worker.engine == SimConfig("chapter", time_scale=1.0, seed=0)
    assert (worker.address, worker.metrics_port, worker.spawned) == ("127.0.0.1:7610", 7710, True)
    assert (config.router.name, config.router.address, config.router.metrics_port) == (
        "router",
        "127.0.0.1:7600",
        7602,
    )
    assert (config.rest.port, config.rest.router) == (7601, "127.0.0.1:7600")
    assert (config.rules.default_model, config.rules.default_tier) == ("big", "standard")
    assert config.rules.tenant_of("any key") is DEFAULT_TENANT
    assert config.grants_key_env is None


def test_a_tier_has_its_figures_in_seconds(built: Built):
    tier = built(
        (
            ("tiers", "standard"),
            {
                "patterns": ["A+EAGLE", "C"],
                "ttft_p95_ms": {"base": 40, "per_1k_prompt_tokens": 45},
                "tpot_p95_ms": 8,
                "deadline_s": 600,
                "reserve": "expected",
                "expected_quantile": 0.95,
                "max_output_tokens": 1024,
                "preemptible": True,
                "priority": -1,
                "max_queue_ms": 200,
                "max_queue_requests": 7,
                "max_queue_blocks": 700,
                "min_share": 0.25,
                "picker": "best",
                "when_late": "degrade",
                "models": {"small": {"ttft_p95_ms": 3000, "tpot_p95_ms": 150}},
            },
        )
    ).rules.tiers["standard"]
    assert tier.patterns == (Pattern.A_EAGLE, Pattern.C)
    assert tier.promise == Promise(Target(0.04, 0.045), 0.008)
    assert tier.promise_for("small") == Promise(Target(3.0), 0.15)
    assert (tier.deadline, tier.max_queue, tier.max_queue_requests) == (600, 0.2, 7)
    assert (tier.max_queue_blocks, tier.least_share, tier.picker) == (700, 0.25, "best")
    assert tier.expected_quantile == 0.95
    assert (tier.reserve, tier.when_late, tier.preemptible) == (Reserve.EXPECTED, WhenLate.DEGRADE, True)
    assert (tier.max_output_tokens, tier.priority) == (1024, -1)


def test_pattern_b_makes_a_worker_for_each_die_in_the_files_order(built: Built):
    own = {"kind": "attach", "api": "vllm", "url": "http://127.0.0.1:8000"}
    pattern_b = {
        "pattern": "B",
        "engine": SIM,
        "tiers": ["standard"],
        "slots": 4,
        "instances": [
            {"die": 1, "model": "big"},
            {"die": 0, "model": "big", "engine": own, "port": 9000},
        ],
    }
    config = built(
        (("packages", "pkg1"), pattern_b),
        (("packages", "pkg2"), PACKAGE),
        (("tiers", "standard", "patterns"), ["A", "B"]),
    )
    told = [(one.name, one.package, one.dies, one.port) for one in config.workers]
    assert told == [
        ("pkg0", "pkg0", (0, 1), 7610),
        ("pkg1.1", "pkg1", (1,), 7611),
        ("pkg1.0", "pkg1", (0,), 9000),
        ("pkg2", "pkg2", (0, 1), 7613),
    ]
    second, third = config.workers[1:3]
    assert (second.engine.kind, third.engine) == ("sim", AttachConfig("vllm", "http://127.0.0.1:8000"))
    assert (second.tiers, third.tiers, second.slots) == (("standard",), ("standard",), 4)


def test_a_cpu_has_no_dies(built: Built):
    engine = {"kind": "llamacpp", "weights": "smollm2", "threads": 2}
    config = built((("packages", "pkg0"), {"gpu": "cpu", "model": "big", "engine": engine}))
    assert (config.workers[0].dies, config.workers[0].engine) == ((), LlamaCppConfig("smollm2", threads=2))


def test_a_worker_with_a_url_is_not_spawned_and_is_reached_there(built: Built):
    (worker,) = built((("packages", "pkg0", "url"), "10.0.0.7:7777")).workers
    assert (worker.spawned, worker.address, worker.port) == (False, "10.0.0.7:7777", 7777)


@pytest.mark.parametrize(
    ("where", "address"),
    [
        ({}, "127.0.0.1:7610"),
        ({"host": "0.0.0.0"}, "127.0.0.1:7610"),
        ({"host": "::1"}, "[::1]:7610"),
        ({"host": "0.0.0.0", "advertise": "gpu7:7610"}, "gpu7:7610"),
    ],
)
def test_a_worker_is_reached_where_it_advertises_or_listens(
    built: Built, where: dict[str, str], address: str
):
    assert built((("packages", "pkg0"), {**PACKAGE, **where})).workers[0].address == address


def test_more_than_a_hundred_workers_do_not_run_into_their_metrics_ports(built: Built):
    packages: dict[str, Any] = {f"pkg{number}": PACKAGE for number in range(250)}
    config = built((("packages",), packages))
    ports = [port for one in config.workers for port in (one.port, one.metrics_port)]
    assert len(set(ports)) == 500
    assert [one.port for one in config.workers[99:101]] == [7709, 7810]


def test_a_tenant_has_the_key_that_its_variable_holds(built: Built):
    acme = {
        "api_key_env": "ACME_KEY",
        "weight": 2,
        "max_tokens_per_minute": 10,
        "max_concurrent_blocks": 20,
        "isolate_prefixes": True,
        "tiers": ["standard"],
        "packages": ["pkg0"],
    }
    config = built((("tenants", "acme"), acme), environment={"ACME_KEY": "sesame"})
    tenant = config.rules.tenant_of("sesame")
    assert tenant is not None
    assert (tenant.name, tenant.weight, tenant.max_tokens_per_minute) == ("acme", 2.0, 10)
    assert (tenant.max_concurrent_blocks, tenant.salt != 0) == (20, True)
    assert (tenant.tiers, tenant.packages) == ({"standard"}, {"pkg0"})
    assert config.rules.tenant_of("") is None
    assert "sesame" not in repr(config)


def test_a_tenants_variable_must_be_set_where_the_key_is_needed(faults: Any, built: Built):
    acme = (("tenants", "acme"), {"api_key_env": "ACME_KEY"})
    assert faults(acme, environment={}) == [
        "tenants.acme.api_key_env: the environment variable ACME_KEY is not set mend: export ACME_KEY=…"
    ]
    assert built(acme, environment=None).rules.tenants[0].api_key is None


def test_two_tenants_cannot_share_a_key(faults: Any):
    found = faults(
        (("tenants", "acme"), {"api_key_env": "ACME_KEY"}),
        (("tenants", "bcme"), {"api_key_env": "BCME_KEY"}),
        environment={"ACME_KEY": "sesame", "BCME_KEY": "sesame"},
    )
    assert found == ["tenants.bcme.api_key_env: BCME_KEY holds the same key as acme's mend: a key of its own"]


def test_a_tenant_has_the_key_that_its_file_holds(built: Built):
    acme = (("tenants", "acme"), {"api_key_file": "keys/acme"})
    tenant = built(acme, key_files={"acme": "sesame"}).rules.tenant_of("sesame")
    assert tenant is not None
    assert tenant.name == "acme"
    assert built(acme, environment={}).rules.tenants[0].api_key is None


def test_what_is_wrong_with_a_key_file_is_one_fault_of_the_configuration(faults: Any):
    found = faults(
        (("tenants", "acme"), {"api_key_file": "keys/acme"}),
        (("tenants", "bcme"), {"api_key_env": "KEY"}),
        environment={},
        key_files={"acme": Fault(("tenants", "acme", "api_key_file"), "is empty", "fill it")},
    )
    assert found == [
        "tenants.acme.api_key_file: is empty mend: fill it",
        "tenants.bcme.api_key_env: the environment variable KEY is not set mend: export KEY=…",
    ]


def test_a_key_in_a_file_may_not_be_anothers_variables_either(faults: Any):
    found = faults(
        (("tenants", "acme"), {"api_key_env": "KEY"}),
        (("tenants", "bcme"), {"api_key_file": "keys/bcme"}),
        environment={"KEY": "sesame"},
        key_files={"bcme": "sesame"},
    )
    assert found == [
        "tenants.bcme.api_key_file: keys/bcme holds the same key as acme's mend: a key of its own"
    ]


def test_a_tier_says_where_it_gives_way_and_how_it_is_placed(built: Built):
    config = built(
        (("tiers", "low"), {"patterns": ["A"], "priority": -1}),
        (("tiers", "standard", "when_late"), "degrade"),
        (("tiers", "standard", "degrade_to"), "low"),
        (("tiers", "standard", "filters"), ["keeps_ttft"]),
        (("tiers", "standard", "scorers"), {"room": 0, "neighbours": 4}),
        (("default_tier",), "standard"),
    )
    tier = config.rules.tiers["standard"]
    assert (tier.when_late, tier.degrade_to, tier.own_filters) == (WhenLate.DEGRADE, "low", ("keeps_ttft",))
    assert tier.scorers == {"room": 0.0, "neighbours": 4.0}


def test_limits_hold_unless_a_gateway_has_its_own(built: Built):
    assert built().rules.enforce_limits
    assert not built((("limits", "enforce"), False)).rules.enforce_limits


@pytest.mark.parametrize(
    ("said", "filters"),
    [({}, ("leaves_room", "spares_streams")), ({"ttft_p95_ms": 100}, ()), ({"filters": []}, ())],
)
def test_a_tier_that_says_nothing_of_filters_has_those_of_its_promise(
    built: Built, said: dict[str, Any], filters: tuple[str, ...]
):
    tier = built((("tiers", "standard"), {"patterns": ["A"], **said})).rules.tiers["standard"]
    assert tier.own_filters == filters
