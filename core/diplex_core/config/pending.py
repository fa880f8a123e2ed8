"""What a configuration says and the running code does not do yet. Said by `config check` and at each start.

When a part learns to act on a word, its line goes from here.
"""

from collections.abc import Iterator

from diplex_core.config.faults import Fault
from diplex_core.config.values import Config, SimConfig, WorkerConfig
from diplex_core.words import Pattern, Reserve, Tier, WhenLate

SIMULATED_PATTERNS = (Pattern.A, Pattern.C)
CHAPTER_MODEL = {"profile": "qwen2.5-72b", "weights": "mxfp4-mixed", "kv_cache": "mxfp8"}


def cannot_run(worker: WorkerConfig) -> str | None:
    """Why no worker can be started for it yet; `None`: one can."""
    if not isinstance(worker.engine, SimConfig):
        return None
    if worker.pattern not in SIMULATED_PATTERNS:
        return f"pattern {worker.pattern} is not simulated yet (A and C are)"
    if worker.engine.calibration != "chapter":
        return f"calibration {worker.engine.calibration} is not there yet (chapter is)"
    return None


def not_acted_on(config: Config) -> Iterator[Fault]:
    """Everything in a configuration that has no effect yet, or has one that may surprise."""
    for worker in config.workers:
        if reason := cannot_run(worker):
            yield Fault(
                ("packages", worker.package), f"not yet acted on: {worker.name} is left out: {reason}"
            )
        elif isinstance(worker.engine, SimConfig):
            yield from _not_the_chapters(config, worker)
    for tier in config.rules.tiers.values():
        for key, what in _of_tier(tier):
            yield Fault(("tiers", tier.name, key), f"not yet acted on: {what}")
        for model in tier.promises_by_model.keys() - config.models.keys():
            yield Fault(("tiers", tier.name, "models", model), "is not one of models: never used")
    for tenant in config.rules.tenants:
        if tenant.max_tokens_per_minute is not None:
            path = ("tenants", tenant.name, "max_tokens_per_minute")
            yield Fault(path, "not yet acted on: nothing is counted against a quota")
        if tenant.weight != 1:
            path = ("tenants", tenant.name, "weight")
            yield Fault(path, "not yet acted on: requests are served in the order of their arrival")
    served = {worker.model for worker in config.workers}
    for model in config.models:
        if model not in served:
            yield Fault(("models", model), "no package serves it")


def _of_tier(tier: Tier) -> Iterator[tuple[str, str]]:
    if tier.reserve is Reserve.EXPECTED:
        yield "reserve", "requests hold all that they may need (reserve: full)"
    if tier.preemptible:
        yield "preemptible", "no request gives way to another"
    if tier.when_late is not WhenLate.WAIT:
        yield (
            "when_late",
            f"a request waits, {'at most max_queue_ms' if tier.max_queue else 'however late it is'}",
        )
    if tier.deadline is not None:
        yield "deadline_s", "a request's own timeout is"


def _not_the_chapters(config: Config, worker: WorkerConfig) -> Iterator[Fault]:
    """The chapter's table holds one model in one format; another one is simulated with its figures."""
    model = config.models[worker.model]
    for key, of_chapter in CHAPTER_MODEL.items():
        said = getattr(model, key)
        if said and said != of_chapter:
            yield Fault(
                ("models", model.name, key),
                f"not yet acted on: {worker.name} is simulated with the chapter's figures, of {of_chapter}",
            )
