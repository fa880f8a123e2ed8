"""`doctor --engine trtllm` looks the listed names up, here in a stand-in made from TensorRT-LLM's sources."""

import json
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from diplex_cli.doctor.names import name_checks
from diplex_cli.main import main

Install = Callable[..., dict[str, ModuleType]]


def test_every_name_that_can_be_looked_up_is_there(install: Install):
    install()
    (check,) = name_checks("trtllm")
    assert (check.status, check.mend) == ("pass", ""), check.seen
    assert "done without" not in check.seen


def test_what_an_older_version_lacks_is_told_and_no_failure(install: Install):
    install(newest=False)
    (check,) = name_checks("trtllm")
    assert check.status == "pass"
    assert "Eagle3DecodingConfig" in check.seen and "LLM.generate_async.priority" in check.seen


@pytest.mark.parametrize(
    ("module", "owner", "lost", "told"),
    [
        ("tensorrt_llm.llmapi", None, "KvCacheConfig", "KvCacheConfig"),
        ("tensorrt_llm.llmapi", "LLM", "get_kv_cache_events_async", "LLM.get_kv_cache_events_async"),
        ("tensorrt_llm.llmapi", "KvCacheConfig", "event_buffer_max_size", "event_buffer_max_size"),
    ],
)
def test_a_name_that_the_installed_package_lacks_fails(
    install: Install,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    owner: str | None,
    lost: str,
    told: str,
):
    made: Any = install()[module]
    if owner is None:
        monkeypatch.delattr(made, lost)
    else:
        without: Any = type(owner, (), {"model_fields": {}} if lost.islower() and owner != "LLM" else {})
        monkeypatch.setattr(made, owner, without)
    (check,) = name_checks("trtllm")
    assert check.status == "fail" and told in check.seen
    assert "attach" in check.mend


def test_without_the_package_it_is_skipped(monkeypatch: pytest.MonkeyPatch):
    for name in ("tensorrt_llm", "tensorrt_llm.llmapi"):
        monkeypatch.setitem(sys.modules, name, None)
    (check,) = name_checks("trtllm")
    assert (check.status, check.seen) == ("skip", "not installed")


def test_the_command_prints_what_scripts_read(
    install: Install,
    capsys: pytest.CaptureFixture[str],
):
    install()
    assert main(["doctor", "--engine", "trtllm", "--json"]) == 0
    (check,) = json.loads(capsys.readouterr().out)["checks"]
    assert check.keys() == {"id", "title", "status", "expected", "seen", "mend"}
    assert (check["id"], check["status"]) == ("engine_names", "pass")


def test_an_engine_that_cannot_be_looked_into_is_wrong_usage(capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", "--engine", "vllm"]) == 2
    assert "'vllm' cannot be looked into. Mend: --engine trtllm" in capsys.readouterr().err
