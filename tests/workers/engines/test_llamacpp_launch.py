"""Starting llama.cpp, and how that goes wrong: missing weights, a broken file, an owner that dies."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from diplex_workers.engines.llamacpp import LlamaCppEngine, LlamaCppSettings
from diplex_workers.launch import weights
from diplex_workers.launch.child import LaunchFailed, launched

OWNER = """
import asyncio, sys
from diplex_workers.engines.llamacpp import LlamaCppEngine, LlamaCppSettings
class Host:
    def ready(self, facts): print(engine.child_pid, flush=True)
    def unready(self, problem): print(problem, flush=True)
engine = LlamaCppEngine(LlamaCppSettings(model="m", context=64, slots=1))
asyncio.run(engine.serve(Host()))
"""


def nobody_has_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(weights, "in_package", lambda _: None)


async def test_missing_weights_make_it_unready_and_name_the_mend(on_stage, monkeypatch, tmp_path):
    nobody_has_it(monkeypatch, tmp_path)
    async with on_stage(LlamaCppEngine(LlamaCppSettings(model="m"))) as stage:
        await stage.host.until(lambda: stage.host.reasons)
    assert stage.host.reasons[0].endswith("Mend: diplex fetch smollm2")
    assert str(tmp_path) in stage.host.reasons[0]


async def test_weights_that_are_fetched_meanwhile_are_found(on_stage, monkeypatch, tmp_path):
    shipped = weights.find("smollm2")
    nobody_has_it(monkeypatch, tmp_path)
    async with on_stage(LlamaCppEngine(LlamaCppSettings(model="m", context=64, slots=1))) as stage:
        await stage.host.until(lambda: stage.host.reasons)
        cached = weights.in_cache(weights.SMOLLM2)
        cached.parent.mkdir(parents=True)
        cached.symlink_to(shipped)
        await stage.host.until(lambda: stage.host.facts)


async def test_a_file_that_is_no_model_is_named(on_stage, tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"not a model")
    async with on_stage(LlamaCppEngine(LlamaCppSettings(model="m", weights=broken))) as stage:
        await stage.host.until(lambda: stage.host.reasons)
    assert f"could not load {broken}" in stage.host.reasons[0]


async def test_a_path_without_a_file_says_what_would_do():
    with pytest.raises(weights.WeightsMissing, match=r"no weights at /nowhere\.gguf.*smollm2"):
        weights.find("/nowhere.gguf")


async def test_a_child_that_says_nothing_is_ended_in_time():
    with pytest.raises(LaunchFailed, match=r"was not ready within 0\.2 s"):
        async with launched("json.tool", {}, within=0.2):  # reads to the end of its stdin
            pass


async def test_a_child_goes_down_with_an_owner_that_is_killed(eventually):
    owner = await asyncio.create_subprocess_exec(sys.executable, "-c", OWNER, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(60):
        child = int(await owner.stdout.readline())
    os.kill(child, 0)
    owner.kill()
    await owner.wait()
    await eventually(lambda: not alive(child))


async def test_a_ctrl_c_meant_for_the_group_leaves_the_child_to_its_owner():
    options = {"weights": str(weights.find("smollm2")), "slots": 1, "context": 64, "threads": 1}
    options |= {"prefill_chunk": 16, "port": 0, "niceness": 0, "api_key": "k"}
    async with launched("diplex_workers.launch.llamacpp_server", options, within=60) as child:
        for meant_for_all in (signal.SIGINT, signal.SIGTERM):
            os.kill(child.pid, meant_for_all)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await child.ended()
    assert await child.ended() == "ended with exit code 0"


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
