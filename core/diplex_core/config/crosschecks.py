"""Checks that compare one key with another. Each is a few lines over the checked tree.

A key whose own value was wrong is `None` here and is passed over: its fault is noted already.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from diplex_core.config.faults import Fault, Path, unknown
from diplex_core.config.values import EVERYWHERE, METRICS_ABOVE, AttachConfig, Config
from diplex_core.model import catalogue
from diplex_core.placement.book import Book, Kind
from diplex_core.words import Reserve

Tree: TypeAlias = Mapping[str, Any]

MOST_SHARES: Final = 0.9
"""Of what is granted, so much at most goes by least shares; the rest by priority."""

# These mean the default tier in every request.
RESERVED_TIERS = frozenset({"auto", "default"})


def crosschecks(tree: Tree, book: Book) -> Iterator[Fault]:
    """Everything that is wrong between the keys of a tree that `keys.file` has checked."""
    yield from _default(tree, "default_model", "models")
    yield from _default(tree, "default_tier", "tiers")
    for name in RESERVED_TIERS & _named(tree, "tiers").keys():
        yield Fault(("tiers", name), f"{name!r} means the default tier in requests", mend="another name")
    for name, tier in _named(tree, "tiers").items():
        if tier is not None:
            yield from _degrades(tree, name, tier)
            yield from _grows(name, tier)
            yield from _unusable_rules(name, tier, book)
    for name, package in _named(tree, "packages").items():
        if package is not None:
            yield from _package(tree, name, package)
    yield from _worker_names(tree)
    yield from _tenants(tree)
    if tree["grants"]["key_env"] and tree["grants"]["key_file"]:
        yield Fault(("grants", "key_file"), "stands beside key_env", mend="one of the two")


def _named(tree: Tree, key: str) -> dict[str, Any]:
    return tree[key] or {}


def _default(tree: Tree, key: str, of: str) -> Iterator[Fault]:
    names = _named(tree, of)
    if not names:
        return
    if tree[key] is None:
        if len(names) > 1:
            yield Fault(
                (key,), f"is missing, and there are {len(names)} {of}", mend=f"{key}: {next(iter(names))}"
            )
    elif tree[key] not in names:
        yield unknown((key,), f"one of {of}", tree[key], names)


def _degrades(tree: Tree, name: str, tier: Tree) -> Iterator[Fault]:
    """A late request goes down, never round in a circle."""
    tiers, to = _named(tree, "tiers"), tier["degrade_to"]
    if to is None:
        return
    path: Path = ("tiers", name, "degrade_to")
    if to not in tiers:
        yield unknown(path, "one of tiers", to, tiers)
    elif tiers[to] is not None and tiers[to]["priority"] >= tier["priority"]:
        lower = [other for other, keys in tiers.items() if keys and keys["priority"] < tier["priority"]]
        reason = f"tier {to} has priority {tiers[to]['priority']}, no lower than {name}'s {tier['priority']}"
        yield Fault(path, reason, mend=f"degrade_to: {lower[0]}" if lower else "a tier with a lower priority")


def _grows(name: str, tier: Tree) -> Iterator[Fault]:
    """Claims that grow get into each other's way: where none of them may give way, all wait for ever."""
    if tier["reserve"] == Reserve.EXPECTED and tier["preemptible"] is False:
        reason = "a request that grows must be able to give way"
        yield Fault(("tiers", name, "reserve"), reason, mend="preemptible: true, or reserve: full")


def _unusable_rules(name: str, tier: Tree, book: Book) -> Iterator[Fault]:
    """Rules of other packages that cannot be loaded are no matter until a tier names them."""
    named: list[tuple[Kind, str, Path]] = [
        *(("filter", word, ("filters", at)) for at, word in enumerate(tier["filters"] or ())),
        *(("scorer", word, ("scorers", word)) for word in tier["scorers"] or () if tier["scorers"][word]),
        ("picker", tier["picker"], ("picker",)),
    ]
    for kind, word, path in named:
        if (why := book.unusable.get((kind, word))) is not None:
            yield Fault(("tiers", name, *path), f"{kind} {word}: {why.reason}", why.mend)


def _package(tree: Tree, name: str, package: Tree) -> Iterator[Fault]:
    path: Path = ("packages", name)
    pattern, gpu, instances = package["pattern"], package["gpu"], package["instances"]
    if pattern == "B":
        yield from _instances(tree, path, package)
    else:
        if instances is not None:
            yield Fault(
                (*path, "instances"), f"only pattern B has instances, not {pattern}", mend="pattern: B"
            )
        yield from _worker(tree, path, package, package)
    if gpu == "cpu" and pattern not in ("A", None):
        yield Fault((*path, "pattern"), f"a CPU has no dies for pattern {pattern}", mend="pattern: A")
    draft, simulated = package["draft"], (package["engine"] or {}).get("kind") == "sim"
    profiles = catalogue.names("profiles/models")
    if pattern == "D" and (draft is None or draft["model"] is None):
        yield Fault(
            (*path, "draft"), "pattern D needs a draft model", mend="draft: {model: qwen2.5-7b, tokens: 5}"
        )
    elif pattern == "D" and simulated and draft["model"] not in profiles:
        yield unknown((*path, "draft", "model"), "a model's profile", draft["model"], profiles)
    if draft is not None and pattern in ("A", "B", "C"):
        yield Fault((*path, "draft"), f"pattern {pattern} does not speculate", mend="pattern: D, or no draft")


def _instances(tree: Tree, path: Path, package: Tree) -> Iterator[Fault]:
    instances = [one for one in package["instances"] or () if one is not None]
    if not instances:
        mend = "instances: [{die: 0, model: …}, {die: 1, model: …}]"
        yield Fault((*path, "instances"), "is missing: pattern B is one engine a die", mend)
    for key in ("model", "url", "port", "advertise"):
        if package[key] is not None:
            reason = f"in pattern B each instance has its own {key}"
            yield Fault((*path, key), reason, mend=f"{key} inside instances")
    for at, instance in enumerate(package["instances"] or ()):
        if instance is not None:
            yield from _worker(tree, (*path, "instances", at), instance, package)
    dies = [one["die"] for one in instances]
    if len(set(dies)) < len(dies):
        yield Fault((*path, "instances"), f"two instances on die {dies[0]}", mend="die: 0 and die: 1")


def _worker(tree: Tree, path: Path, worker: Tree, package: Tree) -> Iterator[Fault]:
    """What holds for each engine: its model, its tiers, and its engine against the package's GPU."""
    models, tiers, pattern, gpu = (
        _named(tree, "models"),
        _named(tree, "tiers"),
        package["pattern"],
        package["gpu"],
    )
    if worker["model"] is None:
        yield Fault((*path, "model"), "is missing", mend=f"model: {next(iter(models), '…')}")
    elif models and worker["model"] not in models:
        yield unknown((*path, "model"), "one of models", worker["model"], models)
    for at, tier in enumerate(worker["tiers"] or ()):
        if tiers and tier is not None and tier not in tiers:
            yield unknown((*path, "tiers", at), "one of tiers", tier, tiers)
        elif (allowed := (tiers.get(tier) or {}).get("patterns")) and pattern and pattern not in allowed:
            mend = f"tiers.{tier}.patterns: [{', '.join(filter(None, allowed))}, {pattern}]"
            yield Fault((*path, "tiers", at), f"tier {tier} does not allow pattern {pattern}", mend)
    engine = worker["engine"] or package["engine"]
    kind = engine["kind"] if engine else None
    if engine is None:
        yield Fault((*path, "engine"), "is missing", mend="engine: {kind: sim, calibration: chapter}")
    profile = (models.get(worker["model"]) or {"profile": "?"})["profile"]
    if kind == "sim" and not profile:
        mend = "profile: qwen2.5-72b"
        yield Fault(("models", worker["model"], "profile"), "is missing: a simulated engine needs it", mend)
    if kind == "sim" and gpu not in ("b200", None):
        yield Fault((*path, "gpu"), f"only a b200 can be simulated, not {gpu}", mend="gpu: b200")
    if kind == "attach" and (launch := engine["launch"]):
        yield from _launch(
            path, engine["api"], launch, gpu, (models.get(worker["model"]) or {}).get("profile")
        )
    if kind == "llamacpp" and gpu not in ("cpu", None):
        yield Fault((*path, "gpu"), f"the llamacpp engine computes on the CPU, not on {gpu}", mend="gpu: cpu")


def _launch(
    path: Path, api: str | None, launch: Tree, gpu: str | None, profile: str | None
) -> Iterator[Fault]:
    """What the command and the figures of a checkpoint's server come from."""
    at = (*path, "engine", "launch", "checkpoint")
    if not launch["checkpoint"]:
        return
    mend = "launch: {command: [program, word, …]}"
    if api not in ("vllm", "trtllm", None):
        yield Fault(at, f"how {api} is started is not known here", mend)
    if gpu == "cpu":
        yield Fault(at, "figures and places are those of GPUs, and this is a CPU", mend)
    elif not profile:
        yield Fault(
            at, "needs the model's profile, for its figures", mend="models: {…: {profile: qwen2.5-72b}}"
        )


def _worker_names(tree: Tree) -> Iterator[Fault]:
    packages = _named(tree, "packages")
    for name, package in packages.items():
        for instance in (package or {}).get("instances") or ():
            worker = f"{name}.{instance['die']}" if instance else ""
            if worker in packages:
                yield Fault(
                    ("packages", worker), f"is also a worker of {name}, by its die", mend="another name"
                )


def _tenants(tree: Tree) -> Iterator[Fault]:
    known = {"tiers": _named(tree, "tiers"), "packages": _named(tree, "packages")}
    owners: dict[str, str] = {}
    for name, tenant in _named(tree, "tenants").items():
        if tenant is None:
            continue
        path: Path = ("tenants", name)
        for key, names in known.items():
            for at, word in enumerate(tenant[key] or ()):
                if names and word is not None and word not in names:
                    yield unknown((*path, key, at), f"one of {key}", word, names)
        variable = tenant["api_key_env"]
        if variable is not None and owners.setdefault(variable, name) != name:
            reason = f"{variable} is the key of {owners[variable]} already"
            yield Fault((*path, "api_key_env"), reason, mend="a variable of its own")


def shares(config: Config) -> Iterator[Fault]:
    """Least shares that leave nothing to be shared out by priority."""
    tiers = [tier for tier in config.rules.tiers.values() if tier.least_share]
    total = sum(tier.least_share for tier in tiers)
    if total > MOST_SHARES:
        parts = ", ".join(f"{tier.name} {tier.least_share:g}" for tier in tiers)
        largest = max(tiers, key=lambda tier: tier.least_share)
        reason = (
            f"least shares come to {total:g} of what is granted, and {MOST_SHARES:g} is the most: {parts}"
        )
        yield Fault(("tiers", largest.name, "min_share"), reason, mend="less, so that priorities still count")


def shared_servers(config: Config) -> Iterator[Fault]:
    """Two workers that would start their server on the same port of this machine."""
    taken: dict[str, str] = {}
    for worker in config.workers:
        engine = worker.engine
        if not (worker.spawned and isinstance(engine, AttachConfig) and engine.launch):
            continue
        if (other := taken.setdefault(engine.url, worker.name)) != worker.name:
            yield Fault(
                ("packages", worker.package, "engine", "url"),
                f"{worker.name} would start its server where {other} starts its own",
                mend="another port; in pattern B an engine for each instance",
            )


def shared_ports(config: Config) -> Iterator[Fault]:
    """Ports that two parts of one machine would both listen on."""
    listeners: list[tuple[str, int, Path]] = [
        (config.router.host, config.router.port, ("router", "port")),
        (config.router.host, config.router.metrics_port, ("router", "metrics_port")),
        (config.rest.host, config.rest.port, ("rest", "port")),
    ]
    for worker in filter(lambda one: one.spawned, config.workers):
        listeners.append((worker.host, worker.port, ("packages", worker.package)))
        listeners.append((worker.host, worker.metrics_port, ("packages", worker.package)))
    taken: dict[int, list[tuple[str, Path]]] = {}
    for host, port, path in listeners:
        for other_host, other in taken.get(port, ()) if port else ():
            if host == other_host or EVERYWHERE.keys() & {host, other_host}:
                note = f" (its metrics are at its port + {METRICS_ABOVE})" if path[0] == "packages" else ""
                yield Fault(
                    path, f"port {port} is taken by {'.'.join(map(str, other))}{note}", mend="another port"
                )
        taken.setdefault(port, []).append((host, path))
