"""What a worker says of itself: its placement from the settings, the rest from its engine."""

from collections.abc import Mapping

from diplex.v1 import generation_pb2 as pb
from diplex_workers.bound import LearnedBound
from diplex_workers.engines.engine import Facts
from diplex_workers.settings import WorkerSettings


def worker_info(
    settings: WorkerSettings,
    boot: int,
    address: str,
    facts: Facts | None,
    bounds: Mapping[str, LearnedBound],
) -> pb.WorkerInfo:
    """The worker in the wire's words. Before its engine was ever ready it serves no model."""
    info = pb.WorkerInfo(
        name=settings.name,
        package=settings.package,
        pattern=settings.pattern,
        gpu=settings.gpu,
        dies=settings.dies,
        tiers=settings.tiers,
        boot=boot,
        address=address,
    )
    if facts is None:
        return info
    for model in facts.models:
        info.models.add(
            name=model.name,
            context=facts.context,
            simulated=facts.simulated,
            has_chat_template=model.has_chat_template,
            tokenizer_hash=model.tokenizer_hash,
            bound=bounds[model.name].figures,
            block_tokens=facts.block_tokens,
            workers=1,
        )
    info.engine = facts.kind
    info.engine_version = facts.version
    info.simulated = facts.simulated
    info.calibration = facts.calibration
    info.block_tokens = facts.block_tokens
    info.capacity_blocks = facts.capacity_blocks
    info.capacity_slots = facts.capacity_slots
    info.guard_blocks = facts.guard_blocks
    info.context = facts.context
    info.can_resume = facts.can_resume
    info.can_grow = facts.can_grow and facts.can_resume
    info.reports_residency = facts.keeps_prefixes or facts.tells_prefixes
    info.time_scale = facts.time_scale
    info.prefill_budget_tokens = facts.prefill_budget_tokens
    info.draft_tokens = facts.draft_tokens
    info.profile, info.weights, info.kv_cache = facts.profile, facts.weights, facts.kv_cache
    return info
