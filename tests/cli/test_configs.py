"""The files that users copy are fine, and the schema says what the checks say."""

import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from diplex_cli import reader
from diplex_cli.main import main
from diplex_core.config import remarks
from diplex_core.config.schema import schema, text

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(CONFIGS.glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_to_copy_is_fine_and_acted_on_whole(file: Path):
    config = reader.read([str(file)]).config()
    assert list(remarks(config)) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_to_copy_tells_editors_of_the_schema(file: Path):
    assert file.read_text().startswith("# yaml-language-server: $schema=schema.json\n")


def test_the_laptops_file_is_the_embedded_default():
    assert reader.read([str(CONFIGS / "laptop.yaml")]).tree == reader.read([]).tree


def test_the_committed_schema_is_what_the_words_make():
    assert (CONFIGS / "schema.json").read_text() == text(), "Mend: make schema"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_schema_takes_every_file_to_copy(file: Path):
    assert complaint(reader.read([str(file)]).tree, schema()) is None


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("foo",), 1),
        (("packages", "pkg0", "pattern"), "E"),
        (("packages", "pkg0", "engine", "calibration"), "guess"),
        (("packages", "pkg0", "engine", "threads"), 2),
        (("packages", "pkg0", "port"), 0),
        (("tiers", "bulk", "patterns"), []),
        (("tiers", "bulk", "ttft_p95_ms"), {"per_1k_prompt_tokens": 1}),
        (("tenants",), {"acme": {}}),
        (("tenants",), {"acme": {"api_key_env": "KEY", "api_key_file": "key"}}),
    ],
)
def test_the_schema_refuses_what_the_checks_refuse(path: tuple[str, ...], value: Any):
    tree = reader.read([str(CONFIGS / "laptop.yaml")]).tree
    here = tree
    for key in path[:-1]:
        here = here[key]
    here[path[-1]] = value
    assert complaint(tree, schema()) is not None


@pytest.mark.parametrize("key", [{"api_key_env": "KEY"}, {"api_key_file": "key"}])
def test_the_schema_takes_a_tenant_with_either_kind_of_key(key: dict[str, str]):
    tree = reader.read([]).tree | {"tenants": {"acme": {**key, "tiers": ["bulk"]}}}
    assert complaint(tree, schema()) is None


def complaint(value: Any, rules: dict[str, Any]) -> str | None:
    """A reader of the few words of JSON Schema that ours uses: what it objects to, or nothing."""
    if "oneOf" in rules:
        fitting = [one for one in rules["oneOf"] if complaint(value, one) is None]
        if len(fitting) != 1:
            return f"{value!r} fits {len(fitting)} of the alternatives"
    if "const" in rules and value != rules["const"]:
        return f"{value!r} is not {rules['const']!r}"
    if "enum" in rules and value not in rules["enum"]:
        return f"{value!r} is none of {rules['enum']}"
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    said = rules.get("type", [])
    wanted = [said] if isinstance(said, str) else said
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if wanted and not any(
        number if kind in ("number", "integer") else isinstance(value, kinds[kind]) for kind in wanted
    ):
        return f"{value!r} is no {wanted}"
    if number and (value < rules.get("minimum", value) or value <= rules.get("exclusiveMinimum", value - 1)):
        return f"{value} is too small"
    if isinstance(value, str) and not re.search(rules.get("pattern", ""), value):
        return f"{value!r} is not like {rules['pattern']}"
    if isinstance(value, list):
        short = ["too short"] if len(value) < rules.get("minItems", 0) else []
        return next(
            iter([*short, *filter(None, (complaint(one, rules.get("items", {})) for one in value))]), None
        )
    if isinstance(value, dict):
        known, others = rules.get("properties", {}), rules.get("additionalProperties", {})
        if missing := set(rules.get("required", [])) - value.keys():
            return f"lacks {missing}"
        for key, one in value.items():
            inner = known.get(key, others)
            if inner is False:
                return f"{key} is unknown"
            if found := complaint(one, inner):
                return f"{key}: {found}"
    return None


def test_the_schema_is_printed_by_the_command(capsys: pytest.CaptureFixture[str]):
    assert main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema()


def test_the_schema_is_printed_by_its_module():
    import runpy
    import sys

    sys.modules.pop("diplex_core.config.schema", None)
    out = io.StringIO()
    with redirect_stdout(out):
        runpy.run_module("diplex_core.config.schema", run_name="__main__")
    assert json.loads(out.getvalue()) == schema()
