"""What a simulated worker says of itself, from its configuration alone: for fleets in virtual time."""

from diplex_core.config.values import SimConfig, WorkerConfig
from diplex_core.events import WorkerFacts
from diplex_core.model import catalogue, chapter
from diplex_core.model.steps import LATENCY_PREFILL_BUDGET, memory_of, step_times
from diplex_core.words import Pattern, Tokens

BLOCK_TOKENS: Tokens = 32


def facts_of(worker: WorkerConfig) -> WorkerFacts:
    """The facts that the worker's simulated engine would tell.

    Raises:
        ValueError: its engine is not a simulated one, or there are no figures for it.
    """
    if not isinstance(worker.engine, SimConfig):
        raise ValueError(f"{worker.name} runs the engine {worker.engine.kind}; only sim runs in virtual time")
    gpu, profile, weights, kv_cache = chapter.calibrated_for()
    about = {
        "gpu": worker.gpu or gpu,
        "profile": worker.model.profile or profile,
        "weights": worker.model.weights or weights,
        "kv_cache": worker.model.kv_cache or kv_cache,
    }
    draft = worker.draft
    times = step_times(
        worker.pattern,
        calibration=worker.engine.calibration,
        draft_tokens=draft.tokens if draft else None,
        **about,
    )
    memory = memory_of(worker.pattern, draft=(draft.model or None) if draft else None, **about)
    block_tokens = worker.block_tokens or BLOCK_TOKENS
    latency = LATENCY_PREFILL_BUDGET if worker.pattern is Pattern.C else 0
    return WorkerFacts(
        name=worker.name,
        package=worker.package,
        pattern=worker.pattern,
        models=frozenset({worker.model.name}),
        boot=1,
        address=worker.address,
        block_tokens=block_tokens,
        capacity_blocks=worker.kv_blocks or memory.capacity_blocks(block_tokens),
        capacity_slots=worker.slots or times.largest_batch,
        context=catalogue.model(about["profile"]).context,
        can_grow=True,
        reports_residency=True,
        tiers=frozenset(worker.tiers),
        engine=worker.engine.kind,
        simulated=True,
        calibration=times.calibration,
        time_scale=worker.engine.time_scale,
        prefill_budget=worker.prefill_budget or latency,
        draft_tokens=times.draft_tokens,
        gpu=about["gpu"],
        profile=about["profile"],
        weights=about["weights"],
        kv_cache=about["kv_cache"],
    )
