"""What `deploy/` starts exists: its commands are the program's, its files are the repository's."""

import re
from pathlib import Path

from diplex_cli.main import COMMANDS


def test_every_unit_starts_a_command_that_exists(root: Path):
    units = "\n".join(unit.read_text() for unit in (root / "deploy/systemd").glob("*.service"))
    started = re.findall(r"^ExecStart=\S+/diplex (\w+)", units, re.MULTILINE)
    assert sorted(started) == ["rest", "router", "worker"]
    assert set(started) <= set(COMMANDS)


def test_every_file_that_the_image_copies_exists(root: Path):
    dockerfile = (root / "deploy/Dockerfile").read_text()
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE)
    copied = [name for line in lines for name in line.split()]
    assert copied
    assert [name for name in copied if not (root / name).exists()] == []
