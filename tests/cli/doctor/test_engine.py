"""Checks 2 and 3: what an engine's own page says, against what its worker was configured for. The pages are
made from the sources of the engines' metrics, see docs/engines.md."""

import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2
from diplex_cli.doctor.check import Check
from diplex_cli.doctor.engine import Told, engine_checks, read
from diplex_cli.doctor.subject import Subject

TRTLLM = """\
# TYPE trtllm_model_config_info gauge
trtllm_model_config_info{model="m",dtype="bfloat16",quantization="NVFP4",gpu_type="NVIDIA B200"} 1.0
trtllm_kv_cache_config_info{page_size="32",enable_block_reuse="True",cache_dtype="fp8"} 1.0
trtllm_kv_cache_max_blocks{model_name="m"} 20000.0
trtllm_kv_cache_tokens_per_block{model_name="m"} 32.0
"""
VLLM = 'vllm:cache_config_info{block_size="16",cache_dtype="fp8",engine="0",num_gpu_blocks="1000"} 1.0\n'


def worker(**more: object) -> Subject:
    words = {
        "name": "w0",
        "pattern": "A",
        "gpu": "b200",
        "engine": "attach",
        "profile": "qwen2.5-72b",
        "weights": "nvfp4",
        "kv_cache": "fp8",
        "block_tokens": 32,
        "capacity_blocks": 20_000,
    }
    info = pb.WorkerInfo(**(words | more))  # type: ignore[arg-type]
    return Subject(router_pb2.FleetWorker(info=info, state="up"))


def examined(subject: Subject, told: Told | None) -> dict[str, Check]:
    return {check.id: check for check in engine_checks([subject], told)}


def test_tensorrt_llm_tells_its_quantisation_its_cache_and_its_pool():
    assert read(TRTLLM) == Told("NVFP4", "fp8", 640_000)


def test_vllm_tells_its_cache_and_nothing_of_kernels():
    assert read(VLLM) == Told("", "fp8", 16_000)


def test_what_is_in_use_passes_where_it_is_what_was_configured():
    checks = examined(worker(), read(TRTLLM))
    assert {id_: check.status for id_, check in checks.items()} == dict.fromkeys(checks, "pass")
    assert "gemm_mx_fp4_sm100" in checks["kernels"].expected
    assert 'kv_cache_type="mx_fp8" exists nowhere' in checks["kv_cache_type"].expected


def test_a_fallback_to_another_format_fails():
    checks = examined(worker(), read(TRTLLM.replace("NVFP4", "FP8").replace('"fp8"', '"auto"')))
    assert (checks["kernels"].status, checks["kernels"].seen) == ("fail", "FP8")
    assert (checks["kv_cache_type"].status, checks["kv_cache_type"].seen) == ("fail", "auto")


def test_more_promised_than_the_engine_has_fails():
    checks = examined(worker(), read(TRTLLM.replace("20000.0", "100.0")))
    assert checks["kv_pool"].status == "fail"
    assert checks["kv_pool"].mend == (
        "packages.….kv_blocks: the engine has 3,200 tokens, and more are promised"
    )


@pytest.mark.parametrize(("blocks", "status"), [(20_000, "pass"), (14_000, "warn"), (5_000, "fail")])
def test_a_pool_is_measured_by_what_the_planner_has_room_for(blocks: int, status: str):
    assert examined(worker(capacity_blocks=blocks), None)["kv_pool"].status == status


def test_nobody_asked_is_no_failure():
    checks = examined(worker(), None)
    assert (checks["kernels"].status, checks["kernels"].seen) == ("skip", "nobody was asked")
    assert "--engine-url" in checks["kernels"].mend


def test_a_page_that_is_not_served_names_the_switch():
    checks = examined(worker(), Told(problem="http://h:8000/prometheus/metrics: Not Found"))
    assert checks["kv_cache_type"].status == "skip"
    assert "return_perf_metrics: true" in checks["kv_cache_type"].mend


def test_simulated_engines_have_neither_kernels_nor_a_cache():
    checks = examined(worker(simulated=True, calibration="chapter"), None)
    assert {checks[id_].status for id_ in ("kernels", "kv_cache_type")} == {"skip"}
