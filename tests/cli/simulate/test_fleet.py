"""Which part of a configuration is simulated, and a larger fleet of the same kind."""

from pathlib import Path
from typing import Any

import pytest

from diplex_cli import reader
from diplex_cli.failures import UsageError
from diplex_cli.simulate.fleet import Fleet, fleet_of
from diplex_core import config
from diplex_core.config import Config

ROOT = Path(__file__).parents[3]


def test_real_engines_are_left_out_with_the_reason():
    fleet = fleet_of(reader.read([]).config())
    assert [worker.name for worker in fleet.workers] == ["pkg0", "pkg1"]
    assert fleet.left_out == dict.fromkeys(("cpu0", "cpu1"), "its engine, llamacpp, is a real one")


def test_a_configuration_of_real_engines_alone_is_refused():
    with pytest.raises(UsageError, match=r"no worker of it is simulated \(box0: its engine, attach"):
        fleet_of(reader.read([str(ROOT / "configs/attach.yaml")]).config())


def test_a_fleet_grows_by_copies_in_turn_under_names_of_their_own(small: Config):
    fleet = fleet_of(small, 5)
    assert [worker.name for worker in fleet.workers] == ["pkg0", "pkg1", "pkg0-2", "pkg1-2", "pkg0-3"]
    assert [worker.pattern for worker in fleet.workers] == ["C", "A", "C", "A", "C"]
    assert fleet.packages == 5


def test_a_copy_of_a_package_has_all_its_workers():
    fleet = fleet_of(reader.read([str(ROOT / "configs/fleet.yaml")]).config(), 10)
    names = [worker.name for worker in fleet.workers if worker.pattern == "B"]
    assert names == ["pkg2.0", "pkg2.1", "pkg2-2.0", "pkg2-2.1"]
    assert [worker.package for worker in fleet.workers if worker.name == "pkg2-2.1"] == ["pkg2-2"]


def test_a_copy_takes_no_name_that_is_taken(tree: dict[str, Any]):
    packages = tree["packages"]
    fleet = fleet_of(config.build({**tree, "packages": {**packages, "pkg0-2": packages["pkg1"]}}), 6)
    names = [worker.name for worker in fleet.workers]
    assert len(set(names)) == 6
    assert [worker.pattern for worker in fleet.workers if worker.name == "pkg0-2"] == ["A"]


def test_a_fleet_does_not_shrink(small: Config):
    with pytest.raises(UsageError, match=r"--packages 1: the configuration has 2 simulated ones. Mend: "):
        fleet_of(small, 1)


def test_a_tenant_that_is_bound_to_a_package_may_use_its_copies(tree: dict[str, Any]):
    tenants = {"acme": {"api_key_env": "A", "packages": ["pkg1"]}, "blue": {"api_key_env": "B"}}
    fleet = fleet_of(config.build({**tree, "tenants": tenants}, {"A": "a", "B": "b"}), 6)
    acme, blue = fleet.rules.tenants
    assert acme.packages == {"pkg1", "pkg1-2", "pkg1-3"}
    assert blue.packages is None


def test_the_default_model_and_tier_serve_where_none_is_named(fleet: Fleet):
    assert fleet.model("") == "m"
    assert list(fleet.tiers({})) == ["bulk"]
    assert list(fleet.tiers({"bulk": 0.5, "fast": 0.5})) == ["fast", "bulk"]


def test_names_that_nobody_knows_are_refused(fleet: Fleet):
    with pytest.raises(UsageError, match=r"--model: no simulated worker serves 'x'. Mend: --model m"):
        fleet.model("x")
    with pytest.raises(
        UsageError, match=r"--tiers: the configuration has no tier 'gold'. Mend: one of fast, bulk"
    ):
        fleet.tiers({"gold": 1.0})


def test_a_tier_is_served_by_its_patterns(fleet: Fleet):
    serving = {name: fleet.serving("m", fleet.tiers({name: 1.0})) for name in ("fast", "bulk")}
    assert [worker.name for worker in serving["fast"]] == ["pkg0", "pkg1"]
    assert [worker.name for worker in serving["bulk"]] == ["pkg1"]
    assert fleet.serving("x", fleet.tiers({})) == []


def test_blocks_of_two_sizes_share_nothing(tree: dict[str, Any]):
    packages = {name: {**package} for name, package in tree["packages"].items()}
    packages["pkg0"]["block_tokens"] = 64
    assert fleet_of(config.build({**tree, "packages": packages})).block_tokens("m") == 0
    assert fleet_of(config.build(tree)).block_tokens("m") == 32
