"""What the configuration says reaches the engine; what it leaves out is the engine's own default."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode

from diplex.wire.status import Problem
from diplex_cli.engines import engine_for
from diplex_cli.failures import UsageError
from diplex_core.config import (
    AttachConfig,
    Draft,
    LlamaCppConfig,
    ModelConfig,
    SimConfig,
    TrtLlmConfig,
    WorkerConfig,
)
from diplex_core.plan.recipe_ways import Way
from diplex_core.words import Pattern
from diplex_workers.engines import attach, llamacpp, sim, trtllm
from diplex_workers.launch import seating
from diplex_workers.launch.placement import Wanted
from diplex_workers.launch.weights import WeightsMissing

MODEL = ModelConfig("big", "qwen2.5-72b", "mxfp4-mixed", "mxfp8")


def worker(engine: Any, **more: Any) -> WorkerConfig:
    return WorkerConfig(
        "pkg0", "pkg0", "b200", Pattern.C, (0, 1), MODEL, engine, host="127.0.0.1", port=7610, **more
    )


@pytest.fixture(autouse=True)
def settings_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines that are nothing but the settings that they were made with."""
    for module, name in ((sim, "SimEngine"), (llamacpp, "LlamaCppEngine"), (attach, "AttachEngine")):
        monkeypatch.setattr(module, name, lambda settings, **more: settings)


def test_a_simulated_engine_is_about_the_model_and_the_pattern():
    engine = worker(
        SimConfig("chapter", time_scale=10, seed=3),
        prefill_budget=256,
        slots=4,
        kv_blocks=99,
        block_tokens=16,
    )
    assert engine_for(engine) == sim.SimSettings(
        models=("big",),
        calibration="chapter",
        pattern=Pattern.C,
        time_scale=10,
        seed=3,
        capacity_blocks=99,
        slots=4,
        prefill_budget=256,
        block_tokens=16,
    )


@pytest.mark.parametrize(
    ("draft", "told"),
    [(Draft("qwen2.5-7b", 4), ("qwen2.5-7b", 4)), (Draft("", 3), (None, 3)), (None, (None, None))],
)
def test_a_simulated_engine_drafts_as_its_package_says(
    draft: Draft | None, told: tuple[str | None, int | None]
):
    made: Any = engine_for(worker(SimConfig("chapter"), draft=draft))
    assert (made.draft_model, made.draft_tokens) == told


def test_llamacpp_gets_its_weights_and_its_share_of_the_machine(tmp_path: Path):
    weights = tmp_path / "model.gguf"
    weights.touch()
    engine = worker(
        LlamaCppConfig(str(weights), threads=2, context=512, niceness=5), slots=3, prefill_budget=8
    )
    assert engine_for(engine) == llamacpp.LlamaCppSettings(
        model="big", weights=str(weights), context=512, slots=3, threads=2, prefill_chunk=8, niceness=5
    )


def test_llamacpp_without_weights_is_not_started():
    with pytest.raises(WeightsMissing, match=r"no weights at /nowhere\.gguf"):
        engine_for(worker(LlamaCppConfig("/nowhere.gguf")))


def test_an_attached_server_gets_its_key_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ENGINE_KEY", "sesame")
    engine = AttachConfig(
        "vllm", "http://h:1", upstream_model="org/Big", api_key_env="ENGINE_KEY", guard_blocks=7
    )
    assert engine_for(worker(engine, kv_blocks=10)) == attach.AttachSettings(
        url="http://h:1",
        model="big",
        upstream_model="org/Big",
        api="vllm",
        capacity_blocks=10,
        guard_blocks=7,
        api_key="sesame",
    )


def test_how_an_attached_server_is_watched_is_the_configurations_to_say():
    engine = AttachConfig("sglang", "http://h:1", priorities=True, stall_s=5, check_kv=False)
    assert engine_for(worker(engine)) == attach.AttachSettings(
        url="http://h:1", model="big", api="sglang", priorities=True, stall=5, check_kv=False
    )


def test_an_engine_over_grpc_reads_with_the_models_tokenizer():
    tokenized = ModelConfig("big", tokenizer="/models/big")
    engine = AttachConfig("vllm-grpc", "grpc://h:1")
    made: Any = engine_for(replace(worker(engine), model=tokenized))
    assert made == attach.AttachSettings("grpc://h:1", "big", api="vllm-grpc", tokenizer="/models/big")


def test_what_an_engine_over_grpc_needs_is_told_where_it_is_missing(monkeypatch: pytest.MonkeyPatch):
    def missing(settings: Any, **more: Any) -> None:
        raise Problem(StatusCode.FAILED_PRECONDITION, "pip install 'diplex[grpc-engines]'", "ENGINE_UNSAID")

    monkeypatch.setattr(attach, "AttachEngine", missing)
    with pytest.raises(UsageError, match="grpc-engines"):
        engine_for(worker(AttachConfig("vllm-grpc", "grpc://h:1")))


def test_a_key_that_is_not_set_is_told():
    engine = AttachConfig("vllm", "http://h:1", api_key_env="NO_SUCH_KEY")
    with pytest.raises(UsageError, match="the environment variable NO_SUCH_KEY is not set"):
        engine_for(worker(engine))


@pytest.mark.parametrize("config", [SimConfig("chapter"), AttachConfig("openai", "http://h:1")])
def test_what_is_left_out_is_the_engines_own_default(config: Any):
    made: Any = engine_for(worker(config))
    default = {"SimSettings": sim.SimSettings(("big",), "chapter", Pattern.C),
               "AttachSettings": attach.AttachSettings("http://h:1", "big")}  # fmt: skip
    assert made == default[type(made).__name__]


def test_tensorrt_llm_is_told_its_pattern_and_what_drafts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trtllm, "TrtLlmEngine", lambda settings, place: settings)
    engine = TrtLlmConfig("ckpt", draft_checkpoint="small", tensor_parallel=4, context=9000, kv_share=0.5)
    told = worker(engine, draft=Draft("qwen2.5-7b", 3), slots=9, prefill_budget=1024)
    assert engine_for(told) == trtllm.TrtLlmSettings(
        model="big",
        checkpoint="ckpt",
        pattern=Pattern.C,
        gpu="b200",
        draft_checkpoint="small",
        draft_tokens=3,
        tensor_parallel=4,
        context=9000,
        slots=9,
        prefill_budget=1024,
        kv_share=0.5,
        profile="qwen2.5-72b",
        weights="mxfp4-mixed",
        kv_cache="mxfp8",
    )


def test_a_worker_for_latency_is_sized_for_it_by_the_planner(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trtllm, "TrtLlmEngine", lambda settings, place: settings)
    bulk: Any = engine_for(replace(worker(TrtLlmConfig("ckpt")), pattern=Pattern.A))
    quick: Any = engine_for(worker(TrtLlmConfig("ckpt")))
    assert quick.prefill_budget < bulk.prefill_budget == 8192
    assert 1 < quick.slots <= bulk.slots


def test_a_model_that_the_planner_does_not_know_has_the_engines_own_sizes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trtllm, "TrtLlmEngine", lambda settings, place: settings)
    unknown: Any = engine_for(replace(worker(TrtLlmConfig("ckpt")), model=ModelConfig("mine")))
    assert (unknown.slots, unknown.prefill_budget) == (64, None)


def test_a_pattern_that_drafts_with_nothing_is_a_fault_of_its_package():
    without = replace(worker(TrtLlmConfig("ckpt")), pattern=Pattern.D)
    with pytest.raises(UsageError, match=r"packages\.pkg0: pattern D needs what drafts\. Mend: "):
        engine_for(without)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({}, None),
        ({"placement": "mlopart"}, Wanted(Pattern.C, Way.MLOPART, ranks=2)),
        (
            {"placement": "plain", "devices": ("1", "2"), "tensor_parallel": 4},
            Wanted(Pattern.C, Way.PLAIN, ranks=4, devices=("1", "2")),
        ),
    ],
)
def test_its_devices_are_made_ready_where_the_configuration_says_how(
    monkeypatch: pytest.MonkeyPatch, said: dict[str, Any], wanted: Wanted | None
):
    monkeypatch.setattr(trtllm, "TrtLlmEngine", lambda settings, place: place)
    monkeypatch.setattr(seating, "Seating", lambda wanted: wanted)
    assert engine_for(worker(TrtLlmConfig("ckpt", **said))) == wanted
