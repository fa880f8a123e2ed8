"""Wrong input gets one or two lines that name the place, the reason and the mend; never a traceback."""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import diplex

DIPLEX = (sys.executable, "-m", "diplex_cli.main")


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """Run a command that has to fail, and what it said: one to three lines, no traceback."""

    def run(*command: str, config: str = "", code: int) -> str:
        (tmp_path / "fleet.yaml").write_text(config)
        done = subprocess.run([*DIPLEX, *command], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert 1 <= len(done.stderr.strip().splitlines()) <= 3, done.stderr
        return done.stderr

    return run


FINE = """\
models:
  qwen: {profile: qwen2.5-72b}
packages:
  pkg0: {gpu: b200, pattern: A, model: qwen, engine: {kind: sim, calibration: chapter}}
tiers:
  standard: {patterns: [A]}
"""


@pytest.mark.parametrize("command", [("config", "check", "fleet.yaml"), ("up", "--config", "fleet.yaml")])
@pytest.mark.parametrize(
    ("right", "wrong", "place", "words"),
    [
        ("patterns: [A]}", "patterns: [A", "fleet.yaml:7", "is not YAML"),
        ("pattern: A", "patern: A", "fleet.yaml:4: packages.pkg0.patern", "pattern"),
        ("pattern: A", "pattern: E", "fleet.yaml:4: packages.pkg0.pattern", "'E' is not a pattern"),
        ("model: qwen", "model: qwem", "fleet.yaml:4: packages.pkg0.model", "'qwem' is not one of models"),
        ("calibration: chapter", "", "fleet.yaml:4: packages.pkg0.engine", "calibration"),
    ],
)
def test_a_wrong_configuration_is_told_with_file_and_line(
    refused: Callable[..., str], command: tuple[str, ...], right: str, wrong: str, place: str, words: str
):
    said = refused(*command, config=FINE.replace(right, wrong), code=1 if command[0] == "config" else 2)
    assert place in said
    assert words in said


def test_a_configuration_that_is_not_there_is_named(refused: Callable[..., str]):
    assert "nowhere.yaml" in refused("up", "--config", "nowhere.yaml", code=2)


def test_a_taken_port_is_told_with_the_option_that_mends_it(refused: Callable[..., str]):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refused("up", "--router-port", str(port), code=2)
    assert str(port) in said
    assert "--router-port" in said


def test_asking_where_no_router_is_says_so(refused: Callable[..., str]):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        said = refused("chat", "hello", "--url", address, code=1)
    assert address in said


@pytest.fixture(scope="module")
def running(shared_fleet: Callable[..., Any]) -> Any:
    return shared_fleet()


async def test_an_unknown_model_is_told_with_those_that_are_known(running: Any):
    async with diplex.AsyncClient(running.router) as client:
        with pytest.raises(diplex.UnknownModel) as raised:
            await client.generate("hello", model="gpt-5")
    status, error = await over_rest(running, model="gpt-5", text="hello")
    assert status == 404
    for message in (raised.value.message, error["message"]):
        assert "gpt-5" in message
        assert "qwen2.5-72b-instruct" in message


async def test_a_prompt_longer_than_any_pool_is_refused_at_once_with_the_numbers(running: Any):
    endless = "word " * 1_500_000
    async with diplex.AsyncClient(running.router) as client:
        with pytest.raises(diplex.InvalidRequest) as raised:
            await asyncio.wait_for(client.generate(endless), 20)
    assert raised.value.reason == "REQUEST_TOO_LARGE"
    assert {"needed_blocks", "largest_pool_blocks", "fits_tokens"} <= raised.value.metadata.keys()
    status, error = await over_rest(running, model="qwen2.5-72b-instruct", text=endless)
    assert status == 400
    assert raised.value.metadata["largest_pool_blocks"] in error["message"]
    assert len(raised.value.message.splitlines()) <= 2


async def test_an_unknown_tier_is_a_400_that_lists_the_tiers(running: Any):
    status, error = await over_rest(running, model="qwen2.5-72b-instruct", text="hello", tier="platinum")
    assert status == 400
    assert "platinum" in error["message"]
    assert "standard" in error["message"]


async def test_a_worker_that_is_gone_is_an_unavailable_that_names_it(fleet: Any):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{nobody.getsockname()[1]}"
        running = fleet(GONE.replace("URL", url))
        async with diplex.AsyncClient(running.router) as client:
            with pytest.raises(diplex.Unavailable) as raised:
                await asyncio.wait_for(client.generate("hello", model="echoed"), 20)
    assert "echoed" in raised.value.message
    assert len(raised.value.message.splitlines()) <= 2


GONE = """\
models:
  qwen2.5-72b-instruct: {profile: qwen2.5-72b, weights: mxfp4-mixed, kv_cache: mxfp8}
  echoed: {profile: qwen2.5-72b}
default_model: qwen2.5-72b-instruct
packages:
  pkg0: {gpu: b200, pattern: A, model: qwen2.5-72b-instruct, engine: {kind: sim, calibration: chapter}}
  gone: {gpu: b200, pattern: A, model: echoed, url: "URL", engine: {kind: sim, calibration: chapter}}
tiers:
  standard: {patterns: [A]}
default_tier: standard
"""


async def over_rest(running: Any, *, model: str, text: str, tier: str = "auto") -> tuple[int, dict[str, str]]:
    """The status and the error object of a chat that has to fail."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], "service_tier": tier}
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{running.rest}/v1/chat/completions", data=BytesIO(json.dumps(body).encode())
        ) as response,
    ):
        return response.status, (await response.json())["error"]
