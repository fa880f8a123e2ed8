"""The whole checklist, in the chapter's order."""

import asyncio
import socket
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Final

from diplex import AsyncClient
from diplex.errors import DiplexError
from diplex_cli import whom
from diplex_cli.doctor import speed
from diplex_cli.doctor.check import Check
from diplex_cli.doctor.engine import engine_checks, told_by
from diplex_cli.doctor.looks import Looks, visible
from diplex_cli.doctor.machine import Promised, device_checks, load_checks, no_device, no_load
from diplex_cli.doctor.subject import Subject, subjects
from diplex_core.plan.recipe_ways import Way
from diplex_core.words import Pattern, Seconds

_PATIENCE: Final[Seconds] = 4.0
_HERE: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_NO_ROUTER: Final = "diplex up, or --url HOST:PORT of a router that runs"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be examined.

    Attributes:
        load: put a load on the router; `full`: as much as the chapter's list has.
        engine_url: an engine's own HTTP server; `None`: nobody said where that is.
        gpu, pattern, way: what this machine's GPUs were meant to be; "" and `None`: as the fleet says.
    """

    url: str = whom.DEFAULT
    api_key: str | None = None
    model: str = ""
    tier: str = ""
    load: bool = True
    full: bool = False
    engine_url: str | None = None
    gpu: str = ""
    pattern: Pattern | None = None
    way: Way | None = None


async def examined(asked: Asked, looks: Looks) -> list[Check]:
    """Every check.

    Raises:
        DiplexError: a router that was asked for by its address does not answer.
    """
    async with AsyncClient(asked.url, api_key=asked.api_key, patience=_PATIENCE) as client:
        found, model, why = await _found(asked, client)
        await looks.look()
        speeds = _without_load(found, why) if asked.load else _without_load([], "--no-load")
        if speeds is None:
            seen = any(_is_here(subject) for subject in found) and not looks.recorded
            async with looks.meanwhile() if seen else nullcontext():
                speeds = await _speeds(asked, client, found, model)
    told = await asyncio.to_thread(told_by, asked.engine_url) if asked.engine_url else None
    devices, loaded = _machine(asked, found, looks)
    return [*devices, *engine_checks(found, told), *loaded, *speeds]


async def _found(asked: Asked, client: AsyncClient) -> tuple[list[Subject], str, str]:
    """The workers that serve the model, its name, and why there are none where there are none."""
    try:
        await client.wait_ready(_PATIENCE)
        fleet, model = await client.fleet(), asked.model or client.default_model
    except DiplexError as error:
        if asked.url != whom.DEFAULT:
            raise
        return [], asked.model, str(error).partition("\n")[0]
    return subjects(fleet, model), model, f"no worker that serves {model} is up"


def _without_load(found: Sequence[Subject], why: str) -> list[Check] | None:
    """Checks 5 to 7 where no load is put, skipped; `None`: one is."""
    if not found:
        reason, _, mend = why.partition(" Mend: ")
        return list(speed.skipped(reason, mend or _NO_ROUTER))
    if not any(subject.deployment for subject in found):
        what = ", ".join(sorted({f"{subject.name} ({subject.info.gpu})" for subject in found}))
        reason = f"nothing is predicted for {what}, so a load would tell nothing"
        return list(speed.skipped(reason, "--model: one on hardware that `diplex plan` knows"))
    return None


async def _speeds(asked: Asked, client: AsyncClient, found: Sequence[Subject], model: str) -> list[Check]:
    amounts = speed.FULL if asked.full else speed.Amounts()
    load = speed.Load(client, found, model=model, tier=asked.tier)
    return [
        await speed.single_stream(load, found, amounts.single),
        await speed.throughput(load, found, amounts.many),
        await speed.long_context(load, found, amounts.long),
    ]


def _machine(asked: Asked, found: Sequence[Subject], looks: Looks) -> tuple[list[Check], list[Check]]:
    """What the GPUs of this machine are, and what they do under load."""
    first = looks.first
    if first is None or not first.devices:
        why = looks.problem or "the driver sees no GPU. Mend: look at nvidia-smi"
        return list(no_device(why)), list(no_load(why))
    real = [subject for subject in found if not subject.simulated and subject.info.gpu != "cpu"]
    info = real[0].info if real else None
    promised = Promised(
        gpu=asked.gpu or (info.gpu if info else ""),
        pattern=asked.pattern or Pattern(info.pattern if info else "A"),
        way=asked.way,
        visible=visible() if asked.way is Way.MLOPART and not looks.recorded else None,
        deployment=real[0].deployment if real else None,
    )
    return list(device_checks(first, promised)), list(load_checks(looks.loaded, promised))


def _is_here(subject: Subject) -> bool:
    """Whether a real engine's worker runs on this machine, so that its load is seen on these GPUs."""
    host = subject.info.address.rpartition(":")[0].strip("[]")
    return not subject.simulated and host in _HERE | {socket.gethostname(), socket.getfqdn()}
