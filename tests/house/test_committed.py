"""Nothing committed belongs to one machine, is generated, or says where packages were fetched from."""

import re
from pathlib import Path

# Spelled in pieces, so that this file does not find itself.
OF_A_MACHINE = re.compile("|".join(f"/{name}/" for name in ("work", "root", "farm", r"home/\w+")))
BINARY = {".gz", ".png"}


def test_no_file_names_a_path_of_a_machine(root: Path, committed: list[Path]):
    texts = [path for path in committed if path.suffix not in BINARY]
    assert [str(path) for path in texts if OF_A_MACHINE.search((root / path).read_text())] == []


def test_no_generated_stub_is_committed(committed: list[Path]):
    assert [path for path in committed if "_pb2" in path.name] == []


def test_the_pins_are_exact_hashed_and_name_no_host(root: Path):
    for pins in sorted((root / "requirements").glob("*.txt")):
        text = pins.read_text()
        assert "://" not in text, pins
        # One entry: a requirement with all its continuation lines.
        entries = re.sub(r"\s*\\\n\s*", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)).splitlines()
        assert [entry for entry in entries if "==" not in entry or "--hash=sha256:" not in entry] == []


def test_no_committed_file_is_large(root: Path, committed: list[Path]):
    assert [str(path) for path in committed if (root / path).stat().st_size > 1_000_000] == []
