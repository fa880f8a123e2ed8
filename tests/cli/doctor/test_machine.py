"""Checks 1 and 4 on recordings of NVML: of a B200 made from public sources, of an H100 real."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from diplex_cli.doctor.check import Check
from diplex_cli.doctor.machine import Promised, device_checks, load_checks, no_device
from diplex_cli.doctor.subject import CHAPTER
from diplex_core.plan.recipe_ways import Way
from diplex_core.words import Pattern
from diplex_workers.launch.nvml import Machine, RecordedNvml

RECORDINGS = Path(__file__).with_name("recordings")


def looks(name: str) -> list[Machine]:
    nvml = RecordedNvml(RECORDINGS / f"{name}.json")
    return [nvml.look() for _ in range(3)]


def examined(name: str, promised: Promised | None = None) -> dict[str, Check]:
    first, *loaded = looks(name)
    promised = promised or Promised()
    checks = [*device_checks(first, promised), *load_checks(loaded, promised)]
    return {check.id: check for check in checks}


@pytest.mark.parametrize("file", sorted(RECORDINGS.glob("b200_*.json")), ids=lambda file: file.stem)
def test_a_recording_says_that_it_was_made_from_sources(file: Path):
    assert json.loads(file.read_text())["about"].startswith("Made from public sources, not recorded")


def test_a_healthy_b200_passes_every_line():
    checks = examined("b200_healthy", Promised(deployment=CHAPTER))
    assert {check.id: check.status for check in checks.values()} == dict.fromkeys(checks, "pass")
    assert checks["driver"].seen == "580.95.05, 1 × NVIDIA B200"
    assert checks["memory"].seen == "171 of 192 GB"
    assert "the chapter: 900 to 1,000 W" in checks["power"].expected


def test_a_real_h100_at_its_power_cap_is_healthy():
    checks = examined("h100_matrix_products")
    assert {check.id: check.status for check in checks.values()} == dict.fromkeys(checks, "pass")
    assert checks["driver"].seen == "580.159.04, 1 × NVIDIA H100 80GB HBM3"
    assert "slowed: power cap" in checks["clocks"].seen


def test_one_that_is_too_hot_fails_by_its_clocks_and_says_why():
    checks = examined("b200_throttled")
    assert [check.id for check in checks.values() if check.status == "fail"] == ["clocks"]
    assert "57% of its most" in checks["clocks"].seen
    assert "slowed: hardware slowdown, temperature (hardware)" in checks["clocks"].seen
    assert checks["clocks"].mend.startswith("cooling and power of this node first")


def test_the_drivers_that_the_chapter_names_fail_with_the_mend():
    first, *_ = looks("b200_old_driver")
    driver, cuda, *others = device_checks(first, Promised(gpu="b200"))
    assert (driver.status, driver.expected) == ("fail", "580 or newer; the chapter's 560 runs no CUDA 13")
    assert driver.mend == "install driver 580 or newer, and restart what uses it"
    assert (cuda.status, cuda.seen) == ("fail", "12.6")
    assert {check.status for check in others} == {"pass"}


def test_a_slice_that_was_never_made_is_missed():
    first, *_ = looks("b200_missing_partition")
    *_, partitions = device_checks(first, Promised(pattern=Pattern.B))
    assert (partitions.status, partitions.seen) == ("fail", "NVIDIA B200: 1 × 3g.90gb")
    assert partitions.mend.startswith("nvidia-smi mig -i 0 -cgi 3g.90gb,3g.90gb -C; ")


def test_both_slices_are_what_pattern_b_was_promised():
    first, *_ = looks("b200_two_slices")
    *_, partitions = device_checks(first, Promised(pattern=Pattern.B))
    assert (partitions.status, partitions.seen) == ("pass", "NVIDIA B200: 2 × 3g.90gb")


def test_slices_are_no_place_for_a_pattern_that_takes_the_whole_device():
    first, *_ = looks("b200_two_slices")
    *_, partitions = device_checks(first, Promised(pattern=Pattern.A))
    assert partitions.status == "fail" and "-mig 0" in partitions.mend


def test_pattern_b_by_mig_on_a_gpu_without_it_is_told_to_switch_it_on_first():
    first, *_ = looks("b200_healthy")
    *_, partitions = device_checks(first, Promised(pattern=Pattern.B, way=Way.MIG))
    assert partitions.status == "fail" and partitions.mend.startswith("nvidia-smi -i 0 -mig 1, then ")


@pytest.mark.parametrize(
    ("visible", "status"),
    [
        (("NVIDIA B200 MLOPart 0", "NVIDIA B200 MLOPart 1"), "pass"),
        (("NVIDIA B200",), "fail"),  # an MPS older than MLOPart ignores the order silently
        ((), "fail"),
        (None, "skip"),
    ],
)
def test_partitions_that_nvml_does_not_know_are_asked_of_cuda(visible: tuple[str, ...] | None, status: str):
    first, *_ = looks("b200_healthy")
    promised = Promised(pattern=Pattern.C, way=Way.MLOPART, visible=visible)
    driver, cuda, _, partitions = device_checks(first, promised)
    assert partitions.status == status
    # MLOPart asks for more than the GPU itself.
    assert (driver.status, driver.expected[:12]) == ("fail", "590 or newer")
    assert (cuda.status, cuda.expected[:4]) == ("fail", "13.1")


def test_another_gpu_than_was_promised_fails_by_its_compute_capability():
    first, *_ = looks("b200_healthy")
    _, _, capability, _ = device_checks(first, Promised(gpu="h200"))
    assert (capability.status, capability.seen) == ("fail", "10.0")
    assert capability.mend == "packages.….gpu: what is there is NVIDIA B200"


def test_dies_that_are_two_gpus_need_nvlink_between_them():
    first, *_ = looks("b200_healthy")
    device = replace(first.devices[0], name="NVIDIA H200", compute_capability=(9, 0))
    two = replace(first, devices=(device, replace(device, index=1)))
    promised = Promised(gpu="h200", pattern=Pattern.C)
    *_, unlinked = device_checks(two, promised)
    *_, linked = device_checks(replace(two, nvlinked=frozenset({(0, 1)})), promised)
    assert (unlinked.status, linked.status) == ("fail", "pass")


def test_memory_below_the_weights_means_that_the_model_is_not_there():
    _, *loaded = looks("b200_healthy")
    empty = [replace(one, devices=(replace(one.devices[0], memory_used=10**9),)) for one in loaded]
    memory = next(load_checks(empty, Promised(deployment=CHAPTER)))
    assert memory.status == "fail" and memory.seen == "1 of 192 GB"


def test_a_power_limit_below_what_the_device_was_made_for_is_a_warning():
    _, *loaded = looks("b200_healthy")
    capped = [replace(one, devices=(replace(one.devices[0], power_limit=700.0),)) for one in loaded]
    power = next(check for check in load_checks(capped, Promised()) if check.id == "power")
    assert power.status == "warn" and power.mend.startswith("nvidia-smi -pl 1000")


def test_without_a_load_nothing_is_judged():
    checks = list(load_checks([], Promised()))
    assert [check.status for check in checks] == ["skip"] * 4
    assert {check.seen for check in checks} == {"no load ran on this machine's GPUs"}


def test_where_no_gpu_can_be_asked_each_line_says_what_it_would_have_looked_for():
    checks = list(no_device("there is no NVIDIA driver to ask. Mend: a machine with one"))
    assert [check.id for check in checks] == ["driver", "cuda", "compute_capability", "partitions"]
    assert {(check.status, check.seen, check.mend) for check in checks} == {
        ("skip", "there is no NVIDIA driver to ask", "a machine with one")
    }
