"""The names that diplex relies on, looked up in the engine that is installed here."""

from collections.abc import Iterator

from diplex_cli.doctor.check import Check
from diplex_workers.engines.introspection import Finding, look_up
from diplex_workers.engines.names import Name, listed

PACKAGES = {"trtllm": "tensorrt_llm"}
"""Engines whose package can be looked into, by name."""

_SHOWN = 6


def name_checks(engine: str) -> Iterator[Check]:
    """One line for the package, and one for the names."""
    title = listed().engines[engine]
    found = {name: look_up(name) for name in listed().of(engine)}
    package = PACKAGES[engine]
    if all(finding is not Finding.THERE for finding in found.values()):
        mend = f"run this where {package} is installed: NVIDIA's TensorRT-LLM container has it"
        yield Check(
            "engine_names", f"names of {title}", "skip", "those in docs/engines.md", "not installed", mend
        )
        return
    missing = [name for name, finding in found.items() if finding is Finding.MISSING and not name.newer]
    without = [name for name, finding in found.items() if finding is Finding.MISSING and name.newer]
    there = sum(finding is Finding.THERE for finding in found.values())
    unseen = sum(finding is Finding.UNSEEN for finding in found.values())
    seen = f"{there} there, {unseen} that only running it would show"
    if without:
        seen += f"; done without, as older versions lack them: {_several(without)}"
    if missing:
        seen += f"; missing: {_several(missing)}"
    yield Check(
        "engine_names",
        f"names of {title}",
        "fail" if missing else "pass",
        f"the {len(found)} names in docs/engines.md",
        seen,
        "a version that has them, or engine: {kind: attach} until diplex knows this one" if missing else "",
    )


def _several(names: list[Name]) -> str:
    words = [f"{name.of}.{name.name}" if name.of else name.name for name in names]
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return ", ".join(words[:_SHOWN]) + more
