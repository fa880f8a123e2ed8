"""What the house's tests look at: the files that are, or are about to be, committed."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def committed() -> list[Path]:
    """Every file that git tracks or would add, relative to the root."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return sorted(Path(name) for name in set(listed.split("\0")) if name and (ROOT / name).is_file())


@pytest.fixture(scope="session")
def documents(committed: list[Path]) -> dict[Path, str]:
    """Every committed Markdown page, by its path relative to the root."""
    return {path: (ROOT / path).read_text() for path in committed if path.suffix == ".md"}
