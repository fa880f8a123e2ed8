"""From a package's `engine.launch` to what is started: its command, its devices, its figures."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from diplex_core.config import AttachConfig, LaunchConfig, WorkerConfig
from diplex_core.words import Pattern, Rules, Seconds, Slots

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from diplex_core.plan.deployment import Deployment
    from diplex_core.plan.recipe import Recipe
    from diplex_workers.engines.engine import Engine
    from diplex_workers.launch.placement import Wanted

_APART: Final = (Pattern.B, Pattern.C, Pattern.D)
PIPES: Final = "CUDA_MPS_PIPE_DIRECTORY"


@dataclass(frozen=True, slots=True)
class Started:
    """What a worker starts.

    Attributes:
        config: of the file that the command names, if it names one.
        wanted: its devices; `None`: whatever it finds, for nothing was said of them.
        slots: sequences that it is started with; `None`: not known.
    """

    command: tuple[str, ...]
    config: "Mapping[str, Any]"
    wanted: "Wanted | None"
    slots: Slots | None


def start_of(worker: WorkerConfig, rules: Rules | None) -> Started:
    """What to start for a worker whose engine says `launch`.

    Raises:
        Unplannable: there is no such command, or the pattern cannot lie so; with the nearest that can.
    """
    engine, launch = _parts(worker)
    if launch.command is not None:
        wanted = _wanted(worker, launch, launch.placement, _span(worker, launch))
        return Started((*launch.command, *launch.args), {}, wanted, worker.slots)
    recipe = _recipe(worker, engine, launch, rules)
    half = half_of(worker)
    one = recipe.engines[half]
    wanted = _wanted(worker, launch, recipe.way, len(one.seat.devices))
    return Started((*one.command, *launch.args), one.config, wanted, recipe.sizes.sequences)


def started(engine: "Engine", worker: WorkerConfig, start: Started) -> "Engine":
    """The engine, with its server's process."""
    from diplex_workers.launch.keeper import Keeper, Start
    from diplex_workers.launch.launched import launched, must_be_free
    from diplex_workers.launch.seating import Seating

    attach, launch = _parts(worker)
    seating = Seating(start.wanted, env=launch.env) if start.wanted else None

    async def place() -> "Mapping[str, str]":
        await must_be_free(attach.url)
        return await seating() if seating else {}

    keeper = Keeper(
        worker.name,
        Start(
            start.command,
            env=launch.env,
            config=start.config,
            ready_within=launch.ready_within,
            silent=launch.silent,
            grace=launch.drain,
        ),
        place=place,
    )
    return launched(engine, keeper)


def _parts(worker: WorkerConfig) -> tuple[AttachConfig, LaunchConfig]:
    assert isinstance(worker.engine, AttachConfig) and worker.engine.launch is not None
    return worker.engine, worker.engine.launch


def _recipe(
    worker: WorkerConfig, engine: AttachConfig, launch: LaunchConfig, rules: Rules | None
) -> "Recipe":
    from diplex_core.plan.recipe import Asked, recipe_of
    from diplex_core.plan.recipe_sizes import GAP, Serves

    gap = gap_of(worker, rules)
    url = urlsplit(engine.url)
    return recipe_of(
        _deployment(worker, launch),
        Asked(
            engine=engine.api,
            serves=Serves(launch.serve) if launch.serve else Serves.LATENCY if gap else None,
            placement=launch.placement or "",
            gap=gap or GAP,
            longest=engine.context or 0,
            checkpoint=launch.checkpoint or "",
            draft=launch.draft or "",
            name=worker.model.name,
            host=url.hostname or "127.0.0.1",
            # A recipe counts its engines' ports up; here each engine's own is said.
            port=(url.port or 80) - half_of(worker),
            sequences=worker.slots or 0,
            budget=worker.prefill_budget or 0,
        ),
    )


def _deployment(worker: WorkerConfig, launch: LaunchConfig) -> "Deployment":
    from diplex_core.model import catalogue
    from diplex_core.plan.deployment import deployment_of

    count = _span(worker, launch)
    return deployment_of(
        worker.model.profile,
        gpu=worker.gpu,
        pattern=worker.pattern,
        weights=worker.model.weights or ("nvfp4" if catalogue.gpu(worker.gpu).flops_fp4 else "fp8"),
        kv_cache=worker.model.kv_cache or "fp8",
        count=count,
        tp=count,
    )


def _span(worker: WorkerConfig, launch: LaunchConfig) -> int:
    """GPUs of the package."""
    paired = worker.gpu in ("h100", "h200") and worker.pattern in _APART
    return len(launch.devices) or (2 if paired else 1)


def half_of(worker: WorkerConfig) -> int:
    """Which of the package's engines it is."""
    return worker.dies[0] if worker.pattern is Pattern.B else 0


def _wanted(worker: WorkerConfig, launch: LaunchConfig, placement: str | None, ranks: int) -> "Wanted | None":
    from diplex_core.plan.recipe_ways import Way
    from diplex_workers.launch.placement import Wanted

    if placement is None:
        return None
    pipes = launch.env.get(PIPES) or os.environ.get(PIPES, "")
    return Wanted(worker.pattern, Way(placement), ranks, half_of(worker), launch.devices, pipes)


def gap_of(worker: WorkerConfig, rules: Rules | None) -> Seconds | None:
    """The tightest time per token of its tiers; `None`: one promises none, so it is no latency worker."""
    if rules is None:
        return None
    names = worker.tiers or [name for name, tier in rules.tiers.items() if worker.pattern in tier.patterns]
    gaps = [rules.tiers[name].promise_for(worker.model.name).tpot_p95 for name in names]
    said = [gap for gap in gaps if gap is not None]
    return min(said) if said and len(said) == len(gaps) else None
