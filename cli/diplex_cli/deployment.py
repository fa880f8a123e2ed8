"""What `diplex up` is going to start: a configuration, the ports that it gets, and what is left out of it."""

from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from shutil import which
from typing import Any

from diplex_cli import reader
from diplex_cli.failures import UsageError
from diplex_cli.launching import start_of
from diplex_cli.ports import Listener, Picker, taken
from diplex_core.config import AttachConfig, Config, Fault, LlamaCppConfig, WorkerConfig, cannot_run
from diplex_workers.launch import weights


@dataclass(frozen=True, slots=True)
class Deployment:
    """What to start. `overlay` is what options and free ports change in the files, as one more file."""

    config: Config
    overlay: Mapping[str, Any]
    left_out: Mapping[str, str]  # worker: why

    @property
    def workers(self) -> tuple[WorkerConfig, ...]:
        """Those that are spawned here."""
        return tuple(one for one in self.config.workers if one.spawned and one.name not in self.left_out)


def planned(args: Namespace, source: reader.Source, environment: Mapping[str, str]) -> Deployment:
    """Settle what is started, and where it listens.

    Raises:
        ConfigErrors: the files are wrong, options make them so, or an engine lacks what it needs.
        UsageError: a port is taken, or no worker is left to start.
    """
    config = source.config(environment)
    left_out = dict(_left_out(source, config))
    spawned = [one for one in config.workers if one.spawned and one.name not in left_out]
    if not spawned and all(one.spawned for one in config.workers):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise UsageError(f"no worker is left to start: {reasons}")
    overlay = _overlay(args, config)
    deployment = Deployment(source.extended(overlay).config(environment), overlay, left_out)
    if complaints := list(taken(_listeners(deployment, source, args.rest))):
        others = len(complaints) - 1
        also = f"\n{others} more of its ports are taken too" if others else ""
        raise UsageError(complaints[0] + also)
    return deployment


def _left_out(source: reader.Source, config: Config) -> Iterator[tuple[str, str]]:
    """Workers that cannot be started, and why. What an explicit file asks for must be there."""
    embedded = source.files == (reader.EMBEDDED,)
    for worker in config.workers:
        reason = cannot_run(worker)
        if reason:
            yield worker.name, reason
        elif worker.spawned and (reason := _lacks(worker)):
            if not embedded:
                raise reader.Located(source, [Fault(("packages", worker.package, "engine"), reason)])
            yield worker.name, reason


def _lacks(worker: WorkerConfig) -> str | None:
    """What this machine lacks to run the worker's engine, with the mend."""
    if isinstance(worker.engine, AttachConfig) and worker.engine.launch is not None:
        return _lacks_program(worker)
    if not isinstance(worker.engine, LlamaCppConfig):
        return None
    if find_spec("xllamacpp") is None:
        return "the engine llamacpp needs xllamacpp. Mend: pip install 'diplex[llamacpp]'"
    try:
        weights.find(worker.engine.weights)
    except weights.WeightsMissing as missing:
        return str(missing)
    return None


def _lacks_program(worker: WorkerConfig) -> str | None:
    from diplex_core.plan.deployment import Unplannable

    try:
        program = start_of(worker, None).command[0]
    except Unplannable as why:
        return str(why)
    if which(program) is None:
        return f"there is no program {program} on PATH. Mend: install the engine, or launch: {{command: […]}}"
    return None


def _overlay(args: Namespace, config: Config) -> dict[str, Any]:
    """What the options say, with a free port for each 0."""
    host = args.host
    router = {"host": host, "port": args.router_port, "metrics_port": args.metrics_port}
    rest = {"host": host, "port": args.rest_port}
    workers = {"host": host, "first_port": args.worker_port}
    picker = Picker(host or config.router.host)
    for section in (router, rest):
        for key in ("port", "metrics_port"):
            if section.get(key) == 0:
                section[key] = picker.one()
    if workers["first_port"] == 0:
        workers["first_port"] = picker.run_of(len(config.workers))
    sections = {"router": router, "rest": rest, "workers": workers}
    return {
        name: {key: value for key, value in section.items() if value is not None}
        for name, section in sections.items()
    }


def _listeners(deployment: Deployment, source: reader.Source, rest: bool) -> Iterator[Listener]:
    config = deployment.config
    yield Listener("router", config.router.host, config.router.port, "--router-port N")
    yield Listener("router's /metrics", config.router.host, config.router.metrics_port, "--metrics-port N")
    if rest:
        yield Listener("REST shim", config.rest.host, config.rest.port, "--rest-port N")
    for worker in deployment.workers:
        option = (
            f"another port for {worker.package} in the file"
            if _says_port(source, worker)
            else "--worker-port N"
        )
        yield Listener(f"worker {worker.name}", worker.host, worker.port, option)
        yield Listener(f"/metrics of {worker.name}", worker.host, worker.metrics_port, option)


def _says_port(source: reader.Source, worker: WorkerConfig) -> bool:
    """Whether a file names a port for this package, which no option overrides."""
    package = ("packages", worker.package)
    return any(path[:2] == package and path[-1] == "port" for path in source.places)
