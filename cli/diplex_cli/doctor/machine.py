"""Checks 1 and 4: what this machine's GPUs are, and what they do under load.

Floors: CUDA 13.0 came with driver 580.65.06 (CUDA 13 release notes); CUDA 12 runs on 525.60.13 and newer. The
chapter's "driver 560 or newer with CUDA 13" cannot be.
The chapter's bands are of a B200 under load; NVML's utilisation is the share of time in which any kernel ran,
so that a busy engine shows more than the chapter's share of tensor cores at work.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from diplex_cli.doctor.check import Check, Status
from diplex_core.model import catalogue
from diplex_core.plan.deployment import Deployment
from diplex_core.plan.recipe_ways import FLOORS, SLICE, Floor, Way
from diplex_core.words import Pattern
from diplex_workers.launch.nvml import Device, Machine

_GB: Final = 1e9
# By GPU: driver branch, CUDA, compute capability.
_GPUS: Final = {
    "b200": (580, (13, 0), (10, 0)),
    "h200": (525, (12, 0), (9, 0)),
    "h100": (525, (12, 0), (9, 0)),
}
KNOWN: Final = tuple(_GPUS)
"""GPUs whose floors are known."""
_THROTTLES: Final = ("temperature", "hardware", "brake")
# Of the fastest clock: from the first on all is well, below the second something slows the GPU.
_CLOCK_WELL, _CLOCK_SLOW = 0.9, 0.75
_MEMORY_CLOCK: Final = 0.95
_BUSY, _IDLE = 0.6, 0.3
_FULL: Final = 0.98
# Share of the power above idling that decoding alone draws (plan/prediction.py has the source).
_DECODING: Final = 0.36

_ONE: Final = "1 driver and device"
_FOUR: Final = "4 under load"
_CHAPTER_FOUR: Final = {
    "memory": "the chapter: about 150 GB of a B200",
    "utilization": "the chapter: 60 to 75 %, of tensor cores",
    "power": "the chapter: 900 to 1,000 W",
    "clocks": "the chapter: near the most they can",
}


@dataclass(frozen=True, slots=True)
class Promised:
    """What should be found on this machine.

    Attributes:
        gpu: by its profile; "": whatever is there.
        way: how its engines get their devices; `None`: as what is there suggests.
        visible: the devices that CUDA gives a program here, by name; `None`: it was not asked.
        deployment: whose memory and power are expected; `None`: not known.
    """

    gpu: str = ""
    pattern: Pattern = Pattern.A
    way: Way | None = None
    visible: tuple[str, ...] | None = None
    deployment: Deployment | None = None


def profile_of(device: Device) -> str:
    """The profile of a GPU, by its name as the driver has it; "": none.

    >>> from dataclasses import replace
    >>> device = Device(0, "GPU-1", "NVIDIA H100 80GB HBM3", (9, 0), 0, 0)
    >>> profile_of(device), profile_of(replace(device, name="NVIDIA A10"))
    ('h100', '')
    """
    return next((gpu for gpu in _GPUS if gpu.upper() in device.name.upper().split()), "")


def no_device(why: str) -> Iterator[Check]:
    """Check 1 where no GPU can be asked."""
    reason, _, mend = why.partition(" Mend: ")
    for id_, title, expected in (
        ("driver", "driver", "580 or newer on Blackwell, 525 on Hopper"),
        ("cuda", "CUDA", "13.0 or newer on Blackwell, 12.0 on Hopper"),
        ("compute_capability", "compute capability", "10.0 on Blackwell, 9.0 on Hopper"),
        ("partitions", "partitions", "as many as the pattern asks for"),
    ):
        yield Check(id_, f"{_ONE}, {title}", "skip", expected, reason.rstrip("."), mend)


def no_load(why: str) -> Iterator[Check]:
    """Check 4 where nothing can be seen under load."""
    reason, _, mend = why.partition(" Mend: ")
    for id_, chapter in _CHAPTER_FOUR.items():
        yield Check(id_, f"{_FOUR}, {id_}", "skip", chapter, reason.rstrip("."), mend)


def device_checks(machine: Machine, promised: Promised) -> Iterator[Check]:
    """Check 1."""
    device = machine.devices[0]
    gpu = promised.gpu or profile_of(device)
    floor, capability = _floor(gpu, promised.way)
    branch, cuda = floor.driver, floor.cuda
    chapter = "; the chapter's 560 runs no CUDA 13" if gpu == "b200" else ""
    yield Check(
        "driver",
        f"{_ONE}, driver",
        "pass" if machine.driver_branch >= branch else "fail",
        f"{branch} or newer{chapter}",
        f"{machine.driver}, {len(machine.devices)} × {device.name}",
        ""
        if machine.driver_branch >= branch
        else f"install driver {branch} or newer, and restart what uses it",
    )
    yield Check(
        "cuda",
        f"{_ONE}, CUDA",
        "pass" if machine.cuda >= cuda else "fail",
        f"{_dotted(cuda)} or newer, as far as the driver goes",
        _dotted(machine.cuda),
        "" if machine.cuda >= cuda else f"a newer driver: it decides which CUDA runs (here {machine.driver})",
    )
    wrong = [one for one in machine.devices if capability and one.compute_capability != capability]
    yield Check(
        "compute_capability",
        f"{_ONE}, compute capability",
        "fail" if wrong else "pass" if capability else "skip",
        f"{_dotted(capability)}, of a {catalogue.gpu(gpu).title}"
        if capability
        else "one that diplex has figures of",
        ", ".join(sorted({_dotted(one.compute_capability) for one in machine.devices})),
        f"packages.….gpu: what is there is {wrong[0].name}" if wrong else "",
    )
    yield _partitions(machine, promised)


def _floor(gpu: str, way: Way | None) -> tuple[Floor, tuple[int, int] | None]:
    """The oldest driver and CUDA for a GPU whose engines get their devices so, and its compute capability."""
    branch, cuda, capability = _GPUS.get(gpu, (525, (12, 0), None))
    needed = FLOORS[way] if way else Floor()
    return Floor(max(branch, needed.driver), max(cuda, needed.cuda)), capability


def _partitions(machine: Machine, promised: Promised) -> Check:
    """Whether the devices that a pattern was promised are there."""
    id_, title = "partitions", f"{_ONE}, partitions"
    device, pattern = machine.devices[0], promised.pattern
    way = promised.way or (Way.MIG if device.mig and pattern is Pattern.B else None)
    if way is Way.MIG:
        return _slices(id_, title, device)
    if way is Way.MLOPART:
        return _halves(id_, title, promised)
    if device.mig:
        expected, seen = f"a whole device for pattern {pattern}", f"divided: {_several(device)}"
        return Check(id_, title, "fail", expected, seen, "nvidia-smi -mig 0, or pattern B on its slices")
    if way is None and pattern in (Pattern.B, Pattern.C) and len(machine.devices) == 1:
        expected = "two devices, or two shares of one"
        mend = "--placement mig, mps or mlopart says how this machine's engines get theirs"
        return Check(id_, title, "skip", expected, f"one {device.name}, not divided", mend)
    if way is Way.PAIR or (pattern is Pattern.C and way is None):
        return _pair(id_, title, machine)
    return Check(id_, title, "pass", f"a whole device for pattern {pattern}", "not divided")


def _slices(id_: str, title: str, device: Device) -> Check:
    expected = f"two MIG slices {SLICE}, one for each of pattern B's engines"
    seen = f"{device.name}: {_several(device)}"
    if len(device.slices) >= 2:
        return Check(id_, title, "pass", expected, seen)
    mend = f"nvidia-smi mig -i {device.index} -cgi {SLICE},{SLICE} -C"
    if not device.mig:
        mend = f"nvidia-smi -i {device.index} -mig 1, then {mend}"
    return Check(id_, title, "fail", expected, seen, f"{mend}; `diplex recipe` prints all of it")


def _halves(id_: str, title: str, promised: Promised) -> Check:
    """MLOPart's partitions: NVML knows none, and an older MPS ignores the order to make them."""
    expected = "two MLOPart partitions, which NVML does not know and CUDA does"
    if promised.visible is None:
        return Check(id_, title, "skip", expected, "CUDA was not asked", "run this on the machine itself")
    seen = ", ".join(promised.visible) or "no device at all"
    if sum("MLOPart" in name for name in promised.visible) >= 2:
        return Check(id_, title, "pass", expected, seen)
    mend = (
        "start the MPS server with -mlopart before any client, and set CUDA_MPS_PIPE_DIRECTORY here as there"
    )
    return Check(id_, title, "fail", expected, seen, mend)


def _pair(id_: str, title: str, machine: Machine) -> Check:
    expected = "two GPUs with NVLink between them"
    count = len(machine.devices)
    if machine.nvlinked:
        return Check(id_, title, "pass", expected, f"{count}, {len(machine.nvlinked)} pairs of them linked")
    return Check(
        id_, title, "fail", expected, f"{count}, none linked", "pattern A on one, or another machine"
    )


def _several(device: Device) -> str:
    count = Counter(one.name.rpartition("MIG ")[2] for one in device.slices)
    return ", ".join(f"{number} × {name}" for name, number in count.items()) or "no slice"


def load_checks(looks: Sequence[Machine], promised: Promised) -> Iterator[Check]:
    """Check 4, of the busiest device.

    Args:
        looks: at the machine while a load ran; none: there was no load.
    """
    if not looks:
        yield from no_load(
            "no load ran on this machine's GPUs. Mend: run this where a router's real engines use them"
        )
        return
    number = max(range(len(looks[0].devices)), key=lambda n: max(_use(look.devices[n]) for look in looks))
    seen = [look.devices[number] for look in looks]
    yield _memory(seen, promised)
    yield _utilization(seen)
    yield _power(seen, promised)
    yield _clocks(seen)


def _memory(seen: Sequence[Device], promised: Promised) -> Check:
    used, total = max(one.memory_used for one in seen), seen[0].memory_total
    least = 0.0
    if promised.deployment is not None:
        layout = promised.deployment.layout
        least = float(sum(group.bytes for group in layout.groups))
    known = f"more than {least / _GB:.0f} GB (weights and what is beside them), and " if least else ""
    status: Status = "pass"
    mend = ""
    if used < least:
        status, mend = "fail", "look whether the engine loaded this model on this device: weights take more"
    elif used > _FULL * total:
        status, mend = "warn", "a smaller share for the KV cache: what is allocated late has no room"
    return Check(
        "memory",
        f"{_FOUR}, memory",
        status,
        f"{known}less than {_FULL:.0%} of it; {_CHAPTER_FOUR['memory']}",
        f"{used / _GB:.0f} of {total / _GB:.0f} GB",
        mend,
    )


def _utilization(seen: Sequence[Device]) -> Check:
    said = [one.utilization for one in seen if one.utilization is not None]
    expected = f"at least {_BUSY:.0%} of the time in some kernel; {_CHAPTER_FOUR['utilization']}"
    if not said:
        return Check(
            "utilization",
            f"{_FOUR}, utilization",
            "skip",
            expected,
            "a MIG device has none",
            "DCGM's profiling metrics tell of MIG slices too",
        )
    use = max(said)
    status: Status = "pass" if use >= _BUSY else "warn" if use >= _IDLE else "fail"
    mend = "" if status == "pass" else "see whether the requests reach this device: `diplex explain`"
    return Check("utilization", f"{_FOUR}, utilization", status, expected, f"{use:.0%}", mend)


def _power(seen: Sequence[Device], promised: Promised) -> Check:
    drawn = [one.power for one in seen if one.power is not None]
    limit = seen[0].power_limit
    gpu = promised.gpu or profile_of(seen[0])
    title = f"{_FOUR}, power"
    known = catalogue.gpu(gpu) if gpu else None
    least = known.idle_power + _DECODING * (known.power - known.idle_power) if known else 0.0
    of_limit = f", of {limit:.0f} W allowed" if limit else ""
    expected = f"at least {least:.0f} W, as decoding alone draws{of_limit}; {_CHAPTER_FOUR['power']}"
    if not drawn:
        return Check("power", title, "skip", expected, "the driver does not say")
    most = max(drawn)
    if known and limit and limit < 0.9 * known.power:
        mend = f"nvidia-smi -pl {known.power:.0f}: this device is limited below what it was made for"
        return Check("power", title, "warn", expected, f"{most:.0f} W", mend)
    status: Status = "pass" if most >= least else "warn"
    mend = "" if status == "pass" else "little work reaches the device: more streams, or see check 4's clocks"
    return Check("power", title, status, expected, f"{most:.0f} W", mend)


def _clocks(seen: Sequence[Device]) -> Check:
    expected = (
        f"SM clock at {_CLOCK_WELL:.0%} of its most, {_CLOCK_SLOW:.0%} at the power cap, memory at "
        f"{_MEMORY_CLOCK:.0%}; {_CHAPTER_FOUR['clocks']}"
    )
    title = f"{_FOUR}, clocks"
    busy = [one for one in seen if _use(one) >= _IDLE] or list(seen)
    core = [one.sm_clock / one.sm_clock_max for one in busy if one.sm_clock and one.sm_clock_max]
    memory = [
        one.memory_clock / one.memory_clock_max for one in busy if one.memory_clock and one.memory_clock_max
    ]
    if not core:
        return Check("clocks", title, "skip", expected, "the driver does not say")
    slowed = sorted({why for one in busy for why in one.slowed or ()})
    throttled = [why for why in slowed if any(word in why for word in _THROTTLES)]
    share, of_memory = median(core), median(memory) if memory else 1.0
    status: Status = "pass"
    # So a device at full power keeps within it: an H100 under matrix products was seen at 87 %.
    capped = slowed == ["power cap"] and share >= _CLOCK_SLOW
    if throttled or share < _CLOCK_SLOW or of_memory < _CLOCK_SLOW:
        status = "fail"
    elif (share < _CLOCK_WELL and not capped) or of_memory < _MEMORY_CLOCK:
        status = "warn"
    mend = {
        "pass": "",
        "warn": "nvidia-smi -q -d PERFORMANCE says why",
        "fail": "cooling and power of this node first: nvidia-smi -q -d PERFORMANCE says which",
    }[status]
    why = f"; slowed: {', '.join(slowed)}" if slowed else ""
    clock = median(one.sm_clock for one in busy if one.sm_clock)
    seen_words = f"SM {clock:.0f} MHz, {share:.0%} of its most, memory {of_memory:.0%}{why}"
    return Check("clocks", title, status, expected, seen_words, mend)


def _use(device: Device) -> float:
    return device.utilization or 0.0


def _dotted(pair: tuple[int, int]) -> str:
    return ".".join(map(str, pair))
