"""What a right configuration says in vain, or may surprise with: told by `config check` and at each start."""

from collections.abc import Iterator

from diplex_core.config.faults import Fault, Path
from diplex_core.config.values import EVERYWHERE, AttachConfig, Config, SimConfig, TrtLlmConfig, WorkerConfig
from diplex_core.model import chapter
from diplex_core.model.steps import memory_of, step_times
from diplex_core.words import Pattern, Reserve, Tier, WhenLate


def cannot_run(worker: WorkerConfig) -> str | None:
    """Why no worker can be started for it, with the mend; `None`: one can."""
    if not isinstance(worker.engine, SimConfig):
        return None
    model, draft, (_, _, weights, kv_cache) = worker.model, worker.draft, chapter.calibrated_for()
    about = {
        "gpu": worker.gpu,
        "profile": model.profile,
        "weights": model.weights or weights,
        "kv_cache": model.kv_cache or kv_cache,
    }
    calibration, ahead = worker.engine.calibration, draft.tokens if draft else None
    try:
        step_times(worker.pattern, calibration=calibration, draft_tokens=ahead, **about)
        memory = memory_of(worker.pattern, draft=draft.model or None if draft else None, **about)
        if worker.kv_blocks is None:
            memory.capacity_blocks(block_tokens=1)
    except ValueError as why:
        return str(why)
    return None


def remarks(config: Config) -> Iterator[Fault]:
    """Whatever in a right configuration has no effect, or one that may surprise."""
    for worker in config.workers:
        yield from _of_worker(worker)
    for tier in config.rules.tiers.values():
        if tier.preemptible and tier.reserve is Reserve.FULL:
            reason = "nobody gives way: a request that holds all it may need is never stopped for another"
            yield Fault(("tiers", tier.name, "preemptible"), reason, mend="reserve: expected")
        if tier.reserve is Reserve.EXPECTED and all(map(_holds_in_full, _serving(tier, config))):
            reason = "requests hold all that they may need: its servers cannot go on behind given output"
            yield Fault(("tiers", tier.name, "reserve"), reason, mend="reserve: full")
        promises = (tier.promise, *tier.promises_by_model.values())
        if tier.when_late is not WhenLate.WAIT and all(promise.ttft_p95 is None for promise in promises):
            reason = "nothing is ever late: the tier promises no first token"
            yield Fault(("tiers", tier.name, "when_late"), reason, mend="ttft_p95_ms: 1000")
        for model in tier.promises_by_model.keys() - config.models.keys():
            yield Fault(("tiers", tier.name, "models", model), "is not one of models: never used")
    served = {worker.model.name for worker in config.workers}
    for model in config.models:
        if model not in served:
            yield Fault(("models", model), "no package serves it")


def _serving(tier: Tier, config: Config) -> Iterator[WorkerConfig]:
    return (
        worker
        for worker in config.workers
        if worker.pattern in tier.patterns and tier.name in (worker.tiers or (tier.name,))
    )


def _holds_in_full(worker: WorkerConfig) -> bool:
    return isinstance(worker.engine, AttachConfig | TrtLlmConfig)


def _of_worker(worker: WorkerConfig) -> Iterator[Fault]:
    path: Path = ("packages", worker.package)
    if reason := cannot_run(worker):
        yield Fault(path, f"{worker.name} is left out: {reason}")
    if worker.pattern is Pattern.A_EAGLE and worker.draft and worker.draft.model:
        yield Fault((*path, "draft", "model"), "pattern A+EAGLE drafts with a head of its own: never used")
    if worker.host in EVERYWHERE and worker.spawned and not worker.advertise:
        told = f"clients on other machines are told {worker.address}, which is their own"
        yield Fault(path, told, mend=f"advertise: this-machine:{worker.port}")
