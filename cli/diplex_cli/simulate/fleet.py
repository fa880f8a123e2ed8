"""The fleet that a configuration describes, as far as it can be simulated; and larger ones of its kind."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, cycle, islice

from diplex_cli.failures import UsageError
from diplex_core.config import Config, SimConfig, cannot_run
from diplex_core.events import WorkerFacts
from diplex_core.sim.facts import facts_of
from diplex_core.words import Rules, Tenant, Tier, Tokens


@dataclass(frozen=True, slots=True)
class Fleet:
    """Simulated workers and the rules that they serve by. `left_out`: workers that are not there, and why."""

    rules: Rules
    workers: tuple[WorkerFacts, ...]
    left_out: Mapping[str, str]

    @property
    def packages(self) -> int:
        return len({worker.package for worker in self.workers})

    @property
    def time_scales(self) -> tuple[float, ...]:
        """Of workers whose simulated time runs faster or slower than real time."""
        return tuple(sorted({worker.time_scale for worker in self.workers} - {1.0}))

    def model(self, asked: str) -> str:
        """The model that requests ask for: the configuration's default one where none is named.

        Raises:
            UsageError: no worker here serves it.
        """
        name = asked or self.rules.default_model
        served = sorted({model for worker in self.workers for model in worker.models})
        if name not in served:
            mend = f"--model {served[0]}" if len(served) == 1 else f"one of {', '.join(served)}"
            raise UsageError(f"--model: no simulated worker serves '{name}'. Mend: {mend}")
        return name

    def tiers(self, shares: Mapping[str, float]) -> dict[str, Tier]:
        """Those that are asked for, in the configuration's order. Empty `shares`: the default one.

        Raises:
            UsageError: the configuration knows no such tier.
        """
        known = self.rules.tiers
        asked = shares or {self.rules.default_tier: 1.0}
        if unknown := [name for name in asked if name not in known]:
            raise UsageError(
                f"--tiers: the configuration has no tier '{unknown[0]}'. Mend: one of {', '.join(known)}"
            )
        return {name: tier for name, tier in known.items() if name in asked}

    def serving(self, model: str, tiers: Mapping[str, Tier]) -> list[WorkerFacts]:
        """Workers that may take requests of this model in one of these tiers."""
        return [
            worker
            for worker in self.workers
            if model in worker.models
            and any(
                worker.pattern in tier.patterns and (not worker.tiers or name in worker.tiers)
                for name, tier in tiers.items()
            )
        ]

    def block_tokens(self, model: str) -> Tokens:
        """Tokens of a KV block on every worker that serves the model; 0: they differ."""
        sizes = {worker.block_tokens for worker in self.workers if model in worker.models}
        return sizes.pop() if len(sizes) == 1 else 0


def fleet_of(config: Config, packages: int | None = None) -> Fleet:
    """The simulated part of a configuration.

    Args:
        packages: so many, made of copies of those that there are, in turn, under names of their own.
    Raises:
        UsageError: nothing in it is simulated, it has more packages than that, or one has no figures.
    """
    left_out = dict(_left_out(config))
    simulated = [worker for worker in config.workers if worker.name not in left_out]
    if not simulated:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise UsageError(
            f"no worker of it is simulated ({reasons}). Mend: engine: {{kind: sim, calibration: chapter}}"
        )
    try:
        facts = [facts_of(worker) for worker in simulated]
    except ValueError as error:
        raise UsageError(str(error)) from None
    copies = _copies(list(dict.fromkeys(one.package for one in facts)), packages)
    by_package = {name: [one for one in facts if one.package == name] for name in copies.values()}
    workers = tuple(_as(one, name) for name, original in copies.items() for one in by_package[original])
    return Fleet(_widened(config.rules, copies), workers, left_out)


def _left_out(config: Config) -> Iterator[tuple[str, str]]:
    for worker in config.workers:
        if reason := cannot_run(worker):
            yield worker.name, reason
        elif not isinstance(worker.engine, SimConfig):
            yield worker.name, f"its engine, {worker.engine.kind}, is a real one"


def _copies(originals: Sequence[str], packages: int | None) -> dict[str, str]:
    """Names of packages, and of which one each is a copy: `pkg0` of itself, `pkg0-2` of `pkg0`."""
    wanted = packages or len(originals)
    if wanted < len(originals):
        raise UsageError(
            f"--packages {wanted}: the configuration has {len(originals)} simulated ones. "
            f"Mend: --packages {len(originals)}, or a configuration with fewer"
        )
    copies = {name: name for name in originals}
    names = (f"{name}-{number}" for number in count(2) for name in originals)
    for name, original in islice(zip(names, cycle(originals), strict=False), wanted * 2):
        if len(copies) == wanted:
            break
        copies.setdefault(name, original)
    return copies


def _as(facts: WorkerFacts, package: str) -> WorkerFacts:
    """The same worker on another package: `pkg2.0` becomes `pkg2-2.0`."""
    return replace(facts, name=package + facts.name.removeprefix(facts.package), package=package)


def _widened(rules: Rules, copies: Mapping[str, str]) -> Rules:
    """A tenant that is bound to a package may use its copies, too."""

    def widened(tenant: Tenant) -> Tenant:
        bound = tenant.packages
        if bound is None:
            return tenant
        return replace(tenant, packages=frozenset(name for name, of in copies.items() if of in bound))

    return replace(rules, tenants=tuple(map(widened, rules.tenants)))
