"""Recipes: the whole script of each deployment, held to a golden file and to shellcheck."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from diplex_cli.main import main

GOLDEN = Path(__file__).parent / "golden"
RECIPES = {
    "b200-a": "--pattern A",
    "b200-b": "--pattern B",
    "b200-b-mps": "--pattern B --placement mps",
    "b200-b-mlopart": "--pattern B --placement mlopart",
    "b200-c": "--pattern C",
    "b200-d": "--pattern D",
    "b200-a-eagle": "--pattern A+EAGLE",
    "h100x4": "--gpu h100 --count 4 --tp 4",
    "h200x8": "--gpu h200 --count 8 --tp 8",
    "h200-pair-b": "--gpu h200 --count 2 --pattern B",
    "h200-pair-c": "--gpu h200 --count 2 --pattern C",
    "vllm-b200-a": "--engine vllm",
    "vllm-b200-b-mps": "--engine vllm --pattern B --placement mps",
    "vllm-b200-d": "--engine vllm --pattern D",
    "vllm-b200-a-eagle": "--engine vllm --pattern A+EAGLE",
}


def printed(capsys: pytest.CaptureFixture[str], options: str, *more: str) -> str:
    assert main(["recipe", "qwen2.5-72b", *options.split(), *more]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_the_golden_one(name: str, capsys: pytest.CaptureFixture[str]):
    golden = GOLDEN / f"{name}.sh"
    assert printed(capsys, RECIPES[name]) == golden.read_text(), (
        f"Mend, once the change is meant: diplex recipe qwen2.5-72b {RECIPES[name]} > {golden.name}"
    )


def test_no_golden_file_is_nobodys():
    assert {file.stem for file in GOLDEN.glob("*.sh")} == set(RECIPES)


def test_shellcheck_has_nothing_to_say_of_any_recipe():
    found = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), *sorted(GOLDEN.glob("*.sh"))],
        capture_output=True,
        text=True,
    )
    assert found.stdout == ""
    assert found.returncode == 0


@pytest.mark.parametrize("name", RECIPES)
def test_every_flag_of_the_chapter_stands_in_the_recipe_with_its_real_name_or_that_there_is_none(name: str):
    text = (GOLDEN / f"{name}.sh").read_text()
    for flag, real in (
        ("--qformat mx_fp4_mixed", "does not exist; --qformat nvfp4"),
        ("--intra_package=True", "does not exist; two MLOPart devices and --tp_size 2"),
        ("--enable_chunked_context", "does not exist here; enable_chunked_prefill"),
        ("--kv_cache_type mx_fp8", "never a number format"),
        ("trtllm-bench --short", "does not exist"),
    ):
        line = next(line for line in text.splitlines() if line.startswith(f"#   {flag}"))
        assert real in line


def test_the_chapters_own_commands_are_all_covered():
    """Its §2, §4.3 and §7, word by word."""
    text = (GOLDEN / "b200-c.sh").read_text()
    flags = (
        "model_dir output_dir dtype qformat calib_dataset calib_size checkpoint_dir gemm_plugin "
        "gpt_attention_plugin max_batch_size max_input_len max_seq_len kv_cache_type use_paged_context_fmha "
        "use_fused_mlp paged_kv_cache remove_input_padding gather_context_logits backend port max_num_tokens "
        "enable_chunked_context kv_cache_free_gpu_memory_fraction tp_size intra_package short num_requests "
        "max_output_len concurrency"
    )
    chapter = text[text.index("# The chapter's flags") :]
    assert [flag for flag in flags.split() if f"--{flag}" not in chapter] == []


@pytest.mark.parametrize("name", [name for name in RECIPES if not name.startswith("vllm")])
def test_a_recipe_never_uses_a_flag_or_format_that_its_engine_lacks(name: str):
    script = (GOLDEN / f"{name}.sh").read_text()
    commands = [line for line in script.splitlines() if not line.lstrip().startswith("#")]
    for gone in ("intra_package", "mx_fp", "trtllm-build", "chunked_context", "kv_cache_type"):
        assert not any(gone in line for line in commands)


def test_the_json_has_what_launching_needs(capsys: pytest.CaptureFixture[str]):
    said = json.loads(printed(capsys, "--pattern B --placement mps", "--json"))
    assert said["placement"] == "mps"
    assert [one["url"] for one in said["engines"]] == ["http://127.0.0.1:8000", "http://127.0.0.1:8001"]
    first = said["engines"][0]
    assert first["env"]["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "50"
    assert first["config"]["kv_cache_config"]["max_tokens"] == said["sizes"]["pool_tokens"]
    assert first["command"][0] == "trtllm-serve"
    assert said["chapter"][0] == {
        "command": "python -m tensorrt_llm.quantization.quantize: no such command; ModelOpt's hf_ptq.py",
        "flag": "--model_dir ./qwen72b",
        "real": "--pyt_ckpt_path",
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--pattern C --placement mig", "one process sees one MIG device"),
        ("--pattern C --placement plain", "one device is one rank: that is pattern A"),
        ("--weights mxfp4-mixed", "Nearest: --weights nvfp4"),
        ("--kv-cache mxfp8", "Nearest: --kv-cache fp8"),
        ("--gpu h100 --count 4 --weights nvfp4", "h100 has no tensor cores for NVFP4"),
        ("--engine vllm --kv-cache mxfp8", "vLLM serves no dense model with --kv-cache mxfp8"),
        ("--gpu h100 --count 4 --kv-cache nvfp4", "h100 has no NVFP4 KV cache"),
        ("--engine vllm --pattern B --placement mig", "vLLM 0.20 reads CUDA_VISIBLE_DEVICES as indices"),
        ("--pattern B --count 2 --tp 2", "Nearest: --tp 1"),
        ("--engine sglang", "Nearest: --engine trtllm"),
        ("--tpot-ms soon", "Mend: --tpot-ms 50"),
        ("--longest 1m", "reads at most"),
    ],
)
def test_what_cannot_be_is_refused_with_the_nearest_that_can(
    options: str, said: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["recipe", "qwen2.5-72b", *options.split()]) != 0
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) <= 2
