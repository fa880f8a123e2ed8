"""Checks 1 and 4: what this machine's GPUs are, and what they do under load.

Floors: CUDA 13.0 came with driver 580.65.06 (CUDA 13 release notes); CUDA 12 runs on 525.60.13 and newer. The
chapter's "driver 560 or newer with CUDA 13" cannot be.
The chapter's bands are of a B200 under load; NVML's utilisation is the share of time in which any kernel ran,
so that a busy engine shows more than the chapter's share of tensor cores at work.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from diplex_cli.doctor.check import Check, Status
from diplex_core.model import catalogue
from diplex_core.plan.deployment import Deployment
from diplex_core.words import Pattern
from diplex_workers.launch.nvml import Device, Machine

_GB: Final = 1e9
# By GPU: driver branch, CUDA, compute capability.
_FLOORS: Final = {
    "b200": (580, (13, 0), (10, 0)),
    "h200": (525, (12, 0), (9, 0)),
    "h100": (525, (12, 0), (9, 0)),
}
_THROTTLES: Final = ("temperature", "hardware", "brake")
# Of the fastest clock: from the first on all is well, below the second something slows the GPU.
_CLOCK_WELL, _CLOCK_SLOW = 0.9, 0.75
_MEMORY_CLOCK: Final = 0.95
_BUSY, _IDLE = 0.6, 0.3
_FULL: Final = 0.98
_POWER: Final = 0.5

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
        sliced: the pattern's halves are MIG slices.
        deployment: whose memory and power are expected; `None`: not known.
    """

    gpu: str = ""
    pattern: Pattern = Pattern.A
    sliced: bool = False
    deployment: Deployment | None = None


def profile_of(device: Device) -> str:
    """The profile of a GPU, by its name as the driver has it; "": none.

    >>> from dataclasses import replace
    >>> device = Device(0, "GPU-1", "NVIDIA H100 80GB HBM3", (9, 0), 0, 0)
    >>> profile_of(device), profile_of(replace(device, name="NVIDIA A10"))
    ('h100', '')
    """
    return next((gpu for gpu in _FLOORS if gpu.upper() in device.name.upper().split()), "")


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
    branch, cuda, capability = _FLOORS.get(gpu, (525, (12, 0), None))
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


def _partitions(machine: Machine, promised: Promised) -> Check:
    id_, title = "partitions", f"{_ONE}, partitions"
    device = machine.devices[0]
    names = ", ".join(one.name for one in device.slices) or "none"
    if promised.pattern is Pattern.B and (promised.sliced or device.mig):
        there = len(device.slices)
        mend = "nvidia-smi mig -cgi 3g.90gb,3g.90gb -C, as `diplex recipe` prints it for this pattern"
        return Check(
            id_,
            title,
            "pass" if there >= 2 else "fail",
            "two MIG slices, one for each of pattern B's instances",
            f"{there} on {device.name}: {names}",
            "" if there >= 2 else mend if device.mig else f"nvidia-smi -mig 1, then {mend}",
        )
    if promised.pattern in (Pattern.B, Pattern.C) and len(machine.devices) == 1:
        expected = "two devices for a program: halves by MPS or MLOPart, which NVML does not know"
        mend = "see whether the worker starts: it looks for them itself, and says what it found"
        return Check(id_, title, "skip", expected, f"one {device.name}, not divided", mend)
    if device.mig:
        mend = "nvidia-smi -mig 0, or pattern B"
        return Check(
            id_, title, "fail", f"a whole device for pattern {promised.pattern}", f"MIG: {names}", mend
        )
    return Check(id_, title, "pass", f"a whole device for pattern {promised.pattern}", "not divided")


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
            "dcgmi dmon -e 1001",
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
    least = known.idle_power + _POWER / 2 * (known.power - known.idle_power) if known else 0.0
    of_limit = f", of {limit:.0f} W allowed" if limit else ""
    expected = f"at least {least:.0f} W{of_limit}; {_CHAPTER_FOUR['power']}"
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
        f"SM clock at {_CLOCK_WELL:.0%} of its most, memory at {_MEMORY_CLOCK:.0%}; {_CHAPTER_FOUR['clocks']}"
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
    if throttled or share < _CLOCK_SLOW or of_memory < _CLOCK_SLOW:
        status = "fail"
    elif share < _CLOCK_WELL or of_memory < _MEMORY_CLOCK:
        status = "warn"
    mend = {
        "pass": "",
        "warn": "nvidia-smi -q -d PERFORMANCE says why; a power cap under full load is normal",
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
