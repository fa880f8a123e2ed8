"""What a package's `engine.launch` comes to: command, devices and figures."""

from collections.abc import Mapping
from typing import Any

import pytest

from diplex_cli.launching import start_of
from diplex_core.config import AttachConfig, LaunchConfig, ModelConfig, WorkerConfig
from diplex_core.plan.deployment import Unplannable
from diplex_core.plan.recipe_ways import Way
from diplex_core.words import Pattern, Promise, Rules, Target, Tier
from diplex_workers.launch.placement import Wanted

MODEL = ModelConfig("big", "qwen2.5-72b", "nvfp4", "fp8")


def worker(
    pattern: Pattern = Pattern.A,
    *,
    api: Any = "vllm",
    dies: tuple[int, ...] = (0, 1),
    gpu: str = "b200",
    model: ModelConfig = MODEL,
    more: Mapping[str, Any] = {},
    **launch: Any,
) -> WorkerConfig:
    engine = AttachConfig(api, "http://127.0.0.1:9000", launch=LaunchConfig(**launch))
    return WorkerConfig(
        "pkg0", "pkg0", gpu, pattern, dies, model, engine, host="127.0.0.1", port=7610, **more
    )


def rules(**tpot: float | None) -> Rules:
    tiers = {
        name: Tier(name, tuple(Pattern), Promise(Target(1.0, 0.0), seconds), max_output_tokens=100)
        for name, seconds in tpot.items()
    }
    return Rules(models=frozenset({"big"}), default_model="big", tiers=tiers, default_tier=next(iter(tiers)))


def after(words: tuple[str, ...], flag: str) -> str:
    return words[words.index(flag) + 1]


def test_a_command_of_ones_own_is_started_as_it_is_without_a_word_on_devices():
    start = start_of(worker(command=("my-engine", "serve"), args=("--fast",)), None)
    assert start.command == ("my-engine", "serve", "--fast")
    assert (start.wanted, start.slots, start.config) == (None, None, {})


def test_a_command_with_a_placement_gets_its_devices():
    start = start_of(worker(command=("my-engine",), placement="plain", devices=("3",)), None)
    assert start.wanted == Wanted(Pattern.A, Way.PLAIN, 1, 0, ("3",))


def test_a_checkpoint_is_served_with_the_recipes_command_at_the_packages_url():
    start = start_of(worker(checkpoint="/models/big", args=("--trust-remote-code",)), None)
    assert start.command[:3] == ("vllm", "serve", "/models/big")
    assert after(start.command, "--port") == "9000"
    assert after(start.command, "--served-model-name") == "big"
    assert start.command[-1] == "--trust-remote-code"
    assert start.wanted == Wanted(Pattern.A, Way.PLAIN)
    assert start.slots == int(after(start.command, "--max-num-seqs"))


def test_tensorrt_llm_reads_the_rest_from_a_file():
    start = start_of(worker(Pattern.C, api="trtllm", checkpoint="/models/big"), None)
    assert start.command[-2:] == ("--extra_llm_api_options", "{config}")
    assert start.config["allreduce_strategy"] == "NCCL"
    assert start.wanted == Wanted(Pattern.C, Way.MLOPART, 2)


def test_each_half_is_started_at_its_own_port_on_its_own_half():
    start = start_of(worker(Pattern.B, checkpoint="/m", dies=(1,), placement="mps"), None)
    assert after(start.command, "--port") == "9000"
    assert start.wanted == Wanted(Pattern.B, Way.MPS, 1, 1)


def test_two_hopper_gpus_play_the_dies():
    model = ModelConfig("big", "qwen2.5-72b", "fp8", "fp8")
    start = start_of(worker(Pattern.C, gpu="h200", model=model, checkpoint="/m", devices=("4", "5")), None)
    assert after(start.command, "--tensor-parallel-size") == "2"
    assert start.wanted == Wanted(Pattern.C, Way.PAIR, 2, 0, ("4", "5"))


@pytest.mark.parametrize(
    ("tiers", "latency"),
    [
        ({"chat": 0.05}, True),
        ({"chat": 0.05, "code": 0.025}, True),
        ({"chat": 0.05, "bulk": None}, False),
        ({"bulk": None}, False),
    ],
)
def test_a_worker_whose_every_tier_promises_a_time_per_token_is_sized_for_it(
    tiers: dict[str, float | None], latency: bool
):
    start = start_of(worker(checkpoint="/m"), rules(**tiers))
    tokens = int(after(start.command, "--max-num-batched-tokens"))
    assert (tokens < 2048) is latency


def test_the_tightest_promise_is_kept():
    slow, fast = (start_of(worker(checkpoint="/m"), rules(chat=seconds)).slots for seconds in (0.05, 0.025))
    assert slow is not None and fast is not None
    assert fast < slow


def test_what_a_configuration_says_of_sizes_goes_before_the_planners_figures():
    start = start_of(worker(checkpoint="/m", more={"slots": 7, "prefill_budget": 512}), None)
    assert after(start.command, "--max-num-seqs") == "7"
    assert after(start.command, "--max-num-batched-tokens") == str(512 + 7)


def test_a_format_that_the_engine_lacks_is_refused_with_the_nearest():
    chapters = ModelConfig("big", "qwen2.5-72b", "mxfp4-mixed", "mxfp8")
    with pytest.raises(Unplannable, match="Nearest: --weights nvfp4"):
        start_of(worker(model=chapters, checkpoint="/m"), None)
