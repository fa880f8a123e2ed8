"""An engine's devices before each start: looked for by NVML, and by CUDA itself where they are promised."""

from pathlib import Path

import pytest

from diplex_core.plan.recipe_ways import Way
from diplex_core.words import Pattern
from diplex_workers.launch import seating
from diplex_workers.launch.keeper import CannotStart
from diplex_workers.launch.nvml import Device, Machine, RecordedNvml, recorded
from diplex_workers.launch.placement import Wanted
from diplex_workers.launch.seating import Seating

H200 = Machine("580.95.05", (13, 0), (Device(0, "GPU-0", "NVIDIA H200", (9, 0), 2**37, 2**30, mig=False),))


@pytest.fixture
def nvml(tmp_path: Path) -> RecordedNvml:
    (file := tmp_path / "looks.json").write_text(recorded("made up for this test", [H200]))
    return RecordedNvml(file)


def probe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, prints: str) -> None:
    """In place of CUDA: a module that prints what is given."""
    (tmp_path / "pretended_cuda.py").write_text(f"print({prints!r})")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(seating.cuda_devices, "__name__", "pretended_cuda")


async def test_devices_that_cuda_shows_are_the_engines(
    nvml: RecordedNvml, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    probe(monkeypatch, tmp_path, '{"name": "NVIDIA H200"}')
    assert await Seating(Wanted(Pattern.A, Way.PLAIN), nvml=nvml)() == {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "0",
    }


async def test_a_device_that_cuda_does_not_show_keeps_the_engine_from_starting(
    nvml: RecordedNvml, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    probe(monkeypatch, tmp_path, "")
    with pytest.raises(CannotStart, match=r"CUDA shows 0 devices where 1 were promised: none\. Mend: "):
        await Seating(Wanted(Pattern.A, Way.PLAIN), nvml=nvml)()


async def test_a_place_that_the_machine_lacks_is_refused_before_anything_is_done(nvml: RecordedNvml):
    with pytest.raises(CannotStart, match=r"driver 580\.95\.05 is older than 590.*Mend: pattern: A"):
        await Seating(Wanted(Pattern.C, Way.MLOPART, 2), nvml=nvml, nccl=lambda: (2, 30, 7))()


async def test_without_cuda_the_reason_is_its_own(nvml: RecordedNvml, monkeypatch: pytest.MonkeyPatch):
    """Where there is a GPU after all, this one's made-up UUID is not among its devices."""
    with pytest.raises(CannotStart, match=r"CUDA cannot be asked|CUDA shows 0 devices"):
        await Seating(Wanted(Pattern.A, Way.PLAIN), nvml=nvml)()


async def test_two_halves_need_mps_on_the_machine(nvml: RecordedNvml, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(seating.shutil, "which", lambda _: None)
    with pytest.raises(CannotStart, match="nvidia-cuda-mps-control is not installed"):
        await Seating(Wanted(Pattern.B, Way.MPS), nvml=nvml)()


@pytest.mark.parametrize("known", [True, False], ids=["its daemon runs", "its daemon is to be started"])
async def test_a_half_is_a_client_of_its_gpus_daemon(
    known: bool, nvml: RecordedNvml, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    control, log, pipes = tmp_path / "control", tmp_path / "log", tmp_path / "mps"
    control.write_text(
        f'#!/bin/sh\nread word; echo "$* $word $CUDA_VISIBLE_DEVICES" >> {log}\n'
        f'[ "$1" = -d ] && touch {tmp_path}/runs && exit 0\n[ -e {tmp_path}/runs ]\n'
    )
    control.chmod(0o755)
    if known:
        (tmp_path / "runs").touch()
    monkeypatch.setattr(seating, "_CONTROL", str(control))
    probe(monkeypatch, tmp_path, '{"name": "NVIDIA H200"}')
    env = await Seating(Wanted(Pattern.B, Way.MPS, pipes=str(pipes)), nvml=nvml)()
    assert env == {
        "CUDA_MPS_PIPE_DIRECTORY": str(pipes),
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "50",
        "CUDA_VISIBLE_DEVICES": "0",
    }
    asked = [line.strip() for line in log.read_text().splitlines()]
    assert asked == (
        ["get_server_list GPU-0"]
        if known
        else ["get_server_list GPU-0", "-d  GPU-0", "get_server_list GPU-0"]
    )
