"""Which devices an engine gets on this machine, or why it cannot have them: a decision, nothing is done here.

In: what was asked for, and one look at the machine. Out: the environment that chooses the devices and what
CUDA must then show, or a refusal with its mend. Nothing falls back by itself: an engine that was promised
half of a GPU and takes the whole of it stops its neighbour, and a C that runs as A says what it is not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, assert_never

from diplex_core.plan.recipe_ways import BY_INDEX, FLOORS, MLOPART_NCCL, PIPES, Way
from diplex_core.words import Pattern
from diplex_workers.launch.nvml import Device, Machine

MLOPART_COMPUTE: Final = ((10, 0), (10, 3))
"""B200 and B300: the GPUs with two dies that MPS knows how to take apart."""
HALF: Final = "50"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Attributes:
    ranks: devices that the engine spans.
    half: in pattern B, which of the package's two.
    devices: the package's GPUs, by index or UUID; empty: the first ones.
    pipes: where the MPS daemon of the package is met; "": the usual place.
    """

    pattern: Pattern
    way: Way
    ranks: int = 1
    half: int = 0
    devices: tuple[str, ...] = ()
    pipes: str = ""


@dataclass(frozen=True, slots=True)
class Expected:
    """What CUDA must show a process in this environment: so many devices, each with this in its name."""

    count: int
    named: str = ""


@dataclass(frozen=True, slots=True)
class Placed:
    """`daemon`: the UUID of the GPU whose MPS daemon must run before; "": none is needed."""

    env: Mapping[str, str]
    expected: Expected
    daemon: str = ""


@dataclass(frozen=True, slots=True)
class NotPlaced:
    reason: str
    mend: str


@dataclass(frozen=True, slots=True)
class _Looked:
    """The machine, with what was found of the package's GPUs."""

    wanted: Wanted
    machine: Machine
    gpus: tuple[Device, ...]
    nccl: tuple[int, ...] | None


def placed(wanted: Wanted, machine: Machine, *, nccl: tuple[int, ...] | None = None) -> Placed | NotPlaced:
    """The devices for one engine.

    Args:
        nccl: the version that the engine will use; `None`: not known.
    """
    gpus = _gpus(wanted, machine)
    if isinstance(gpus, NotPlaced):
        return gpus
    looked = _Looked(wanted, machine, gpus, nccl)
    if (old := _too_old(looked)) is not None:
        return old
    match wanted.way:
        case Way.PLAIN:
            return _plain(looked)
        case Way.PAIR:
            return _pair(looked)
        case Way.MIG:
            return _mig(looked)
        case Way.MPS:
            return _mps(looked)
        case Way.MLOPART:
            return _mlopart(looked)
        case _:
            assert_never(wanted.way)


def missing(expected: Expected, seen: Sequence[Mapping[str, Any]]) -> str | None:
    """What CUDA does not show of what was promised; `None`: all of it is there.

    Args:
        seen: devices as `cuda_devices` prints them.
    """
    names = ", ".join(str(one["name"]) for one in seen) or "none"
    if len(seen) != expected.count:
        return f"CUDA shows {len(seen)} devices where {expected.count} were promised: {names}"
    if not all(expected.named in str(one["name"]) for one in seen):
        return f"CUDA shows {names} where {expected.named} was promised"
    return None


def _gpus(wanted: Wanted, machine: Machine) -> tuple[Device, ...] | NotPlaced:
    """The package's GPUs, as many as it has."""
    needed = wanted.ranks if wanted.way is Way.PLAIN else 2 if wanted.way is Way.PAIR else 1
    asked = wanted.devices or tuple(str(index) for index in range(needed))
    by_name = {name: one for one in machine.devices for name in (str(one.index), one.uuid)}
    if unknown := [name for name in asked if name not in by_name]:
        there = ", ".join(f"{one.index} ({one.name})" for one in machine.devices) or "none"
        return NotPlaced(
            f"there is no GPU {unknown[0]} here, but {there}", "launch.devices: those that there are"
        )
    if len(asked) < needed:
        return NotPlaced(
            f"placement {wanted.way} needs {needed} GPUs, and launch.devices names {len(asked)}",
            f"launch.devices: {needed} of them",
        )
    return tuple(by_name[name] for name in asked[:needed])


def _too_old(looked: _Looked) -> NotPlaced | None:
    way, machine = looked.wanted.way, looked.machine
    floor = FLOORS[way]
    if machine.driver_branch < floor.driver:
        return NotPlaced(
            f"driver {machine.driver} is older than {floor.driver}, the first with {way}", _other_way(looked)
        )
    if machine.cuda < floor.cuda:
        return NotPlaced(
            f"this driver runs CUDA {_dotted(machine.cuda)}, and {way} needs {_dotted(floor.cuda)}",
            _other_way(looked),
        )
    return None


def _other_way(looked: _Looked) -> str:
    """What does the same here, as far as anything does."""
    if looked.wanted.pattern is Pattern.C:
        return "pattern: A, which has the same bandwidth on this GPU"
    return "a newer driver, or launch.placement: mps"


def _plain(looked: _Looked) -> Placed | NotPlaced:
    if divided := [one for one in looked.gpus if one.mig]:
        index = divided[0].index
        return NotPlaced(
            f"GPU {index} is divided by MIG", f"nvidia-smi -i {index} -mig 0, or launch.placement: mig"
        )
    return Placed(_whole(*looked.gpus), Expected(len(looked.gpus)))


def _pair(looked: _Looked) -> Placed | NotPlaced:
    first, second = looked.gpus
    if looked.wanted.pattern is Pattern.B:
        return Placed(_whole(looked.gpus[looked.wanted.half]), Expected(1))
    linked = (min(first.index, second.index), max(first.index, second.index))
    if linked not in looked.machine.nvlinked:
        return NotPlaced(
            f"no NVLink joins GPU {first.index} and GPU {second.index}",
            "launch.devices: two that nvidia-smi topo -m shows as NV",
        )
    return Placed(_whole(first, second), Expected(2))


def _mig(looked: _Looked) -> Placed | NotPlaced:
    (gpu,), half = looked.gpus, looked.wanted.half
    if looked.wanted.pattern is Pattern.C:
        return NotPlaced("one process sees one MIG device, so none is for two ranks", "pattern: A, or B")
    if not gpu.mig:
        return NotPlaced(
            f"GPU {gpu.index} is not divided by MIG", "the step `place` of diplex recipe --pattern B"
        )
    if len(gpu.slices) <= half:
        return NotPlaced(
            f"GPU {gpu.index} has {len(gpu.slices)} MIG devices, and die {half} needs one of its own",
            "the steps `undo` and `place` of diplex recipe --pattern B",
        )
    return Placed(_visible(gpu.slices[half].uuid), Expected(1, "MIG"))


def _mps(looked: _Looked) -> Placed | NotPlaced:
    (gpu,) = looked.gpus
    if looked.wanted.pattern is Pattern.C:
        return NotPlaced("two ranks on one device are not two devices", "pattern: A, or B")
    if gpu.mig:
        return NotPlaced(f"GPU {gpu.index} is divided by MIG", "launch.placement: mig")
    env = {**_client(looked, gpu), "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": HALF, **_visible("0")}
    return Placed(env, Expected(1), daemon=gpu.uuid)


def _mlopart(looked: _Looked) -> Placed | NotPlaced:
    (gpu,), wanted = looked.gpus, looked.wanted
    if gpu.compute_capability not in MLOPART_COMPUTE:
        return NotPlaced(
            f"{gpu.name} has compute capability {_dotted(gpu.compute_capability)}, and only 10.0 and 10.3 "
            f"have MLOPart",
            "launch.placement: pair, on two of them"
            if wanted.pattern is Pattern.C
            else "launch.placement: mps",
        )
    if gpu.mig:
        return NotPlaced(f"GPU {gpu.index} is divided by MIG, which has no MLOPart", "launch.placement: mig")
    if wanted.pattern is Pattern.C and (looked.nccl is None or looked.nccl < MLOPART_NCCL):
        had = "cannot be seen from here" if looked.nccl is None else f"is {_dotted(looked.nccl)}"
        return NotPlaced(
            f"two partitions of one GPU are two ranks for NCCL {_dotted(MLOPART_NCCL)} or newer, and the "
            f"engine's {had}",
            "pip install nvidia-nccl-cu13 beside it, or pattern: A, which has the same bandwidth on this GPU",
        )
    dies = (str(wanted.half),) if wanted.pattern is Pattern.B else ("0", "1")
    return Placed({**_client(looked, gpu), **_visible(*dies)}, Expected(len(dies), "MLOPart"))


def _client(looked: _Looked, gpu: Device) -> dict[str, str]:
    return {"CUDA_MPS_PIPE_DIRECTORY": looked.wanted.pipes or PIPES.format(gpu=gpu.index)}


def _whole(*gpus: Device) -> dict[str, str]:
    """Whole GPUs by index: there are engines that cannot read a UUID."""
    return {**BY_INDEX, **_visible(*(str(gpu.index) for gpu in gpus))}


def _visible(*devices: str) -> dict[str, str]:
    return {"CUDA_VISIBLE_DEVICES": ",".join(devices)}


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
