"""A package's rules in a fleet: they decide, `explain` shows them, and one that raises stops nothing."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from diplex import AsyncClient

ROOT = Path(__file__).parents[2]
(PAGES_FLEET,) = re.findall(
    r"^```yaml\n(.*?)^```", (ROOT / "docs/guide/plugins.md").read_text(), re.MULTILINE | re.DOTALL
)
RAISES = """
def asked(wish, pool):
    raise RuntimeError("out of order")
"""
POINTS = """
[diplex.filters]
fails = diplex_failing_rules:asked
[diplex.scorers]
sulks = diplex_failing_rules:asked
[diplex.pickers]
drops = diplex_failing_rules:asked
"""
FAILING = """
  guarded: {patterns: [A], filters: [fails]}
  plain: {patterns: [A], scorers: {sulks: 1}, picker: drops}
default_tier: chat
"""


def installed(folder: Path) -> dict[str, str]:
    """The environment of a process that has the example, and a package all of whose rules raise."""
    folder.mkdir()
    uv = Path(sys.executable).with_name("uv")
    options = ("--quiet", "--offline", "--no-deps", "--no-build-isolation", "--python", sys.executable)
    command = [uv, "pip", "install", *options, "--target", folder, ROOT / "examples/plugin"]
    subprocess.run(list(map(str, command)), check=True, timeout=60)
    (folder / "diplex_failing_rules.py").write_text(RAISES)
    about = folder / "diplex_failing_rules-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: diplex-failing-rules\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(POINTS)
    return {"PYTHONPATH": str(folder)}


def explain(fleet: Any, *words: str) -> list[str]:
    command = [sys.executable, "-m", "diplex_cli.main", "explain", "--url", fleet.router, *words]
    return subprocess.run(
        command, cwd=fleet.folder, capture_output=True, text=True, timeout=30, check=True
    ).stdout.splitlines()


async def test_rules_of_packages_decide_are_explained_and_may_raise(fleet: Any, tmp_path: Path):
    config = PAGES_FLEET.replace("default_tier: chat\n", FAILING.lstrip("\n"))
    running = fleet(config, "--no-rest", env=installed(tmp_path / "installed"))

    bulk = explain(running, "--tier", "bulk", "--prompt-tokens", "7000", "--max-tokens", "500")
    objection = "leaves_a_quarter: would leave 65 KV blocks free, 75 stay for others"
    assert ["pkg2", "A", objection] in [line.split(maxsplit=2) for line in bulk]
    chat = explain(running, "--prompt-tokens", "4000")
    assert re.fullmatch(r"would be granted on pkg\d, picked by two_choices", chat[1])
    assert "home" in chat[3]

    async with AsyncClient(running.router) as client:
        reply = await client.generate("hello", tier="plain", max_tokens=4)
        assert reply.text, "its scorer and its picker raise, and it is served"
        plain = explain(running, "--tier", "plain")
        assert "pkg2: scorer sulks failed: RuntimeError: out of order; so 0" in plain
        guarded = explain(running, "--tier", "guarded")
        assert guarded[1] == "would wait because filter fails failed: RuntimeError: out of order"
        assert guarded[-1].endswith("fails: filter fails failed: RuntimeError: out of order")
        metrics = await client.metrics()
    failed = dict(re.findall(r'^diplex_rule_failures_total\{kind="(\w+)",rule="\w+"\} (\d+)', metrics, re.M))
    assert failed.keys() == {"filter", "scorer", "picker"}
    assert running.log.read_text().count("out of order") == 3, "each is told once"
