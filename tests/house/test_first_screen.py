"""The README's first screen agrees with the house: its targets and commands exist, its port is ours."""

import re
from pathlib import Path

import pytest

from diplex_cli.main import COMMANDS

FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
CONTRACT = {
    *("setup", "up", "test", "unit", "test-long", "test-clients", "test-chaos", "bench", "proto", "docs"),
    *("lint", "types", "imports", "protolint", "journeys", "schema", "pins", "clean"),
}


@pytest.fixture
def targets(root: Path) -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), re.MULTILINE))


@pytest.fixture
def commands(root: Path) -> list[str]:
    """What the README's blocks tell a reader to type."""
    blocks = FENCE.findall((root / "README.md").read_text())
    return [
        line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")
    ]


def test_every_target_that_people_script_against_exists(targets: set[str]):
    assert targets >= CONTRACT


def test_every_make_command_of_the_readme_is_a_target(commands: list[str], targets: set[str]):
    named = {name for command in commands for name in re.findall(r"\bmake ([a-z-]+)", command)}
    assert {"up", "test"} <= named <= targets


def test_every_diplex_command_of_the_readme_exists(commands: list[str]):
    named = {name for command in commands for name in re.findall(r"\bdiplex ([a-z]+)", command)}
    assert named <= set(COMMANDS)


def test_the_readme_asks_at_the_port_that_the_shim_binds(commands: list[str]):
    asked = {port for command in commands for port in re.findall(r"localhost:(\d+)", command)}
    assert asked == {"7601"}
