"""From a plain tree to a `Config`: every fault is found in one run, or none is left."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from diplex_core.config.crosschecks import Tree, crosschecks, shared_ports, shared_servers, shares
from diplex_core.config.faults import ConfigErrors, Fault, Path
from diplex_core.config.keys import file
from diplex_core.config.values import (
    METRICS_ABOVE,
    AttachConfig,
    Config,
    Draft,
    EngineConfig,
    LaunchConfig,
    LlamaCppConfig,
    ModelConfig,
    RestConfig,
    RouterConfig,
    SimConfig,
    TrtLlmConfig,
    WorkerConfig,
)
from diplex_core.placement.book import OWN, Book
from diplex_core.words import Pattern, Promise, Reserve, Rules, Target, Tenant, Tier, WhenLate

_ENGINES: Mapping[str, type[SimConfig] | type[LlamaCppConfig] | type[AttachConfig] | type[TrtLlmConfig]] = {
    engine.kind: engine for engine in (SimConfig, LlamaCppConfig, AttachConfig, TrtLlmConfig)
}


KeyFiles: TypeAlias = Mapping[str, str | Fault]
"""By tenant: the key that its `api_key_file` holds, or what is wrong with that file."""


def build(
    tree: object,
    environment: Mapping[str, str] | None = None,
    key_files: KeyFiles | None = None,
    book: Book = OWN,
) -> Config:
    """Check a configuration and turn it into values.

    Args:
        tree: dicts, lists and scalars, as a YAML file gives them.
        environment: where tenants' keys are looked up. `None`: nobody needs them, tenants have no key.
        key_files: what their key files hold. `None`: likewise.
        book: the placement rules that tiers may name.
    Raises:
        ConfigErrors: what is wrong with it, all of it.
    """
    faults: list[Fault] = []
    checked = file(book).check(tree, (), faults)
    if checked is not None:
        found = tuple(faults)
        faults += (
            fault for fault in crosschecks(checked, book) if not any(_of_one(fault, one) for one in found)
        )
        faults += _keyless(checked, environment, key_files)
    if checked is None or faults:
        raise ConfigErrors(faults)
    config = _config(checked, environment, key_files)
    if late := [*shared_ports(config), *shared_servers(config), *shares(config)]:
        raise ConfigErrors(late)
    return config


def _of_one(fault: Fault, other: Fault) -> bool:
    """Whether one of two faults lies at, or inside, the other's key: a wrong value is not also missing."""
    return all(mine == its for mine, its in zip(fault.path, other.path, strict=False))


def _keyless(
    tree: Tree, environment: Mapping[str, str] | None, key_files: KeyFiles | None
) -> Iterator[Fault]:
    """Tenants whose key is not to be had, or is another's."""
    owner_of: dict[str, str] = {}
    for name, tenant in (tree["tenants"] or {}).items():
        key = _key(name, tenant, environment, key_files) if tenant else None
        if isinstance(key, Fault):
            yield key
        elif key and owner_of.setdefault(key, name) != name:
            word = "api_key_env" if tenant["api_key_env"] else "api_key_file"
            reason = f"{tenant[word]} holds the same key as {owner_of[key]}'s"
            yield Fault(("tenants", name, word), reason, mend="a key of its own")


def _key(
    name: str, tenant: Tree, environment: Mapping[str, str] | None, key_files: KeyFiles | None
) -> str | Fault | None:
    """A tenant's key, or why it is not to be had; `None`: nobody has looked for it."""
    variable = tenant["api_key_env"]
    if variable is None:
        return key_files.get(name) if key_files else None
    if environment is None:
        return None
    path: Path = ("tenants", name, "api_key_env")
    unset = Fault(path, f"the environment variable {variable} is not set", mend=f"export {variable}=…")
    return environment.get(variable) or unset


def _config(tree: Tree, environment: Mapping[str, str] | None, key_files: KeyFiles | None) -> Config:
    models, tiers = {name: _model(name, model) for name, model in tree["models"].items()}, tree["tiers"]
    router = RouterConfig(**tree["router"])
    rest = tree["rest"]
    return Config(
        models=MappingProxyType(models),
        workers=tuple(_workers(tree, models)),
        rules=Rules(
            models=frozenset(models),
            default_model=tree["default_model"] or next(iter(models)),
            tiers=MappingProxyType({name: _tier(name, tier) for name, tier in tiers.items()}),
            default_tier=tree["default_tier"] or next(iter(tiers)),
            tenants=tuple(
                _tenant(name, one, _key(name, one, environment, key_files))
                for name, one in (tree["tenants"] or {}).items()
            ),
            enforce_limits=tree["limits"]["enforce"],
        ),
        router=router,
        rest=RestConfig(rest["host"], rest["port"], rest["router"] or router.address, rest["processes"]),
        grants_key_env=tree["grants"]["key_env"],
        grants_key_file=tree["grants"]["key_file"],
    )


def _model(name: str, model: Tree) -> ModelConfig:
    return ModelConfig(name, **{key: value or "" for key, value in model.items()})


def _workers(tree: Tree, models: Mapping[str, ModelConfig]) -> Iterator[WorkerConfig]:
    for number, (name, package_name, dies, own) in enumerate(_engines_of(tree["packages"])):
        package, workers, url = tree["packages"][package_name], tree["workers"], own["url"]
        by_place = int(url.rpartition(":")[2]) if url else _nth_port(workers["first_port"], number)
        draft = package["draft"]
        yield WorkerConfig(
            name=name,
            package=package_name,
            gpu=package["gpu"],
            pattern=Pattern(package["pattern"]),
            dies=dies,
            model=models[own["model"]],
            engine=_engine(own["engine"]),
            host=package["host"] or workers["host"],
            port=own["port"] or by_place,
            tiers=tuple(own["tiers"] or ()),
            url=url,
            advertise=own["advertise"],
            draft=Draft(draft["model"] or "", draft["tokens"]) if draft else None,
            prefill_budget=package["prefill_budget"],
            slots=package["slots"],
            kv_blocks=package["kv_blocks"],
            block_tokens=package["block_tokens"],
            open=package["open"],
        )


def _engines_of(packages: Tree) -> Iterator[tuple[str, str, tuple[int, ...], Tree]]:
    """Each engine's worker, package, dies, and the keys that are its own or, left out, its package's."""
    for name, package in packages.items():
        if package["pattern"] == Pattern.B:
            for instance in package["instances"]:
                own = {key: package.get(key) if value is None else value for key, value in instance.items()}
                yield f"{name}.{own['die']}", name, (own["die"],), own
        else:
            yield name, name, () if package["gpu"] == "cpu" else (0, 1), package


def _nth_port(first: int, number: int) -> int:
    """Ports follow the file's order; every hundred of them is followed by their hundred metrics ports."""
    return first + number // METRICS_ABOVE * 2 * METRICS_ABOVE + number % METRICS_ABOVE


def _engine(engine: Mapping[str, Any]) -> EngineConfig:
    said: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in engine.items()
        if key != "kind"
    }
    if said.get("launch") is not None:
        said["launch"] = _launch(said["launch"])
    return _ENGINES[engine["kind"]](**said)


def _launch(launch: Tree) -> LaunchConfig:
    said = dict(launch)
    return LaunchConfig(
        env=MappingProxyType(said.pop("env") or {}),
        devices=tuple(said.pop("devices") or ()),
        ready_within=said.pop("ready_within_s"),
        silent=said.pop("silent_s"),
        drain=said.pop("drain_s"),
        **said,
    )


def _tier(name: str, tier: Tree) -> Tier:
    return Tier(
        name=name,
        patterns=tuple(map(Pattern, tier["patterns"])),
        promise=_promise(tier),
        max_output_tokens=tier["max_output_tokens"],
        priority=tier["priority"],
        reserve=Reserve(tier["reserve"]),
        expected_quantile=tier["expected_quantile"],
        preemptible=tier["preemptible"],
        max_queue=_seconds(tier["max_queue_ms"]),
        max_queue_requests=tier["max_queue_requests"],
        max_queue_blocks=tier["max_queue_blocks"],
        when_late=WhenLate(tier["when_late"]),
        degrade_to=tier["degrade_to"] or "",
        deadline=tier["deadline_s"],
        min_share=tier["min_share"],
        picker=tier["picker"],
        filters=None if tier["filters"] is None else tuple(tier["filters"]),
        scorers=MappingProxyType(
            {name: weight for name, weight in (tier["scorers"] or {}).items() if weight is not None}
        ),
        promises_by_model=MappingProxyType(
            {model: _promise(promise) for model, promise in (tier["models"] or {}).items()}
        ),
    )


def _promise(keys: Tree) -> Promise:
    ttft = keys["ttft_p95_ms"]
    target = Target(ttft["base"] / 1000, ttft["per_1k_prompt_tokens"] / 1000) if ttft else None
    return Promise(target, _seconds(keys["tpot_p95_ms"]))


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _tenant(name: str, tenant: Tree, key: str | Fault | None) -> Tenant:
    def some(key: str) -> frozenset[str] | None:
        return None if tenant[key] is None else frozenset(tenant[key])

    return Tenant(
        name=name,
        api_key=key if isinstance(key, str) else None,
        weight=tenant["weight"],
        max_tokens_per_minute=tenant["max_tokens_per_minute"],
        max_concurrent_blocks=tenant["max_concurrent_blocks"],
        isolate_prefixes=tenant["isolate_prefixes"],
        tiers=some("tiers"),
        packages=some("packages"),
    )
