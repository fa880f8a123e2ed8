"""The words for a server that its worker starts."""

from collections.abc import Callable
from typing import Any

import pytest

from diplex_core.config import AttachConfig, Config, LaunchConfig

Built = Callable[..., Config]
Faults = Callable[..., list[Any]]


def attach(**launch: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    engine = {"kind": "attach", "api": "vllm", "url": "http://127.0.0.1:8000", "launch": launch}
    return (("packages", "pkg0", "engine"), engine)


def launch_of(config: Config) -> LaunchConfig:
    engine = config.workers[0].engine
    assert isinstance(engine, AttachConfig) and engine.launch is not None
    return engine.launch


def test_a_command_may_say_a_word_twice(built: Built):
    command = ["env", "-u", "A", "-u", "B", "vllm"]
    assert launch_of(built(attach(command=command))).command == tuple(command)


def test_what_is_left_out_has_its_default(built: Built):
    assert launch_of(built(attach(command=["vllm"]))) == LaunchConfig(command=("vllm",))


def test_everything_reaches_its_value(built: Built):
    said = {
        "checkpoint": "./big",
        "args": ["--a", "--a"],
        "env": {"HF_HUB_OFFLINE": "1"},
        "draft": "./small",
        "placement": "mps",
        "devices": ["1"],
        "serve": "latency",
        "ready_within_s": 60,
        "silent_s": 5,
        "drain_s": 7,
    }
    assert launch_of(built(attach(**said))) == LaunchConfig(
        checkpoint="./big",
        args=("--a", "--a"),
        env={"HF_HUB_OFFLINE": "1"},
        draft="./small",
        placement="mps",
        devices=("1",),
        serve="latency",
        ready_within=60,
        silent=5,
        drain=7,
    )


@pytest.mark.parametrize(
    ("launch", "told"),
    [
        ({}, "packages.pkg0.engine.launch.checkpoint: is missing: one of checkpoint, command"),
        ({"checkpoint": "a", "command": ["b"]}, "launch.command: is there beside checkpoint"),
        ({"command": "vllm serve"}, "'vllm serve' is not a list of words"),
        ({"command": []}, "launch.command: is empty"),
        ({"command": ["vllm", 3]}, "launch.command: 3 is no word"),
        ({"command": ["vllm"], "placement": "die0"}, "'die0' is not a placement"),
        ({"command": ["vllm"], "env": {"A B": "1"}}, "'A B' is no name for a variable"),
        ({"command": ["vllm"], "silent_s": 0}, "launch.silent_s: 0 is out of bounds"),
    ],
)
def test_a_wrong_word_is_told(launch: dict[str, Any], told: str, faults: Faults):
    assert any(told in str(fault) for fault in faults(attach(**launch)))


def test_a_checkpoints_command_is_known_of_two_servers_only(faults: Faults):
    path, engine = attach(checkpoint="./big")
    (fault,) = faults((path, {**engine, "api": "sglang"}))
    assert "how sglang is started is not known here" in str(fault)
    assert "command: [" in str(fault)


def test_a_checkpoint_needs_a_gpu_and_the_models_profile(faults: Faults):
    (fault,) = faults(attach(checkpoint="./big"), (("models", "big"), {"weights": "fp8"}))
    assert "needs the model's profile" in str(fault)


def test_two_workers_do_not_start_their_servers_on_one_port(faults: Faults):
    _, engine = attach(command=["vllm"])
    other = {"model": "big", "engine": engine}
    (fault,) = faults((("packages", "pkg0", "engine"), engine), (("packages", "pkg1"), other))
    assert "pkg1 would start its server where pkg0 starts its own" in str(fault)
