"""What a configuration says and diplex does not do yet: said by `config check` and at each start.

When a part learns to act on a word, its line goes from here.
"""

from collections.abc import Iterator

from diplex_core.config.faults import Fault, Path
from diplex_core.config.values import EVERYWHERE, Config, SimConfig, WorkerConfig
from diplex_core.model import chapter
from diplex_core.words import Pattern, Reserve, Tenant, Tier, WhenLate

SIMULATED_PATTERNS = (Pattern.A, Pattern.C)


def cannot_run(worker: WorkerConfig) -> str | None:
    """Why no worker can be started for it yet; `None`: one can."""
    if not isinstance(worker.engine, SimConfig):
        return None
    if worker.pattern not in SIMULATED_PATTERNS:
        return f"pattern {worker.pattern} is not simulated yet, A and C are"
    if worker.engine.calibration != "chapter":
        return f"calibration {worker.engine.calibration} is not there yet, chapter is"
    _, *about = chapter.calibrated_for()
    model = worker.model
    for said, known in zip((model.profile, model.weights, model.kv_cache), about, strict=True):
        if said and said != known:
            return f"the chapter has figures of {', '.join(about)}, not of {said}"
    return None


def remarks(config: Config) -> Iterator[Fault]:
    """Whatever in a right configuration has no effect, or one that may surprise."""
    for worker in config.workers:
        yield from _of_worker(worker)
    for tier in config.rules.tiers.values():
        for key, what in _of_tier(tier):
            yield Fault(("tiers", tier.name, key), f"not yet acted on: {what}")
        for model in tier.promises_by_model.keys() - config.models.keys():
            yield Fault(("tiers", tier.name, "models", model), "is not one of models: never used")
    for tenant in config.rules.tenants:
        for key, what in _of_tenant(tenant):
            yield Fault(("tenants", tenant.name, key), f"not yet acted on: {what}")
    served = {worker.model.name for worker in config.workers}
    for model in config.models:
        if model not in served:
            yield Fault(("models", model), "no package serves it")


def _of_worker(worker: WorkerConfig) -> Iterator[Fault]:
    path: Path = ("packages", worker.package)
    if reason := cannot_run(worker):
        yield Fault(path, f"not yet acted on: {worker.name} is left out: {reason}")
    if worker.host in EVERYWHERE and worker.spawned and not worker.advertise:
        told = f"clients on other machines are told {worker.address}, which is their own"
        yield Fault(path, told, mend=f"advertise: this-machine:{worker.port}")


def _of_tier(tier: Tier) -> Iterator[tuple[str, str]]:
    if tier.reserve is Reserve.EXPECTED:
        yield "reserve", "requests hold all that they may need, as with reserve: full"
    if tier.preemptible:
        yield "preemptible", "no request gives way to another"
    if tier.when_late is WhenLate.DEGRADE:
        yield "when_late", "a late request is not moved to another tier"
    if tier.when_late is WhenLate.REJECT and tier.max_queue is None:
        yield "when_late", "only max_queue_ms, which is missing, ends a wait"
    if tier.deadline is not None:
        yield "deadline_s", "only a request's own timeout ends it"


def _of_tenant(tenant: Tenant) -> Iterator[tuple[str, str]]:
    if tenant.max_tokens_per_minute is not None:
        yield "max_tokens_per_minute", "nothing is counted against a quota"
    if tenant.weight != 1:
        yield "weight", "requests are served in the order of their arrival"
