"""What is another in a configuration that was read again, in words: what takes effect now, and what later."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from diplex_core.config.values import Config, ModelConfig, WorkerConfig
from diplex_core.words import Rules

_LIMITS = {True: "are enforced", False: "are not enforced"}


def of_rules(old: Rules, new: Rules) -> str:
    """What new rules change, in one line; "": nothing.

    >>> from diplex_core.words import Pattern, Tier
    >>> def rules(**tiers): return Rules(frozenset({"m"}), "m", tiers, "bulk")
    >>> before = rules(bulk=Tier("bulk", (Pattern.A,)), fast=Tier("fast", (Pattern.C,)))
    >>> of_rules(before, rules(bulk=Tier("bulk", (Pattern.A,), priority=1), slow=Tier("slow", (Pattern.A,))))
    'tiers bulk changed, slow added, fast removed'
    """
    was, now = ({tenant.name: tenant for tenant in rules.tenants} for rules in (old, new))
    words = [
        ("models", ", ".join(_changes(dict.fromkeys(old.models), dict.fromkeys(new.models)))),
        ("tiers", ", ".join(_changes(old.tiers, new.tiers))),
        ("tenants", ", ".join(_changes(was, now))),
        ("default_model is", "" if old.default_model == new.default_model else new.default_model),
        ("limits", "" if old.enforce_limits == new.enforce_limits else _LIMITS[new.enforce_limits]),
        ("default_tier is", "" if old.default_tier == new.default_tier else new.default_tier),
    ]
    return "; ".join(f"{what} {changes}" for what, changes in words if changes)


def beside_rules(old: Config, new: Config) -> str:
    """What a new configuration changes that no running process takes up, in one line; "": nothing.

    Those are the packages, what is known of the models that were there before, where router and shim listen,
    and where the key of grants comes from. That a model is there at all is a rule.
    """
    both = old.models.keys() & new.models.keys()
    was, now = (
        {
            **{f"models.{name}": config.models[name] for name in sorted(both)},
            **{f"packages.{name}": workers for name, workers in _packages(config).items()},
            "router": config.router,
            "rest": config.rest,
            "grants": (config.grants_key_env, config.grants_key_file),
        }
        for config in (old, new)
    )
    return ", ".join(_changes(was, now))


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """The names whose values differ, were added or removed, each group with its verb."""
    groups = {
        "changed": [name for name in new if name in old and old[name] != new[name]],
        "added": [name for name in new if name not in old],
        "removed": [name for name in old if name not in new],
    }
    return (f"{', '.join(names)} {verb}" for verb, names in groups.items() if names)


def _packages(config: Config) -> dict[str, tuple[WorkerConfig, ...]]:
    """The workers of each package, without what `models` says of their model."""
    packages: dict[str, tuple[WorkerConfig, ...]] = {}
    for worker in config.workers:
        bare = replace(worker, model=ModelConfig(worker.model.name))
        packages[worker.package] = (*packages.get(worker.package, ()), bare)
    return packages
