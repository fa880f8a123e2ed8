"""The README's commands, run as they stand there; only ports differ, so that two fleets never meet."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (.*(?:\n {4}.*)*)", re.MULTILINE)


def commands(page: str) -> list[str]:
    """What a page's blocks tell a reader to type; an indented line goes on with the one before."""
    return [
        command for block in FENCE.findall((ROOT / page).read_text()) for command in COMMAND.findall(block)
    ]


@pytest.fixture(scope="module")
def running(shared_fleet: Callable[..., Any]) -> Any:
    """What `make up` serves, on other ports than the README's."""
    return shared_fleet(None, make=True)


@pytest.fixture
def typed(running: Any) -> Callable[[str], str]:
    """Type a command of the README into a shell at the repository's root."""

    def run(command: str) -> str:
        command = command.replace("localhost:7601", running.rest.removeprefix("http://"))
        command = re.sub(r"(diplex chat .*)", rf"\1 --url {running.router}", command)
        done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_first_two_commands_clone_and_bring_a_fleet_up():
    assert re.fullmatch(r"git clone \S+ && cd diplex && make up( +#.*)?", commands("README.md")[0])


def test_the_readmes_curl_is_answered_with_smollm2s_words(typed: Callable[[str], str]):
    (curl,) = [command for command in commands("README.md") if command.startswith("curl")]
    answer = json.loads(typed(curl))
    assert answer["model"] == "smollm2-135m-instruct"
    # A real model's own words, different each time: what can be said of them is that they are words.
    assert re.search(r"[A-Za-z]{3,}", answer["choices"][0]["message"]["content"])


def test_the_readmes_chat_streams_and_says_who_served_it(typed: Callable[[str], str]):
    (chat,) = [command for command in commands("README.md") if "diplex chat" in command]
    *_, last = typed(chat).strip().splitlines()
    assert re.search(r"ms.*tok/s.*pkg0.*pattern C", last)


@pytest.mark.parametrize("program", ["stream_with_sdk.py", "openai_client.py", "raw_grpc.py"])
def test_every_example_runs(running: Any, program: str):
    where = running.rest if program == "openai_client.py" else running.router
    command = [sys.executable, ROOT / "examples" / program, where]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert re.search(r"[A-Za-z]{3,}", done.stdout)
