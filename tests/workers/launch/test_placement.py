"""Which devices an engine gets: every way on machines that have it, have it not, or are too old for it."""

from dataclasses import replace

import pytest

from diplex_core.config.keys import PLACEMENTS
from diplex_core.plan.recipe_ways import BY_INDEX, Way
from diplex_core.words import Pattern
from diplex_workers.launch.nvml import Device, Machine, Slice
from diplex_workers.launch.placement import Expected, NotPlaced, Placed, Wanted, missing, placed

GIB = 2**30


def gpu(index: int, name: str = "NVIDIA B200", compute: tuple[int, int] = (10, 0), **more: object) -> Device:
    return Device(index, f"GPU-{index}", name, compute, 179 * GIB, GIB, mig=False, **more)  # type: ignore[arg-type]


def divided(*slices: str) -> Device:
    parts = tuple(Slice(uuid, "NVIDIA B200 MIG 3g.90gb", 89 * GIB) for uuid in slices)
    return replace(gpu(0), mig=True, slices=parts)


B200 = Machine("590.44.01", (13, 1), (gpu(0), gpu(1)))
HOPPER = Machine(
    "580.95.05",
    (13, 0),
    tuple(gpu(index, "NVIDIA H200", (9, 0)) for index in range(4)),
    nvlinked=frozenset({(0, 1), (2, 3)}),
)
NEW_NCCL = (2, 30, 7)


def test_a_configuration_knows_every_way_and_no_other():
    assert tuple(Way) == PLACEMENTS


@pytest.mark.parametrize(
    ("wanted", "machine", "env", "expected"),
    [
        (Wanted(Pattern.A, Way.PLAIN), B200, {**BY_INDEX, "CUDA_VISIBLE_DEVICES": "0"}, Expected(1)),
        (
            Wanted(Pattern.A, Way.PLAIN, ranks=2, devices=("GPU-1", "0")),
            B200,
            {**BY_INDEX, "CUDA_VISIBLE_DEVICES": "1,0"},
            Expected(2),
        ),
        (Wanted(Pattern.D, Way.PLAIN), B200, {**BY_INDEX, "CUDA_VISIBLE_DEVICES": "0"}, Expected(1)),
        (
            Wanted(Pattern.C, Way.PAIR, ranks=2, devices=("2", "3")),
            HOPPER,
            {**BY_INDEX, "CUDA_VISIBLE_DEVICES": "2,3"},
            Expected(2),
        ),
        (Wanted(Pattern.B, Way.PAIR, half=1), HOPPER, {**BY_INDEX, "CUDA_VISIBLE_DEVICES": "1"}, Expected(1)),
        (
            Wanted(Pattern.B, Way.MIG, half=1),
            replace(B200, devices=(divided("MIG-a", "MIG-b"),)),
            {"CUDA_VISIBLE_DEVICES": "MIG-b"},
            Expected(1, "MIG"),
        ),
        (
            Wanted(Pattern.B, Way.MPS, half=0),
            HOPPER,
            {
                "CUDA_MPS_PIPE_DIRECTORY": "/run/diplex/mps0",
                "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "50",
                "CUDA_VISIBLE_DEVICES": "0",
            },
            Expected(1),
        ),
        (
            Wanted(Pattern.B, Way.MLOPART, half=1, devices=("1",), pipes="/srv/mps"),
            B200,
            {"CUDA_MPS_PIPE_DIRECTORY": "/srv/mps", "CUDA_VISIBLE_DEVICES": "1"},
            Expected(1, "MLOPart"),
        ),
        (
            Wanted(Pattern.C, Way.MLOPART, ranks=2),
            B200,
            {"CUDA_MPS_PIPE_DIRECTORY": "/run/diplex/mps0", "CUDA_VISIBLE_DEVICES": "0,1"},
            Expected(2, "MLOPart"),
        ),
    ],
)
def test_an_engine_gets_the_devices_of_its_place(
    wanted: Wanted, machine: Machine, env: dict[str, str], expected: Expected
):
    decision = placed(wanted, machine, nccl=NEW_NCCL)
    assert isinstance(decision, Placed)
    assert (decision.env, decision.expected) == (env, expected)
    assert decision.daemon == ("GPU-0" if wanted.way is Way.MPS else "")


@pytest.mark.parametrize(
    ("wanted", "machine", "nccl", "reason", "mend"),
    [
        (
            Wanted(Pattern.A, Way.PLAIN, devices=("7",)),
            B200,
            None,
            "no GPU 7 here, but 0 (NVIDIA B200)",
            "devices",
        ),
        (Wanted(Pattern.A, Way.PLAIN, ranks=3), B200, None, "no GPU 2 here", "launch.devices"),
        (
            Wanted(Pattern.A, Way.PLAIN),
            replace(B200, devices=()),
            None,
            "no GPU 0 here, but none",
            "launch.devices",
        ),
        (
            Wanted(Pattern.A, Way.PLAIN),
            replace(B200, devices=(divided("MIG-a"),)),
            None,
            "GPU 0 is divided by MIG",
            "nvidia-smi -i 0 -mig 0",
        ),
        (
            Wanted(Pattern.C, Way.PAIR, ranks=2, devices=("1", "2")),
            HOPPER,
            None,
            "no NVLink joins GPU 1 and GPU 2",
            "nvidia-smi topo -m",
        ),
        (Wanted(Pattern.C, Way.PAIR, devices=("1",)), HOPPER, None, "needs 2 GPUs", "2 of them"),
        (Wanted(Pattern.B, Way.MIG), B200, None, "GPU 0 is not divided by MIG", "`place` of diplex recipe"),
        (
            Wanted(Pattern.B, Way.MIG, half=1),
            replace(B200, devices=(divided("MIG-a"),)),
            None,
            "has 1 MIG devices, and die 1 needs one of its own",
            "`undo` and `place`",
        ),
        (
            Wanted(Pattern.B, Way.MIG),
            replace(B200, driver="565.57.01"),
            None,
            "driver 565.57.01 is older than 570, the first with mig",
            "a newer driver",
        ),
        (Wanted(Pattern.C, Way.MIG), B200, None, "one process sees one MIG device", "pattern: A"),
        (
            Wanted(Pattern.C, Way.MLOPART, ranks=2),
            replace(B200, driver="580.95.05"),
            NEW_NCCL,
            "driver 580.95.05 is older than 590, the first with mlopart",
            "pattern: A, which has the same bandwidth",
        ),
        (
            Wanted(Pattern.C, Way.MLOPART, ranks=2),
            replace(B200, cuda=(13, 0)),
            NEW_NCCL,
            "runs CUDA 13.0, and mlopart needs 13.1",
            "pattern: A",
        ),
        (Wanted(Pattern.C, Way.MLOPART, ranks=2), B200, (2, 28, 9), "the engine's is 2.28.9", "pattern: A"),
        (Wanted(Pattern.C, Way.MLOPART, ranks=2), B200, None, "cannot be seen from here", "nvidia-nccl-cu13"),
        (
            Wanted(Pattern.C, Way.MLOPART, ranks=2),
            replace(HOPPER, driver="590.44.01", cuda=(13, 1)),
            NEW_NCCL,
            "NVIDIA H200 has compute capability 9.0, and only 10.0 and 10.3 have MLOPart",
            "launch.placement: pair",
        ),
        (
            Wanted(Pattern.B, Way.MLOPART),
            replace(B200, devices=(divided("MIG-a", "MIG-b"),)),
            None,
            "divided by MIG, which has no MLOPart",
            "launch.placement: mig",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason_and_mend(
    wanted: Wanted, machine: Machine, nccl: tuple[int, ...] | None, reason: str, mend: str
):
    decision = placed(wanted, machine, nccl=nccl)
    assert isinstance(decision, NotPlaced)
    assert reason in decision.reason
    assert mend in decision.mend


HALVES = [{"name": "NVIDIA B200 MLOPart 0"}, {"name": "NVIDIA B200 MLOPart 1"}]


def test_an_old_mps_that_ignores_its_flag_is_found_out():
    whole = [{"name": "NVIDIA B200"}]
    assert missing(Expected(2, "MLOPart"), HALVES) is None
    assert missing(Expected(2, "MLOPart"), whole) == (
        "CUDA shows 1 devices where 2 were promised: NVIDIA B200"
    )
    assert missing(Expected(1, "MLOPart"), whole) == "CUDA shows NVIDIA B200 where MLOPart was promised"
    assert missing(Expected(1), []) == "CUDA shows 0 devices where 1 were promised: none"
