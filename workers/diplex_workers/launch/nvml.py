"""What a machine's NVIDIA GPUs say of themselves: one look is one value. PyPI `nvidia-ml-py` asks the driver.

NVML sees GPUs and MIG slices whatever this process may use: `CUDA_VISIBLE_DEVICES` does not bind it, and the
two halves that MPS makes of a GPU (MLOPart) are one GPU to it. `cuda_devices` tells what a program can use.

    python -m diplex_workers.launch.nvml "what runs meanwhile" 5 > looks.json

records five looks, a second apart, for `RecordedNvml` to play.

Source: https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html, names as nvidia-ml-py has them.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol

SLOWED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "nvmlClocksEventReasonSwPowerCap": "power cap",
        "nvmlClocksEventReasonHwSlowdown": "hardware slowdown",
        "nvmlClocksEventReasonSyncBoost": "sync boost with another GPU",
        "nvmlClocksEventReasonSwThermalSlowdown": "temperature (software)",
        "nvmlClocksEventReasonHwThermalSlowdown": "temperature (hardware)",
        "nvmlClocksEventReasonHwPowerBrakeSlowdown": "power brake of the chassis",
        "nvmlClocksEventReasonApplicationsClocksSetting": "clocks set by somebody",
    }
)
"""Why clocks are lower than they could be, by NVML's names. Idling is not among them: that is no slowdown."""


class NvmlMissing(Exception):
    """NVML cannot be asked here. The message has the reason and the mend."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A MIG device: a hardware-isolated part of a GPU. Its name ends in its profile, such as `MIG 3g.90gb`;
    its memory is in bytes."""

    uuid: str
    name: str
    memory_total: int


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU. `None`: its driver does not say (a MIG GPU has no utilisation, for one).

    Attributes:
        memory_total, memory_used: bytes.
        compute_capability: (10, 0) on a B200, (9, 0) on Hopper.
        utilization: share of the last sample period in which a kernel ran.
        power, power_limit: watts.
        sm_clock, memory_clock: MHz now, and `…_max` the most it can.
        slowed: why its clocks are lower than they could be, in words; empty: they are not.
        mig: whether it is divided by MIG; `None`: it cannot be.
    """

    index: int
    uuid: str
    name: str
    compute_capability: tuple[int, int]
    memory_total: int
    memory_used: int
    utilization: float | None = None
    power: float | None = None
    power_limit: float | None = None
    sm_clock: int | None = None
    sm_clock_max: int | None = None
    memory_clock: int | None = None
    memory_clock_max: int | None = None
    slowed: tuple[str, ...] | None = None
    mig: bool | None = None
    slices: tuple[Slice, ...] = ()


@dataclass(frozen=True, slots=True)
class Machine:
    """One look at a machine.

    Attributes:
        driver: its version, such as 580.95.05.
        cuda: the newest CUDA that the driver runs, such as (13, 0).
        nvlinked: pairs of device indices with NVLink between them, the smaller first.
    """

    driver: str
    cuda: tuple[int, int]
    devices: tuple[Device, ...]
    nvlinked: frozenset[tuple[int, int]] = frozenset()

    @property
    def driver_branch(self) -> int:
        """580 of 580.95.05; floors are named by it."""
        return int(self.driver.split(".", 1)[0])


class Nvml(Protocol):
    """What can be looked at again and again."""

    def look(self) -> Machine:
        """Raises NvmlMissing where there is nothing to ask."""
        ...


class LiveNvml:
    """This machine's own NVML, by nvidia-ml-py."""

    def look(self) -> Machine:
        nvml = _imported()
        with _opened(nvml):
            handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
            cuda = nvml.nvmlSystemGetCudaDriverVersion_v2()
            return Machine(
                driver=nvml.nvmlSystemGetDriverVersion(),
                cuda=(cuda // 1000, cuda % 1000 // 10),
                devices=tuple(_device(nvml, index, handle) for index, handle in enumerate(handles)),
                nvlinked=frozenset(_nvlinked(nvml, handles)),
            )


class RecordedNvml:
    """What was seen at another time, look by look; the last one stays.

    Args:
        file: JSON, `{"about": how it was made, "looks": [Machine, …]}`, as `recorded` writes it.
    """

    def __init__(self, file: Path) -> None:
        recording = json.loads(file.read_text())
        self.about: str = recording["about"]
        self._looks = [machine_of(one) for one in recording["looks"]]

    def look(self) -> Machine:
        return self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]


def recorded(about: str, looks: list[Machine]) -> str:
    """A recording that `RecordedNvml` plays."""
    return json.dumps({"about": about, "looks": [_plain(one) for one in looks]}, indent=1) + "\n"


def machine_of(said: Mapping[str, Any]) -> Machine:
    """A look as a recording has it. What it leaves out is what the driver did not say."""
    return Machine(
        driver=said["driver"],
        cuda=_pair(said["cuda"]),
        devices=tuple(_recorded_device(one) for one in said["devices"]),
        nvlinked=frozenset(_pair(one) for one in said.get("nvlinked", ())),
    )


def main(about: str, looks: str = "1") -> int:
    seen: list[Machine] = []
    try:
        for number in range(int(looks)):
            if number:
                time.sleep(1.0)
            seen.append(LiveNvml().look())
    except NvmlMissing as why:
        print(why, file=sys.stderr)
        return 1
    print(recorded(about, seen), end="")
    return 0


def _recorded_device(said: Mapping[str, Any]) -> Device:
    slowed = said.get("slowed")
    return Device(
        **{
            **said,
            "compute_capability": _pair(said["compute_capability"]),
            "slowed": None if slowed is None else tuple(slowed),
            "slices": tuple(Slice(**one) for one in said.get("slices", ())),
        }
    )


def _plain(machine: Machine) -> dict[str, Any]:
    return {**asdict(machine), "nvlinked": sorted(machine.nvlinked)}


def _pair(said: Any) -> tuple[int, int]:
    first, second = said
    return first, second


def _imported() -> Any:
    try:
        return import_module("pynvml")
    except ImportError:
        raise NvmlMissing(
            "the GPUs of this machine cannot be asked: nvidia-ml-py is not installed. "
            "Mend: pip install 'diplex[nvml]'"
        ) from None


@contextmanager
def _opened(nvml: Any) -> Iterator[None]:
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise NvmlMissing(
            f"there is no NVIDIA driver to ask ({error}). Mend: a machine with one, where nvidia-smi answers"
        ) from None
    try:
        yield
    except nvml.NVMLError as error:
        raise NvmlMissing(
            f"the NVIDIA driver stopped answering ({error}). Mend: look at nvidia-smi"
        ) from error
    finally:
        nvml.nvmlShutdown()


def _device(nvml: Any, index: int, handle: Any) -> Device:
    def said(name: str, *more: Any) -> Any:
        """What one of NVML's functions answers; `None` where this GPU or driver has no answer."""
        try:
            return getattr(nvml, name)(handle, *more)
        except nvml.NVMLError:
            return None

    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    busy, mig = said("nvmlDeviceGetUtilizationRates"), said("nvmlDeviceGetMigMode")
    divided = None if mig is None else mig[0] == nvml.NVML_DEVICE_MIG_ENABLE
    return Device(
        index=index,
        uuid=nvml.nvmlDeviceGetUUID(handle),
        name=nvml.nvmlDeviceGetName(handle),
        compute_capability=_pair(nvml.nvmlDeviceGetCudaComputeCapability(handle)),
        memory_total=memory.total,
        memory_used=memory.used,
        utilization=None if busy is None else busy.gpu / 100,
        power=_watts(said("nvmlDeviceGetPowerUsage")),
        power_limit=_watts(said("nvmlDeviceGetEnforcedPowerLimit")),
        sm_clock=said("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
        sm_clock_max=said("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_SM),
        memory_clock=said("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM),
        memory_clock_max=said("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_MEM),
        slowed=_slowed(nvml, said("nvmlDeviceGetCurrentClocksEventReasons")),
        mig=divided,
        slices=tuple(_slices(nvml, handle)) if divided else (),
    )


def _slowed(nvml: Any, mask: int | None) -> tuple[str, ...] | None:
    if mask is None:
        return None
    return tuple(words for name, words in SLOWED.items() if mask & getattr(nvml, name))


def _slices(nvml: Any, handle: Any) -> Iterator[Slice]:
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            one = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except nvml.NVMLError:
            continue  # numbers have gaps: a slice that was never made, or is gone
        yield Slice(
            uuid=nvml.nvmlDeviceGetUUID(one),
            name=nvml.nvmlDeviceGetName(one),
            memory_total=nvml.nvmlDeviceGetMemoryInfo(one).total,
        )


def _nvlinked(nvml: Any, handles: list[Any]) -> Iterator[tuple[int, int]]:
    for first, one in enumerate(handles):
        for second in range(first + 1, len(handles)):
            try:
                status = nvml.nvmlDeviceGetP2PStatus(one, handles[second], nvml.NVML_P2P_CAPS_INDEX_NVLINK)
            except nvml.NVMLError:
                continue
            if status == nvml.NVML_P2P_STATUS_OK:
                yield first, second


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
