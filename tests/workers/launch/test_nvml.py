"""What GPUs say of themselves: asked by names that nvidia-ml-py has, and played from recordings."""

import ast
import json
import sys
from pathlib import Path

import pynvml
import pytest

from diplex_workers.launch import nvml
from diplex_workers.launch.nvml import Device, LiveNvml, Machine, NvmlMissing, RecordedNvml, Slice, recorded

GIB = 2**30
B200 = Device(
    index=0,
    uuid="GPU-1",
    name="NVIDIA B200",
    compute_capability=(10, 0),
    memory_total=179 * GIB,
    memory_used=GIB,
    utilization=0.7,
    power=950.0,
    slowed=("power cap",),
    mig=True,
    slices=(Slice("MIG-1", "NVIDIA B200 MIG 3g.90gb", 89 * GIB),),
)


def test_every_name_that_is_asked_of_the_binding_is_one_that_it_has():
    source = ast.parse(Path(nvml.__file__).read_text())
    names = {node.attr for node in ast.walk(source) if isinstance(node, ast.Attribute)}
    words = {node.value for node in ast.walk(source) if isinstance(node, ast.Constant)}
    asked = {
        name for name in names | words if str(name).lower().startswith("nvml") and str(name).isidentifier()
    }
    assert {"nvmlDeviceGetUUID", "nvmlDeviceGetClockInfo", "nvmlClocksEventReasonSwPowerCap"} <= asked
    assert [name for name in sorted(asked) if not hasattr(pynvml, name)] == []


def test_a_machine_without_a_driver_says_so_with_the_mend(monkeypatch):
    def absent() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", absent)
    with pytest.raises(NvmlMissing, match=r"no NVIDIA driver .*Library Not Found.*Mend: "):
        LiveNvml().look()


def test_without_the_binding_the_mend_is_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(NvmlMissing, match=r"Mend: pip install 'diplex\[nvml\]'"):
        LiveNvml().look()


def test_a_recording_plays_its_looks_in_order_and_stays_at_the_last(tmp_path):
    first = Machine("590.44.01", (13, 1), (B200,), frozenset({(0, 1)}))
    last = Machine("590.44.01", (13, 1), ())
    (file := tmp_path / "looks.json").write_text(recorded("made up for this test", [first, last]))
    player = RecordedNvml(file)
    assert player.about == "made up for this test"
    assert [player.look(), player.look(), player.look()] == [first, last, last]


def test_what_a_recording_leaves_out_was_not_said(tmp_path):
    plain = {
        "index": 0,
        "uuid": "GPU-1",
        "name": "NVIDIA B200",
        "compute_capability": [10, 0],
        "memory_total": 1,
        "memory_used": 0,
    }
    look = {"driver": "580.95.05", "cuda": [13, 0], "devices": [plain]}
    (file := tmp_path / "one.json").write_text(json.dumps({"about": "", "looks": [look]}))
    seen = RecordedNvml(file).look()
    assert (seen.driver_branch, seen.devices[0].slowed, seen.devices[0].mig) == (580, None, None)


RECORDINGS = Path(__file__).with_name("recordings")


def test_a_real_gpu_under_load_says_that_its_power_cap_slows_it():
    player = RecordedNvml(RECORDINGS / "h100_load.json")
    looks = [player.look().devices[0] for _ in range(4)]
    assert looks[0].slowed == ()
    assert looks[-1].slowed == ("power cap",)
    assert looks[-1].utilization is not None and looks[-1].utilization > 0.9
    assert looks[-1].sm_clock is not None and looks[-1].sm_clock_max is not None
    assert looks[-1].sm_clock < looks[-1].sm_clock_max


def test_an_idle_one_has_all_that_it_needs_to_be_placed():
    machine = RecordedNvml(RECORDINGS / "h100_idle.json").look()
    assert (machine.driver_branch, machine.cuda, machine.nvlinked) == (580, (13, 0), frozenset())
    assert machine.devices[0].compute_capability == (9, 0)
    assert machine.devices[0].mig is False
