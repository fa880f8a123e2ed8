"""How engines lie on a package's dies: the ways there are, what each needs, and the commands that prepare it.

    plain     whole GPUs, chosen by CUDA_VISIBLE_DEVICES. On a B200 one GPU is both dies
    pair      two GPUs joined by NVLink play the dies (Hopper); chosen by CUDA_VISIBLE_DEVICES too
    mig       two hardware-isolated halves. One process sees one of them: no tensor parallelism across
    mps       two processes share a GPU, each with half of its SMs; memory and bandwidth stay one pool
    mlopart   MPS makes a device of each die. Experimental: no engine is known to have served on one

NVML knows nothing of MLOPart, and an MPS older than it ignores the flag without a word: whoever was promised
such devices asks CUDA itself for them before an engine starts on what is there instead.

Sources: NVIDIA's MIG User Guide (supported profiles); its MPS guide, legacy v2 interface and environment
variables; release notes of CUDA 13.1 and NCCL 2.30.7. docs/guide/placement.md has them by way.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from diplex_core.plan.deployment import Deployment, Unplannable
from diplex_core.words import Pattern


class Way(StrEnum):
    PLAIN = "plain"
    PAIR = "pair"
    MIG = "mig"
    MPS = "mps"
    MLOPART = "mlopart"


@dataclass(frozen=True, slots=True)
class Floor:
    """The oldest that a way works with. `driver`: its branch, 590 of 590.44.01; `cuda`: what that runs."""

    driver: int = 0
    cuda: tuple[int, int] = (0, 0)
    compute: tuple[int, int] = (0, 0)


FLOORS: Final[Mapping[Way, Floor]] = MappingProxyType(
    {
        Way.PLAIN: Floor(),
        Way.PAIR: Floor(),
        Way.MIG: Floor(driver=570, compute=(8, 0)),
        Way.MPS: Floor(),
        Way.MLOPART: Floor(driver=590, cuda=(13, 1), compute=(10, 0)),
    }
)
"""B200's MIG profiles came with driver 570.133.20."""
MLOPART_NCCL: Final = (2, 30, 7)
"""The first NCCL that takes two ranks of one GPU for two devices, where each has a partition of it."""
SLICE: Final = "3g.90gb"
"""MIG's half of a B200: two of them use six of its seven compute slices."""
BY_INDEX: Final[Mapping[str, str]] = MappingProxyType({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"})
"""Then an index means the same GPU to CUDA as to nvidia-smi. vLLM takes no UUIDs."""
PIPES: Final = "/run/diplex/mps{gpu}"
"""Where the MPS daemon of a GPU and its clients meet."""

_MAY: Final[Mapping[Pattern, tuple[Way, ...]]] = MappingProxyType(
    {
        Pattern.A: (Way.PLAIN,),
        Pattern.B: (Way.MIG, Way.MPS, Way.MLOPART),
        Pattern.C: (Way.MLOPART,),
        Pattern.D: (Way.PLAIN,),
        Pattern.A_EAGLE: (Way.PLAIN,),
    }
)
_WHY_NOT: Final[Mapping[tuple[Pattern, Way], str]] = MappingProxyType(
    {
        (Pattern.C, Way.MIG): "one process sees one MIG device, and no two of them reach each other's memory",
        (Pattern.C, Way.MPS): "two ranks on one device are not two devices: NCCL refuses or hangs",
        (Pattern.C, Way.PLAIN): "one device is one rank: that is pattern A",
    }
)


@dataclass(frozen=True, slots=True)
class Seat:
    """What one engine gets.

    Attributes:
        name: of the engine: 0, 1, … in the deployment's order.
        devices: how each of its devices is chosen: an index, or MIG's slice by its number as `mig:0`.
        env: what else its environment says.
        gpu: the first GPU of its package.
    """

    name: str
    devices: tuple[str, ...]
    gpu: int
    env: Mapping[str, str] = field(default_factory=dict)


def way_of(deployment: Deployment, asked: str = "", cannot: Mapping[Way, str] = MappingProxyType({})) -> Way:
    """How the engines lie, as asked or as is usual for the pattern.

    Args:
        cannot: ways that the engine itself cannot lie, each with the reason.
    Raises:
        Unplannable: the pattern cannot lie so, with what can.
    """
    it = deployment
    ways = (Way.PAIR,) if it.paired else _MAY[it.pattern]
    may = tuple(way for way in ways if way not in cannot)
    if asked and asked not in may:
        reason = cannot[Way(asked)] if asked in ways else _why_not(it, asked)
        raise Unplannable(f"pattern {it.pattern} on {it.gpu.name} cannot lie '{asked}': {reason}. "
                          f"Nearest: --placement {may[0]}")  # fmt: skip
    way = Way(asked) if asked else may[0]
    if way in (Way.MIG, Way.MPS, Way.MLOPART) and it.tp > 1:
        raise Unplannable(
            f"pattern {it.pattern} divides one {it.gpu.name}, and --tp {it.tp} spans several. Nearest: --tp 1"
        )
    return way


def _why_not(deployment: Deployment, asked: str) -> str:
    if asked not in tuple(Way):
        return f"there is no such way; known: {', '.join(Way)}"
    if deployment.paired:
        return "each of its dies is a GPU of its own"
    if asked == Way.PAIR:
        return "its two dies are one GPU"
    return _WHY_NOT.get((deployment.pattern, Way(asked)), "its engine has the whole GPU")


def ranks(deployment: Deployment, way: Way) -> int:
    """Devices of one engine, a rank on each. Where two GPUs play the dies and one engine speculates, it
    spans both: draft and target cannot be placed apart."""
    it = deployment
    match it.pattern:
        case Pattern.B:
            return it.span
        case Pattern.C:
            return it.shards
    return it.tp


def seats(deployment: Deployment, way: Way) -> tuple[Seat, ...]:
    """Every engine's devices, on GPUs numbered from 0."""
    it, each = deployment, ranks(deployment, way)
    found: list[Seat] = []
    for number in range(it.engines):
        match way:
            case Way.PLAIN | Way.PAIR:
                first = number * each
                devices = tuple(map(str, range(first, first + each)))
                found.append(Seat(str(number), devices, first, BY_INDEX))
            case Way.MIG:
                gpu, half = divmod(number, 2)
                found.append(Seat(str(number), (f"mig:{half}",), gpu))
            case Way.MPS:
                gpu = number // 2
                share = {**_client(gpu), "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "50"}
                found.append(Seat(str(number), ("0",), gpu, share))
            case Way.MLOPART:
                # Its daemon sees one GPU, so its clients count that one's partitions from 0.
                gpu, half = divmod(number, 2) if it.pattern is Pattern.B else (number, 0)
                dies = (str(half),) if it.pattern is Pattern.B else ("0", "1")
                found.append(Seat(str(number), dies, gpu, _client(gpu)))
    return tuple(found)


def _client(gpu: int) -> dict[str, str]:
    return {"CUDA_MPS_PIPE_DIRECTORY": PIPES.format(gpu=gpu)}


def preparing(way: Way, gpus: int) -> tuple[str, ...]:
    """Shell lines that make the devices, and fail where they do not appear. They need root, but for MPS."""
    match way:
        case Way.PLAIN | Way.PAIR:
            return ()
        case Way.MIG:
            return tuple(line for gpu in range(gpus) for line in _mig(gpu))
        case Way.MPS | Way.MLOPART:
            return tuple(line for gpu in range(gpus) for line in _mps(gpu, way))


def undoing(way: Way, gpus: int) -> tuple[str, ...]:
    """Shell lines that give the whole GPUs back, once no engine runs there."""
    match way:
        case Way.PLAIN | Way.PAIR:
            return ()
        case Way.MIG:
            return tuple(line for gpu in range(gpus) for line in _unmig(gpu))
        case Way.MPS | Way.MLOPART:
            return tuple(
                f"echo quit | CUDA_MPS_PIPE_DIRECTORY={PIPES.format(gpu=gpu)} nvidia-cuda-mps-control"
                for gpu in range(gpus)
            )


def _mig(gpu: int) -> tuple[str, ...]:
    return (
        f"nvidia-smi -i {gpu} -mig 1",
        f"nvidia-smi mig -i {gpu} -cgi {SLICE},{SLICE} -C",
        f'[ "$(slices {gpu} | wc -l)" = 2 ] || fail "GPU {gpu} has not the two {SLICE} it was divided into; '
        f'see nvidia-smi mig -lgi"',
    )


def _unmig(gpu: int) -> tuple[str, ...]:
    return (
        f"nvidia-smi mig -i {gpu} -dci",
        f"nvidia-smi mig -i {gpu} -dgi",
        f"nvidia-smi -i {gpu} -mig 0",
    )


def _mps(gpu: int, way: Way) -> tuple[str, ...]:
    pipes = PIPES.format(gpu=gpu)
    lines = [
        f"mkdir -p {pipes} {pipes}.log",
        f'uuid="$(nvidia-smi --query-gpu=uuid --format=csv,noheader -i {gpu})"',
        f'CUDA_VISIBLE_DEVICES="$uuid" CUDA_MPS_PIPE_DIRECTORY={pipes} CUDA_MPS_LOG_DIRECTORY={pipes}.log '
        f"nvidia-cuda-mps-control -d",
    ]
    if way is Way.MLOPART:
        # Before any client: the first one would start a plain server. An MPS that does not know -mlopart says
        # nothing, and NVML knows no partitions, so CUDA itself is asked what a client sees.
        lines += [
            f'echo "start_server -uid $(id -u) -mlopart" | CUDA_MPS_PIPE_DIRECTORY={pipes} '
            f"nvidia-cuda-mps-control",
            f'seen="$(CUDA_MPS_PIPE_DIRECTORY={pipes} python3 -m diplex_workers.launch.cuda_devices '
            f'| grep -c MLOPart || true)"',
            f'[ "$seen" = 2 ] || fail "CUDA shows $seen partitions of GPU {gpu}, not 2: MPS ignored -mlopart '
            f'(driver older than 590), or this GPU has none"',
        ]
    return tuple(lines)
