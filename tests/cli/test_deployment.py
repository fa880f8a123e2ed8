"""What `up` settles before it starts anything."""

import socket
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

import pytest

from diplex_cli import deployment, reader
from diplex_cli.commands import up
from diplex_cli.deployment import Deployment, planned
from diplex_cli.failures import UsageError
from diplex_core.config import ConfigErrors
from diplex_workers.launch.weights import WeightsMissing

ANY_PORTS = ("--router-port", "0", "--rest-port", "0", "--metrics-port", "0", "--worker-port", "0")
Plan = Callable[..., Deployment]


def arguments(*words: str) -> Namespace:
    parser = ArgumentParser()
    up.add_arguments(parser)
    return parser.parse_args(words)


@pytest.fixture
def plan() -> Plan:
    def planned_with(file: Path | None, *options: str) -> Deployment:
        source = reader.read([] if file is None else [str(file)])
        return planned(arguments(*(options or ANY_PORTS)), source, {})

    return planned_with


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch):
    def nowhere(weights: str) -> Path:
        raise WeightsMissing("the weights smollm2 are nowhere. Mend: diplex fetch smollm2")

    monkeypatch.setattr(deployment.weights, "find", nowhere)
    monkeypatch.setattr(deployment, "find_spec", lambda name: name)


def test_port_0_becomes_a_free_port_that_every_part_is_told(plan: Plan, simulated: Path):
    planned = plan(simulated)
    config = planned.config
    ports = [config.router.port, config.router.metrics_port, config.rest.port, config.workers[0].port]
    assert len(set(ports)) == 4
    assert 0 not in ports
    assert planned.overlay["router"] == {"port": ports[0], "metrics_port": ports[1]}
    assert planned.overlay["rest"] == {"port": ports[2]}
    assert planned.overlay["workers"] == {"first_port": ports[3]}


def test_options_go_before_the_file(plan: Plan, simulated: Path):
    config = plan(simulated, *ANY_PORTS, "--host", "0.0.0.0", "--rest-port", "28601").config
    assert (config.rest.host, config.rest.port) == ("0.0.0.0", 28601)
    assert {config.router.host, config.workers[0].host} == {"0.0.0.0"}
    assert config.workers[0].address.startswith("127.0.0.1:")


@pytest.mark.parametrize(
    ("option", "part"),
    [
        ("--router-port", "router"),
        ("--rest-port", "REST shim"),
        ("--metrics-port", "router's /metrics"),
        ("--worker-port", "worker pkg0"),
    ],
)
def test_a_taken_port_names_its_option(plan: Plan, simulated: Path, option: str, part: str):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        with pytest.raises(UsageError) as caught:
            plan(simulated, *ANY_PORTS, option, str(port))
    assert str(caught.value) == (
        f"port {port} on 127.0.0.1 is taken, the {part} wants it. Mend: end what uses it, or {option} N"
    )


def test_a_port_that_the_file_names_is_mended_in_the_file(plan: Plan, simulated: Path):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        simulated.write_text(simulated.read_text().replace("pattern: A", f"pattern: A, port: {port}"))
        with pytest.raises(UsageError, match="or another port for pkg0 in the file"):
            plan(simulated)


@pytest.mark.usefixtures("nothing_installed")
def test_the_embedded_default_leaves_out_what_has_no_weights(plan: Plan):
    planned = plan(None)
    assert [worker.name for worker in planned.workers] == ["pkg0", "pkg1"]
    assert planned.left_out.keys() == {"cpu0", "cpu1"}
    assert planned.left_out["cpu0"].endswith("Mend: diplex fetch smollm2")


@pytest.mark.usefixtures("nothing_installed")
def test_what_a_file_asks_for_must_be_there(plan: Plan, tmp_path: Path):
    file = tmp_path / "copied.yaml"
    file.write_text((Path(__file__).parents[2] / "configs/laptop.yaml").read_text())
    with pytest.raises(
        ConfigErrors, match=r"copied\.yaml:\d+: packages\.cpu0\.engine: .* Mend: diplex fetch smollm2"
    ):
        plan(file)


def test_a_missing_engine_names_the_extra(plan: Plan, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(deployment, "find_spec", lambda name: None)
    assert "pip install 'diplex[llamacpp]'" in plan(None).left_out["cpu0"]


def test_what_cannot_be_run_yet_is_left_out(plan: Plan, simulated: Path):
    text = simulated.read_text()
    (line,) = [line for line in text.splitlines() if "pkg0" in line]
    other = line.replace("pkg0", "pkg1").replace("calibration: chapter", "calibration: measured")
    simulated.write_text(text.replace(line, f"{line}\n{other}"))
    planned = plan(simulated)
    assert [worker.name for worker in planned.workers] == ["pkg0"]
    assert "unknown calibration 'measured'" in planned.left_out["pkg1"]


def test_a_fleet_without_any_worker_is_not_started(plan: Plan, simulated: Path):
    simulated.write_text(simulated.read_text().replace("calibration: chapter", "calibration: measured"))
    with pytest.raises(UsageError, match="no worker is left to start: pkg0: unknown calibration"):
        plan(simulated)


def test_a_worker_that_runs_elsewhere_is_not_spawned(plan: Plan, simulated: Path):
    simulated.write_text(simulated.read_text().replace("pattern: A,", 'pattern: A, url: "10.0.0.7:7610",'))
    planned = plan(simulated)
    assert (planned.workers, planned.left_out) == ((), {})
