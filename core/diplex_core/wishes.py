"""What an ask means under the rules in force: tenant, tier, cap and count, or why they do not know it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from diplex_core.events import Ask, Refusal, Why
from diplex_core.placement.rules import Wish
from diplex_core.words import BlockHash, Rules, Tenant, Tier, packed, salted


def wish_of(ask: Ask, rules: Rules) -> Wish | Refusal:
    """The ask in the words of the rules; `max_tokens` not stated or above the tier's cap becomes the cap."""
    tenant = rules.tenant_of(ask.api_key)
    if tenant is None:
        return Refusal(Why.UNKNOWN_KEY, "the API key belongs to no tenant. Mend: send a configured key")
    model = ask.model or rules.default_model
    if model not in rules.models:
        return _unknown(Why.UNKNOWN_MODEL, "model", model, sorted(rules.models))
    tier = rules.tier_named(ask.tier)
    if tier is None:
        return _unknown(Why.UNKNOWN_TIER, "tier", ask.tier, rules.tiers)
    if tenant.tiers is not None and tier.name not in tenant.tiers:
        allowed = ", ".join(sorted(tenant.tiers))
        message = f"tenant {tenant.name} may use tiers {allowed}, not {tier.name}"
        return Refusal(Why.TIER_NOT_ALLOWED, message)
    return _counted(ask, model, tier, tenant)


def asks_the_same(ask: Ask, first: Ask) -> bool:
    """Whether a request that is asked for once more names the model, tier and key that it first did: then it
    keeps the rules that it was first asked under."""
    return (ask.model, ask.tier, ask.api_key) == (first.model, first.tier, first.api_key)


def wish_again(ask: Ask, wish: Wish) -> Wish | Refusal:
    """The wish of a request that is asked for once more, in the tier and for the tenant that it was given."""
    counted = _counted(ask, wish.model, wish.tier, wish.tenant)
    return counted if isinstance(counted, Refusal) else replace(counted, degraded_from=wish.degraded_from)


def _counted(ask: Ask, model: str, tier: Tier, tenant: Tenant) -> Wish | Refusal:
    """What an earlier attempt produced counts as prompt, and no longer as output."""
    if ask.choices < 1 or ask.prompt_tokens < 1:
        message = f"needs at least one prompt token and one choice, got {ask.prompt_tokens} and {ask.choices}"
        return Refusal(Why.REQUEST_INVALID, message)
    produced = ask.again.produced_tokens if ask.again else 0
    cap = min(ask.max_tokens or tier.max_output_tokens, tier.max_output_tokens)
    # Where nothing was produced these are the ask's own numbers: a million of them need no second copy.
    return Wish(
        model,
        tier,
        tenant,
        prompt=ask.prompt_tokens + produced if produced else ask.prompt_tokens,
        max_tokens=cap if cap > 0 and not produced else max(1, cap - produced),
        stated=ask.max_tokens > 0,
        choices=ask.choices,
        produced=produced,
        block_hashes=_known_by(ask.block_hashes, tenant.salt),
        hash_block_tokens=ask.hash_block_tokens,
        least_blocks=ask.again.needed_blocks if ask.again else 0,
        avoid=ask.again.worker if ask.again else "",
        request_id=ask.request_id,
    )


def _known_by(blocks: Sequence[BlockHash], salt: int) -> Sequence[BlockHash]:
    """The names under which workers keep these blocks of a tenant's."""
    return packed([salted(block, salt) for block in blocks]) if salt else blocks


def _unknown(why: Why, what: str, name: str, known: Iterable[str]) -> Refusal:
    return Refusal(why, f"unknown {what} '{name}'; known: {', '.join(known)}", numbers={what: name})
