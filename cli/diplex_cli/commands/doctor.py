"""Say whether a deployment is healthy: the chapter's checklist, each line pass, warn, fail or skip.

Looks at this machine's GPUs, at the engines and their KV caches, and puts a short load on the router: one
stream, 32 streams, one long prompt. Speed is judged by what the planner predicts for that hardware; the
chapter's own thresholds stand beside. What cannot be checked here is skipped, with what would let it be.

exit code: 0 nothing failed, 1 something did, 2 wrong usage

examples:
  diplex doctor
  diplex doctor --url gpu-box:7600 --engine-url http://gpu-box:8000
  diplex doctor --engine trtllm
"""

import asyncio
import json
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from diplex_cli import whom
from diplex_cli.failures import NOT_FINE, UsageError

if TYPE_CHECKING:
    from diplex_cli.doctor.check import Check
    from diplex_cli.doctor.machine import Promised
    from diplex_cli.doctor.subject import Subject
    from diplex_workers.launch.nvml import Machine, Nvml

_PATIENCE: Final = 4.0
_LOOK_EVERY: Final = 0.5
_CUDA_PATIENCE: Final = 60.0
# Looks that are taken from a recording; its last one stays.
_RECORDED: Final = 32


def add_arguments(parser: ArgumentParser) -> None:
    whom.add_url(parser)
    whom.add_api_key(parser)
    parser.add_argument(
        "--model", default="", help="which model (default: the configuration's default_model)"
    )
    parser.add_argument(
        "--tier", default="", help="whose promises (default: the configuration's default_tier)"
    )
    parser.add_argument("--full", action="store_true", help="as many requests as the chapter's list has")
    parser.add_argument(
        "--no-load", action="store_true", help="put no load on the router: checks 4 to 7 skipped"
    )
    parser.add_argument("--engine-url", metavar="URL", help="an engine's own HTTP server, for checks 2 and 3")
    parser.add_argument("--engine", metavar="KIND", help="look the names up that diplex relies on: trtllm")
    parser.add_argument(
        "--gpu", default="", help="what this machine's GPUs should be (default: what is there)"
    )
    parser.add_argument(
        "--pattern", default="", metavar="P", help="how they are used (default: as the fleet says)"
    )
    parser.add_argument(
        "--placement",
        default="",
        metavar="WAY",
        help="how engines get their devices: plain, pair, mig, mps or mlopart",
    )
    parser.add_argument("--nvml", metavar="FILE", help="a recording instead of this machine's GPUs")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")


def run(args: Namespace) -> int:
    from diplex_cli.doctor.check import fields, healthy
    from diplex_cli.doctor.text import text

    checks = list(_names(args.engine)) if args.engine else asyncio.run(_examined(args))
    print(json.dumps(fields(checks), ensure_ascii=False) if args.json else text(checks))
    return 0 if healthy(checks) else NOT_FINE


def _names(engine: str) -> "list[Check]":
    from diplex_cli.doctor.names import PACKAGES, name_checks

    if engine not in PACKAGES:
        raise UsageError(f"--engine: '{engine}' cannot be looked into. Mend: --engine {', '.join(PACKAGES)}")
    return list(name_checks(engine))


async def _examined(args: Namespace) -> "list[Check]":
    from diplex import AsyncClient
    from diplex.errors import DiplexError
    from diplex_cli.doctor.subject import subjects

    nvml = _nvml(args)
    async with AsyncClient(args.url, api_key=args.api_key, patience=_PATIENCE) as client:
        try:
            await client.wait_ready(_PATIENCE)
            fleet, model = await client.fleet(), args.model or client.default_model
            found, why = subjects(fleet, model), f"no worker that serves {model} is up"
        except DiplexError as error:
            if args.url != whom.DEFAULT:  # asked for by name, it has to be there
                raise
            found, model, why = [], args.model, str(error).partition("\n")[0]
        first, problem = await _look(nvml)
        promised = _promised(args, found)
        looks = _Looks(nvml, first, recorded=args.nvml is not None)
        on_simulated = bool(found) and all(subject.simulated for subject in found)
        spoken = [] if args.no_load else found
        async with looks.meanwhile(bool(spoken) and not on_simulated):
            speed = await _speed(args, client, spoken, model, "--no-load" if args.no_load else why)
    device, loaded = _of_machine(first, problem, looks.seen, promised)
    return [*device, *await _of_engine(args, found), *loaded, *speed]


async def _speed(
    args: Namespace, client: "object", found: "list[Subject]", model: str, why: str
) -> "list[Check]":
    from diplex import AsyncClient
    from diplex_cli.doctor import speed

    if not found:
        reason, _, mend = why.partition(" Mend: ")
        return list(speed.skipped(reason, mend or "diplex up, or --url HOST:PORT of a router that runs"))
    if not any(subject.deployment for subject in found):
        what = ", ".join(sorted({f"{subject.name} ({subject.info.gpu})" for subject in found}))
        reason = f"nothing is predicted for {what}, so a load would tell nothing"
        return list(speed.skipped(reason, "--model: one on hardware that `diplex plan` knows"))
    assert isinstance(client, AsyncClient)
    amounts = speed.FULL if args.full else speed.Amounts()
    load = speed.Load(client, found, model=model, tier=args.tier)
    return [
        await speed.single_stream(load, found, amounts.single),
        await speed.throughput(load, found, amounts.many),
        await speed.long_context(load, found, amounts.long),
    ]


async def _of_engine(args: Namespace, found: "list[Subject]") -> "list[Check]":
    from diplex_cli.doctor.engine import engine_checks, told_by

    told = await asyncio.to_thread(told_by, args.engine_url) if args.engine_url else None
    return list(engine_checks(found, told))


def _of_machine(
    first: "Machine | None", problem: str, looks: "list[Machine]", promised: "Promised"
) -> "tuple[list[Check], list[Check]]":
    """What the GPUs are, and what they do under load."""
    from diplex_cli.doctor.machine import device_checks, load_checks, no_device, no_load

    if first is None or not first.devices:
        why = problem or "the driver sees no GPU. Mend: look at nvidia-smi"
        return list(no_device(why)), list(no_load(why))
    return list(device_checks(first, promised)), list(load_checks(looks, promised))


def _promised(args: Namespace, found: "list[Subject]") -> "Promised":
    """What this machine's GPUs should be: as asked, else as the fleet's real engines say."""
    from diplex_cli.doctor.machine import Promised
    from diplex_core.model import catalogue
    from diplex_core.plan.recipe_ways import Way
    from diplex_core.words import Pattern

    if args.gpu and args.gpu not in catalogue.names("gpus"):
        raise UsageError(
            f"--gpu: '{args.gpu}' is not known. Mend: one of {', '.join(catalogue.names('gpus'))}"
        )
    if args.pattern and args.pattern not in tuple(Pattern):
        raise UsageError(f"--pattern: '{args.pattern}' is no pattern. Mend: one of {', '.join(Pattern)}")
    real = [subject for subject in found if not subject.simulated and subject.info.gpu != "cpu"]
    info = real[0].info if real else None
    if args.placement and args.placement not in tuple(Way):
        raise UsageError(f"--placement: '{args.placement}' is none. Mend: one of {', '.join(Way)}")
    pattern, way = (
        args.pattern or (info.pattern if info else "A"),
        Way(args.placement) if args.placement else None,
    )
    return Promised(
        gpu=args.gpu or (info.gpu if info else ""),
        pattern=Pattern(pattern),
        way=way,
        visible=_visible() if way is Way.MLOPART and args.nvml is None else None,
        deployment=real[0].deployment if real else None,
    )


def _visible() -> tuple[str, ...] | None:
    """The devices that CUDA gives a program here, by name; `None`: there is no CUDA to ask."""
    command = [sys.executable, "-m", "diplex_workers.launch.cuda_devices"]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=_CUDA_PATIENCE, check=False)
    if asked.returncode:
        return None
    return tuple(json.loads(line)["name"] for line in asked.stdout.splitlines())


def _nvml(args: Namespace) -> "Nvml":
    from diplex_workers.launch.nvml import LiveNvml, RecordedNvml

    if args.nvml is None:
        return LiveNvml()
    try:
        return RecordedNvml(Path(args.nvml))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"--nvml: {args.nvml} is no recording: {error}. Mend: one of looks at NVML"
        ) from error


async def _look(nvml: "Nvml") -> "tuple[Machine | None, str]":
    from diplex_workers.launch.nvml import NvmlMissing

    try:
        return await asyncio.to_thread(nvml.look), ""
    except NvmlMissing as missing:
        return None, str(missing)


class _Looks:
    """Looks at the GPUs while something else happens. A recording's are those behind its first."""

    def __init__(self, nvml: "Nvml", first: "Machine | None", *, recorded: bool) -> None:
        self._nvml = nvml
        self._first = first
        self._recorded = recorded
        self.seen: list[Machine] = []

    @asynccontextmanager
    async def meanwhile(self, loaded: bool) -> AsyncIterator[None]:
        if self._recorded:
            looks = [await _look(self._nvml) for _ in range(_RECORDED)]
            self.seen = [machine for machine, _ in looks if machine and machine != self._first]
            yield
        elif loaded:
            async with asyncio.TaskGroup() as tasks:
                looking = tasks.create_task(self._look_on())
                try:
                    yield
                finally:
                    looking.cancel()
        else:
            yield

    async def _look_on(self) -> None:
        while True:
            machine, _ = await _look(self._nvml)
            if machine is None:
                return
            self.seen.append(machine)
            await asyncio.sleep(_LOOK_EVERY)
