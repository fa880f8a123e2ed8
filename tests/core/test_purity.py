"""The core decides and does nothing else: loading all of it loads nothing that waits, logs or talks."""

import json
import subprocess
import sys
from pathlib import Path

import diplex_core

FORBIDDEN = {
    "asyncio",
    "concurrent",
    "grpc",
    "google",
    "logging",
    "opentelemetry",
    "random",
    "socket",
    "ssl",
    "threading",
}
ROOT = Path(diplex_core.__file__).parent

IMPORT_THEM_AND_TELL = """
import importlib, json, sys
before = set(sys.modules)
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
print(json.dumps(sorted({name.split(".")[0] for name in set(sys.modules) - before})))
"""


def core_modules() -> list[str]:
    paths = (path.relative_to(ROOT.parent).with_suffix("") for path in ROOT.rglob("*.py"))
    return sorted(".".join(path.parts).removesuffix(".__init__") for path in paths if path.stem != "__main__")


def loaded_by(modules: list[str]) -> set[str]:
    """Top-level names that importing these brings in, beyond what the interpreter itself starts with."""
    # -I -S: no site-packages hooks and no environment, so that nothing but the core is to blame.
    program = f"import sys; sys.path.insert(0, {str(ROOT.parent)!r})\n{IMPORT_THEM_AND_TELL}"
    command = [sys.executable, "-I", "-S", "-c", program, json.dumps(modules)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_importing_every_core_module_loads_nothing_that_waits_logs_or_talks():
    assert loaded_by(core_modules()) & FORBIDDEN == set()


def test_the_core_needs_no_package_but_itself_and_the_standard_library():
    assert loaded_by(core_modules()) - sys.stdlib_module_names == {"diplex_core"}


def test_the_check_would_see_a_forbidden_module():
    assert "socket" in loaded_by(["socket"])


def test_every_module_of_the_core_is_looked_at():
    assert {"diplex_core", "diplex_core.words", "diplex_core.ledger"} <= set(core_modules())
