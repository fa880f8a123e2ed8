"""From a worker's configuration to its engine, each kind's module loaded when it is asked for."""

import os
from typing import TYPE_CHECKING, Any, assert_never

from diplex.wire.status import Problem
from diplex_cli.failures import UsageError
from diplex_cli.launching import PIPES, gap_of, half_of, start_of, started
from diplex_core.config import AttachConfig, LlamaCppConfig, SimConfig, TrtLlmConfig, WorkerConfig
from diplex_core.words import Pattern, Rules

if TYPE_CHECKING:
    from diplex_workers.engines.engine import Engine
    from diplex_workers.launch.placement import Wanted


def engine_for(worker: WorkerConfig, rules: Rules | None = None) -> "Engine":
    """The engine that a worker runs.

    Args:
        rules: tiers and their promises, by which a server that is started here is sized; `None`: by pattern.
    Raises:
        Unplannable: a server that is started here cannot be so.
        WeightsMissing: it has none to load.
        UsageError: the key that its server asks for is not in the environment.
    """
    match worker.engine:
        case SimConfig():
            return _sim(worker, worker.engine)
        case LlamaCppConfig():
            return _llamacpp(worker, worker.engine)
        case AttachConfig():
            return _attach(worker, worker.engine, rules)
        case TrtLlmConfig():
            return _trtllm(worker, worker.engine, rules)
        case _:
            assert_never(worker.engine)


def _sim(worker: WorkerConfig, engine: SimConfig) -> "Engine":
    from diplex_workers.engines.sim import SimEngine, SimSettings

    return SimEngine(
        SimSettings(
            models=(worker.model.name,),
            calibration=engine.calibration,
            pattern=worker.pattern,
            gpu=worker.gpu,
            profile=worker.model.profile,
            time_scale=engine.time_scale,
            seed=engine.seed,
            **_said(
                weights=worker.model.weights or None,
                kv_cache=worker.model.kv_cache or None,
                prefill_budget=worker.prefill_budget,
                slots=worker.slots,
                capacity_blocks=worker.kv_blocks,
                block_tokens=worker.block_tokens,
                draft_model=worker.draft.model or None if worker.draft else None,
                draft_tokens=worker.draft.tokens if worker.draft else None,
            ),
        )
    )


def _llamacpp(worker: WorkerConfig, engine: LlamaCppConfig) -> "Engine":
    from diplex_workers.engines.llamacpp import LlamaCppEngine, LlamaCppSettings
    from diplex_workers.launch import weights

    weights.find(engine.weights)
    return LlamaCppEngine(
        LlamaCppSettings(
            model=worker.model.name,
            weights=engine.weights,
            **_said(
                context=engine.context,
                slots=worker.slots,
                threads=engine.threads,
                block_tokens=worker.block_tokens,
                prefill_chunk=worker.prefill_budget,
                niceness=engine.niceness,
            ),
        )
    )


def _attach(worker: WorkerConfig, engine: AttachConfig, rules: Rules | None) -> "Engine":
    from diplex_cli.readers import reader_for
    from diplex_workers.engines.attach import AttachEngine, AttachSettings

    start = start_of(worker, rules) if engine.launch is not None else None
    over_grpc = engine.api.endswith("-grpc")
    try:
        attached = AttachEngine(
            AttachSettings(
                model=worker.model.name,
                url=engine.url,
                api=engine.api,
                **_said(
                    upstream_model=engine.upstream_model,
                    api_key=_secret(worker, engine.api_key_env),
                    context=engine.context,
                    guard_blocks=engine.guard_blocks,
                    priorities=engine.priorities,
                    stall=engine.stall_s,
                    check_kv=engine.check_kv,
                    tokenizer=worker.model.tokenizer or None if over_grpc else None,
                    events=engine.events_url,
                    replay=engine.replay_url,
                    events_topic=engine.events_topic,
                    slots=worker.slots or (start.slots if start else None),
                    capacity_blocks=worker.kv_blocks,
                    block_tokens=worker.block_tokens,
                ),
            ),
            load=reader_for(worker.model.name) if over_grpc else None,
        )
    except Problem as problem:
        raise UsageError(problem.message) from problem
    return attached if start is None else started(attached, worker, start)


def _trtllm(worker: WorkerConfig, engine: TrtLlmConfig, rules: Rules | None) -> "Engine":
    from diplex_workers.engines.trtllm import TrtLlmEngine
    from diplex_workers.engines.trtllm_made import TrtLlmSettings
    from diplex_workers.launch.seating import Seating

    wanted = _seats(worker, engine)
    try:
        return TrtLlmEngine(
            TrtLlmSettings(
                model=worker.model.name,
                checkpoint=engine.checkpoint,
                pattern=worker.pattern,
                gpu=worker.gpu,
                profile=worker.model.profile,
                weights=worker.model.weights,
                kv_cache=worker.model.kv_cache,
                **_sized(worker, engine, rules),
                **_said(
                    draft_checkpoint=engine.draft_checkpoint,
                    tensor_parallel=engine.tensor_parallel,
                    context=engine.context,
                    kv_share=engine.kv_share,
                    guard_blocks=engine.guard_blocks,
                    capacity_blocks=worker.kv_blocks,
                    block_tokens=worker.block_tokens,
                    draft_tokens=worker.draft.tokens if worker.draft else None,
                ),
            ),
            place=Seating(wanted) if wanted else None,
        )
    except ValueError as error:
        raise UsageError(f"packages.{worker.package}: {error}") from error


def _sized(worker: WorkerConfig, engine: TrtLlmConfig, rules: Rules | None) -> dict[str, Any]:
    """Running sequences and the prefill budget: as configured, else as the planner sizes such a worker, small
    for latency (its tiers promise a time per token, or its pattern is C or D); nothing where it knows no such
    hardware or model."""
    from diplex_core.plan.deployment import deployment_of
    from diplex_core.plan.recipe_sizes import GAP, Serves, sizes_of

    model, gap = worker.model, gap_of(worker, rules)
    quick = gap is not None or (rules is None and worker.pattern in (Pattern.C, Pattern.D))
    said = _said(slots=worker.slots, prefill_budget=worker.prefill_budget)
    try:
        deployment = deployment_of(
            model.profile,
            gpu=worker.gpu,
            pattern=worker.pattern,
            weights=model.weights,
            kv_cache=model.kv_cache,
            count=_span(worker, engine),
            tp=_span(worker, engine),
        )
        sizes = sizes_of(deployment, Serves.LATENCY if quick else Serves.THROUGHPUT, gap=gap or GAP)
    except ValueError:  # not in the catalogue, or not to be deployed so
        return said
    return {"slots": sizes.sequences, "prefill_budget": sizes.prefill_budget} | said


def _span(worker: WorkerConfig, engine: TrtLlmConfig) -> int:
    """GPUs of the package: two of Hopper's play the dies where the pattern tells them apart."""
    paired = worker.gpu in ("h100", "h200") and worker.pattern in (Pattern.B, Pattern.C, Pattern.D)
    return max(engine.tensor_parallel or 1, 2 if paired else 1)


def _seats(worker: WorkerConfig, engine: TrtLlmConfig) -> "Wanted | None":
    """Its devices; `None`: whatever its environment shows."""
    from diplex_core.plan.recipe_ways import Way
    from diplex_workers.launch.placement import Wanted

    if engine.placement is None:
        return None
    ranks = engine.tensor_parallel or (2 if worker.pattern is Pattern.C else 1)
    pipes = os.environ.get(PIPES, "")
    return Wanted(worker.pattern, Way(engine.placement), ranks, half_of(worker), engine.devices or (), pipes)


def _said(**settings: Any) -> dict[str, Any]:
    """Only what the configuration says: the rest is the engine's own default."""
    return {name: value for name, value in settings.items() if value is not None}


def _secret(worker: WorkerConfig, name: str | None) -> str | None:
    if name is None:
        return None
    if not (secret := os.environ.get(name)):
        raise UsageError(
            f"packages.{worker.package}.engine.api_key_env: the environment variable {name} is not set. "
            f"Mend: export {name}=…"
        )
    return secret
