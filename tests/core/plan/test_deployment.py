"""What is planned for, and what is refused with the numbers and the nearest thing that works."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diplex_core.model import catalogue
from diplex_core.model.memory import Drafter
from diplex_core.model.steps import memory_of
from diplex_core.plan.deployment import Deployment, Unplannable, deployment_of, fits, objection
from diplex_core.words import Pattern

QWEN = "qwen2.5-72b"


def refusal(model: str = QWEN, **asked: Any) -> str:
    with pytest.raises(Unplannable) as refused:
        deployment_of(model, **asked)
    message = str(refused.value)
    assert "\n" not in message
    return message


def flags_of(message: str) -> Iterator[dict[str, Any]]:
    """Each way out that a refusal names, as arguments of `deployment_of`."""
    for way in message.partition("Nearest: ")[2].partition(", which ")[0].split(", or "):
        words = way.strip(" ,").split()
        yield {
            flag.removeprefix("--"): int(value) if value.isdecimal() else value
            for flag, value in zip(words[::2], words[1::2], strict=True)
        }


def written(folder: Path, **more: Any) -> str:
    """The config of Llama-3.1-405B, or of one as large as it is said to be."""
    shape: dict[str, Any] = {
        "model_type": "llama",
        "num_hidden_layers": 126,
        "hidden_size": 16384,
        "intermediate_size": 53248,
        "num_attention_heads": 128,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        **more,
    }
    (folder / "large.json").write_text(json.dumps(shape), encoding="utf-8")
    return str(folder / "large.json")


@pytest.mark.parametrize(
    ("gpu", "weights", "kv_cache", "count"),
    [
        ("b200", "mxfp4-mixed", "mxfp8", 1),
        ("hgx-b200", "mxfp4-mixed", "mxfp8", 8),
        ("h200", "fp8", "fp8", 1),
    ],
)
def test_what_is_not_said_is_all_of_the_box_in_formats_that_it_computes(
    gpu: str, weights: str, kv_cache: str, count: int
):
    planned = deployment_of(QWEN, gpu=gpu)
    assert (planned.weights, planned.kv_cache) == (weights, kv_cache)
    assert (planned.count, planned.tp, planned.pattern) == (count, count, Pattern.A)


@pytest.mark.parametrize(
    ("asked", "engines", "shards", "dies"),
    [
        ({}, 1, 1, (None,)),
        ({"pattern": "B"}, 2, 1, (0,)),
        ({"pattern": "C"}, 1, 2, (0, 1)),
        ({"pattern": "D"}, 1, 1, (0, 1)),
        ({"pattern": "A+EAGLE"}, 1, 1, (None,)),
        ({"gpu": "hgx-b200"}, 1, 8, (None,)),
        ({"gpu": "hgx-b200", "tp": 2}, 4, 2, (None,)),
        ({"gpu": "hgx-b200", "pattern": "B"}, 2, 8, (0,)),
        ({"gpu": "hgx-b200", "pattern": "C", "tp": 4}, 2, 8, (0, 1)),
        ({"gpu": "h200", "count": 4}, 1, 4, (None,)),
        ({"gpu": "h200", "count": 4, "pattern": "C", "tp": 2}, 2, 2, (0, 1)),
        ({"gpu": "h200", "count": 2, "pattern": "B"}, 2, 1, (0,)),
        ({"gpu": "h200", "count": 2, "pattern": "D"}, 1, 1, (0, 1)),
    ],
)
def test_engines_and_their_shards_follow_from_pattern_and_gpus(
    asked: dict[str, Any], engines: int, shards: int, dies: tuple[int | None, ...]
):
    planned = deployment_of(QWEN, **asked)
    assert (planned.engines, planned.shards, planned.layout.dies) == (engines, shards, dies)


def test_two_gpus_with_a_die_each_play_a_package():
    planned, h200 = deployment_of(QWEN, gpu="h200", count=2, pattern="C"), catalogue.gpu("h200")
    assert (planned.package.dies, planned.package.die_link) == (2, h200.gpu_link)
    assert planned.package.bandwidth == 2 * h200.bandwidth
    side_by_side = deployment_of(QWEN, gpu="h200", count=2)
    assert planned.layout.capacity_blocks(32) == side_by_side.layout.capacity_blocks(32)


@pytest.mark.parametrize("pattern", Pattern)
def test_the_planner_and_the_workers_have_the_same_pools(pattern: Pattern):
    worker = memory_of(pattern, gpu="b200", profile=QWEN, weights="mxfp4-mixed", kv_cache="mxfp8")
    assert deployment_of(QWEN, pattern=pattern).layout == worker


@pytest.mark.parametrize(
    ("model", "gpu", "count", "drafter"),
    [
        (QWEN, "b200", 1, Drafter("qwen2.5-7b", "mxfp4")),
        ("llama-3.1-70b", "b200", 1, Drafter("llama-3.1-8b", "mxfp4")),
        ("smollm2-1.7b", "b200", 1, Drafter("smollm2-360m", "mxfp4")),
        ("qwen2.5-32b", "h200", 2, Drafter("qwen2.5-7b", "fp8")),
    ],
)
def test_pattern_d_drafts_with_a_smaller_model_of_the_same_vocabulary(
    model: str, gpu: str, count: int, drafter: Drafter
):
    assert deployment_of(model, gpu=gpu, count=count, pattern="D").draft == drafter


@pytest.mark.parametrize(
    ("model", "asked", "message"),
    [
        (
            "qwen2.5-72",
            {},
            "unknown model 'qwen2.5-72'; known: llama-3.1-70b, llama-3.1-8b, qwen2.5-14b, "
            "qwen2.5-32b, qwen2.5-72b, "
            "qwen2.5-7b, smollm2-1.7b, smollm2-135m, smollm2-360m; nearest: qwen2.5-72b",
        ),
        (QWEN, {"gpu": "B20"}, "unknown gpu 'B20'; known: b200, h100, h200, hgx-b200; nearest: b200"),
        (
            QWEN,
            {"weights": "fp16"},
            "unknown number format 'fp16'; known: bf16, fp8, fp8-mxfp4, mxfp4, mxfp4-mixed, mxfp6, "
            "mxfp6-mxfp4, "
            "mxfp8, nvfp4; nearest: bf16",
        ),
        (
            QWEN,
            {"kv_cache": "mxfp4-mixed"},
            "unknown number format 'mxfp4-mixed'; known: bf16, fp8, mxfp4, mxfp6, mxfp8, nvfp4; "
            "nearest: mxfp4",
        ),
        (
            QWEN,
            {"pattern": "a+eagle2"},
            "unknown pattern 'a+eagle2'; known: A, B, C, D, A+EAGLE; nearest: A+EAGLE",
        ),
        (QWEN, {"pattern": "X"}, "unknown pattern 'X'; known: A, B, C, D, A+EAGLE; nearest: A"),
        (
            QWEN,
            {"gpu": "hgx-b200", "pattern": "C"},
            "--tp 8 in pattern C makes 16 parts, which do not divide the 64 heads and 8 KV heads of "
            "qwen2.5-72b. "
            "Nearest: --tp 1, or --tp 2, or --tp 4",
        ),
        (
            "qwen2.5-7b",
            {"gpu": "hgx-b200"},
            "--tp 8 in pattern A makes 8 parts, which do not divide the 28 heads and 4 KV heads of "
            "qwen2.5-7b. "
            "Nearest: --tp 1, or --tp 2, or --tp 4",
        ),
        (
            QWEN,
            {"gpu": "hgx-b200", "pattern": "D"},
            "--tp 8 in pattern D makes 8 parts, which do not divide the 28 heads and 4 KV heads of "
            "qwen2.5-7b. "
            "Nearest: --tp 1, or --tp 2, or --tp 4",
        ),
        (
            "smollm2-135m",
            {"pattern": "C"},
            "--tp 1 in pattern C makes 2 parts, which do not divide the 9 heads and 3 KV heads of "
            "smollm2-135m. "
            "Nearest: --pattern A --tp 1",
        ),
        (QWEN, {"count": 6, "tp": 4}, "--count 6 is no multiple of --tp 4. Nearest: --tp 3, or --count 8"),
        (QWEN, {"gpu": "hgx-b200", "tp": 5}, "--count 8 is no multiple of --tp 5. Nearest: --tp 4"),
        (QWEN, {"count": 2, "tp": 4}, "--tp 4 spans more GPUs than --count 2. Nearest: --tp 2, or --count 4"),
        (
            QWEN,
            {"gpu": "hgx-b200", "count": 9},
            "--count 9 --tp 9 is more than the GPUs of hgx-b200. Nearest: --count 8 --tp 8",
        ),
        (QWEN, {"count": -1}, "--count -1 --tp -1 is nothing to plan for. Nearest: --count 1 --tp 1"),
        (
            QWEN,
            {"gpu": "h200", "pattern": "B"},
            "pattern B needs two dies and h200 has one: two of them play a package, and --count 1 "
            "--tp 1 leaves one "
            "over. Nearest: --count 2 --tp 2, or --pattern A",
        ),
        (
            "qwen2.5-7b",
            {"pattern": "D"},
            "pattern D needs a draft model, and none here has qwen2.5-7b's vocabulary of 152,064 "
            "and at most a quarter "
            "of its parameters. Nearest: --pattern A+EAGLE, which drafts with a head of its own",
        ),
        (
            QWEN,
            {"gpu": "h100"},
            "qwen2.5-72b does not fit into h100's 84.9 GB: weights 75.2 GB, context 1.5 GB, scratch 3.0 GB, "
            "activations 12.0 GB, reserve 10.0 GB. Nearest: --count 2 --tp 2, or --gpu h200",
        ),
        (
            QWEN,
            {"pattern": "B", "weights": "bf16"},
            "qwen2.5-72b does not fit into one die of b200's 95.8 GB: weights 145.4 GB, context 1.5 "
            "GB, scratch 3.0 GB, "
            "activations 6.0 GB, reserve 5.0 GB. "
            "Nearest: --pattern A, or --weights mxfp8, or --count 2 --tp 2",
        ),
        (
            QWEN,
            {"gpu": "h100", "count": 2, "weights": "bf16"},
            "qwen2.5-72b does not fit into h100's 84.9 GB, each of 2: weights 72.7 GB, context 1.5 "
            "GB, scratch 3.0 GB, "
            "activations 12.0 GB, reserve 10.0 GB. "
            "Nearest: --weights fp8, or --count 4 --tp 4, or --gpu b200",
        ),
    ],
)
def test_what_cannot_be_deployed_is_refused_with_what_can(model: str, asked: dict[str, Any], message: str):
    assert refusal(model, **asked) == message


def test_a_model_that_fits_no_single_gpu_is_told_how_many_do(tmp_path: Path):
    said = refusal(written(tmp_path), gpu="h100")
    assert "weights 410.1 GB" in said
    assert said.endswith("Nearest: --count 8 --tp 8, or --gpu hgx-b200")


def test_where_one_change_is_not_enough_two_are_named(tmp_path: Path):
    huge = written(tmp_path, num_hidden_layers=500)
    assert refusal(huge, gpu="h100").endswith("Nearest: --gpu hgx-b200 --weights mxfp6")
    assert deployment_of(huge, gpu="hgx-b200", weights="mxfp6").layout.fits


def test_a_model_that_nothing_here_holds_is_told_so_with_the_numbers(tmp_path: Path):
    said = refusal(written(tmp_path, num_hidden_layers=2000))
    assert said.endswith(
        "Nearest: a smaller model: in mxfp4 its weights still take 3395.4 GB, "
        "and the largest here, hgx-b200, has 1532.0 GB"
    )


# Every refusal's way out, tried.
ASKED = st.fixed_dictionaries(
    {
        "model": st.sampled_from(catalogue.names("profiles/models")),
        "gpu": st.sampled_from(catalogue.names("profiles/gpus")),
        "pattern": st.sampled_from([*Pattern, "a", "E"]),
        "weights": st.sampled_from(["", *catalogue.names("profiles/formats")]),
        "count": st.integers(0, 9),
        "tp": st.integers(0, 9),
    }
)


def tried(asked: dict[str, Any]) -> tuple[Deployment | None, str]:
    try:
        return deployment_of(**asked), ""
    except Unplannable as why:
        return None, str(why)


@given(ASKED)
def test_the_nearest_thing_is_nearer_to_something_that_works(asked: dict[str, Any]):
    """Whoever follows the first way out of each refusal arrives."""
    seen: list[str] = []
    for _ in range(6):
        planned, why = tried(asked)
        if planned is not None:
            return
        assert why not in seen, seen
        seen.append(why)
        if "; nearest: " in why:
            asked = {**asked, "pattern": why.rpartition("nearest: ")[2]}
        else:
            asked = {**asked, **next(flags_of(why))}
    raise AssertionError(seen)


@pytest.mark.parametrize(
    ("asked", "batch", "context", "said"),
    [
        ({}, 21, 32_768, None),
        ({}, 1, 131_072, None),
        (
            {},
            32,
            32_768,
            "32 × 32,768 tokens need 177.2 GB of KV cache in mxfp8; qwen2.5-72b in mxfp4-mixed "
            "leaves 120.3 GB for "
            "it. Nearest: --batch 21, or --context 22240, or --count 2 --tp 2",
        ),
        (
            {"pattern": "B"},
            14,
            32_768,
            "7 × 32,768 tokens, on each of 2 engines, need 38.8 GB of KV cache in mxfp8; "
            "qwen2.5-72b in mxfp4-mixed "
            "leaves 35.6 GB for it. Nearest: --batch 12, or --context 30048, or --pattern A",
        ),
        ({"pattern": "B"}, 12, 32_768, None),
        (
            {},
            1,
            200_000,
            "qwen2.5-72b reads at most 131,072 tokens, not 200,000. Nearest: --context 131072",
        ),
        ({}, 0, 2048, "--batch 0 --context 2048 is nothing to plan for. Nearest: --batch 1 --context 2048"),
    ],
)
def test_a_load_that_does_not_fit_is_told_the_largest_that_does(
    asked: dict[str, Any], batch: int, context: int, said: str | None
):
    planned = deployment_of(QWEN, **asked)
    assert objection(planned, batch, context) == said
    assert fits(planned, batch, context) is (said is None)


@given(
    st.sampled_from(Pattern), st.sampled_from(["nvfp4", "fp8"]), st.integers(1, 4000), st.integers(1, 131_072)
)
def test_the_largest_batch_and_context_fit_and_more_of_either_does_not(
    pattern: Pattern, weights: str, batch: int, context: int
):
    planned = deployment_of(QWEN, pattern=pattern, weights=weights)
    most, longest = planned.largest_batch(context), planned.largest_context(batch)
    assert not most or fits(planned, most, context)
    assert not fits(planned, most + 1, context)
    assert not longest or fits(planned, batch, longest)
    assert not fits(planned, batch, longest + 1)
