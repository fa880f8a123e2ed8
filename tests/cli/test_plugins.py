"""Rules from other packages: the example and its page, and packages that are broken in every way.

The example is really installed, into a folder that only the processes of these tests look into.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/plugin"
PAGE = (ROOT / "docs/guide/plugins.md").read_text()

Diplex = Callable[..., "subprocess.CompletedProcess[str]"]


def block(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that has the example package."""
    folder = tmp_path_factory.mktemp("installed")
    uv = Path(sys.executable).with_name("uv")
    options = ("--quiet", "--offline", "--no-deps", "--no-build-isolation", "--python", sys.executable)
    command = [uv, "pip", "install", *options, "--target", folder, EXAMPLE]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return {"PYTHONPATH": str(folder)}


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """The page's configuration."""
    (configuration,) = block("yaml")
    file = tmp_path / "fleet.yaml"
    file.write_text(configuration)
    return file


def packaged(folder: Path, name: str, group: str, rule: str, code: str = "") -> None:
    """A package that brings one rule, as an installer leaves it."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(code)
    about = folder / f"{module}-2.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.0\n")
    (about / "entry_points.txt").write_text(f"[diplex.{group}]\n{rule} = {module}:rule\n")


def test_the_page_has_what_the_example_has():
    code = (EXAMPLE / "src/diplex_example_rules/__init__.py").read_text()
    functions = block("python")
    assert len(functions) == code.count("\ndef ")
    assert all(function in code for function in functions)
    (points,) = block("toml")
    package = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())
    assert tomllib.loads(points)["project"]["entry-points"] == package["project"]["entry-points"]


def test_a_tier_may_name_what_an_installed_package_brings(diplex: Diplex, fleet: Path, example: Any):
    checked = diplex("config", "check", fleet, env=example)
    assert (checked.returncode, checked.stderr) == (0, "")
    schema = json.loads(diplex("config", "schema", env=example).stdout)
    tier = schema["properties"]["tiers"]["additionalProperties"]["properties"]
    assert tier["picker"]["enum"] == ["best", "two_choices"]
    assert "leaves_a_quarter" in tier["filters"]["items"]["enum"]
    assert tier["scorers"]["properties"]["home"]["description"] == "Its weight; 0 by default."


def test_without_the_package_its_names_are_unknown(diplex: Diplex, fleet: Path):
    said = diplex("config", "check", fleet).stderr
    assert "fleet.yaml:8: tiers.chat.scorers.home: is no key of the scorers section\n" in said
    assert "fleet.yaml:8: tiers.chat.picker: 'two_choices' is not a picker\n  known: best\n" in said
    assert "fleet.yaml:9: tiers.bulk.filters: 'leaves_a_quarter' is not an optional filter\n" in said


def test_a_simulation_goes_by_the_packages_rules(diplex: Diplex, fleet: Path, example: Any):
    def requests(file: Path, *, tier: str, rate: int) -> dict[str, int]:
        load = f"steady:rate={rate},requests=60,prompt=4000,output=100"
        done = diplex("simulate", load, "--config", file, "--tiers", f"{tier}=1", "--json", env=example)
        assert done.returncode in (0, 1), done.stderr
        workers = json.loads(done.stdout)["workers"]
        return {name: worker["requests"] for name, worker in workers.items()}

    spread = requests(fleet, tier="chat", rate=2)
    best = fleet.with_name("best.yaml")
    by_home = "scorers: {home: 1.5, balance: 0}"
    best.write_text(fleet.read_text().replace("scorers: {home: 1.5}, picker: two_choices", by_home))
    gathered = requests(best, tier="chat", rate=2)
    assert max(gathered.values()) == 60, "one worker is the tenant's home, and idle when the next one comes"
    assert all(0 < count < 60 for count in spread.values())


@pytest.mark.parametrize(
    ("named", "package", "told"),
    [
        (
            "filters: [odd]",
            ("filters", "odd", "import nowhere_at_all"),
            "tiers.standard.filters: filter odd: mine_rules:rule of mine-rules 2.0 cannot be loaded: "
            "ModuleNotFoundError: No module named 'nowhere_at_all'\n"
            "  mend:  install what it needs, or: pip install --upgrade mine-rules\n",
        ),
        (
            "scorers: {odd: 2}",
            ("scorers", "odd", "rule = 5"),
            "tiers.standard.scorers.odd: scorer odd: mine_rules:rule of mine-rules 2.0 is not a function of "
            "(wish, pool)\n  mend:  make it one\n",
        ),
        (
            "picker: odd",
            ("pickers", "odd", "def rule(wish): ..."),
            "tiers.standard.picker: picker odd: mine_rules:rule of mine-rules 2.0 is not a function of "
            "(wish, candidates)\n  mend:  make it one\n",
        ),
        (
            "filters: [keeps_ttft]",
            ("filters", "keeps_ttft", "def rule(wish, pool): ..."),
            "tiers.standard.filters: filter keeps_ttft: mine-rules 2.0 brings it, and diplex has one\n"
            "  mend:  another name, in the package\n",
        ),
    ],
)
def test_a_rule_that_cannot_be_used_is_no_matter_until_a_tier_names_it(
    diplex: Diplex, simulated: Path, tmp_path: Path, named: str, package: tuple[str, str, str], told: str
):
    installed = tmp_path / "installed"
    installed.mkdir()
    packaged(installed, "mine-rules", *package)
    environment = {"PYTHONPATH": str(installed)}
    assert diplex("config", "check", simulated, env=environment).returncode == 0
    simulated.write_text(simulated.read_text().replace("[A, C]", f"[A, C], {named}"))
    done = diplex("config", "check", simulated, env=environment)
    assert (done.returncode, done.stderr) == (1, f"{simulated}:6: {told}")


def test_a_name_that_two_packages_bring_is_neithers(diplex: Diplex, simulated: Path, tmp_path: Path):
    installed = tmp_path / "installed"
    installed.mkdir()
    for name in ("one-rules", "two-rules"):
        packaged(installed, name, "pickers", "odd", "def rule(wish, candidates): ...")
    simulated.write_text(simulated.read_text().replace("[A, C]", "[A, C], picker: odd"))
    said = diplex("config", "check", simulated, env={"PYTHONPATH": str(installed)}).stderr
    assert re.search(r"picker odd: (one|two)-rules 2\.0 and (one|two)-rules 2\.0 both bring it", said)
    assert "  mend:  uninstall one of them\n" in said
