"""The planner's columns: what is claimed beside what is possible, and nothing that is neither."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diplex_core.plan.deployment import Deployment, deployment_of
from diplex_core.plan.prediction import (
    Prediction,
    chapter_times,
    interference,
    predictions_of,
    roofline_of,
)
from diplex_core.words import Pattern


def planned(pattern: str = "A", model: str = "qwen2.5-72b", **more: object) -> Deployment:
    return deployment_of(model, pattern=Pattern(pattern), **more)  # type: ignore[arg-type]


EVERY = [
    *(planned(pattern) for pattern in Pattern),
    *(planned(pattern, "qwen2.5-32b", weights="fp8", kv_cache="fp8") for pattern in Pattern),
    planned("B", "llama-3.1-8b", weights="nvfp4"),
    planned("A", "qwen2.5-7b", weights="bf16", kv_cache="bf16", count=8, tp=1),
    planned("C", count=2, tp=1),
    planned("B", count=4, tp=2),
    planned("A", gpu="hgx-b200"),
    planned("A", gpu="h200", count=8),
    planned("C", gpu="h200", count=2),
    planned("D", gpu="h200", count=2),
]
DEPLOYMENTS = st.sampled_from(EVERY)
BATCH, TOKENS = st.integers(1, 512), st.integers(1, 2**20)


def one(deployment: Deployment, batch: int = 1, context: int = 2048, prompt: int = 2048) -> Prediction:
    claimed = predictions_of(deployment, batch=batch, context=context, prompt=prompt).chapter
    assert claimed is not None
    return claimed


def test_measured_is_empty_until_something_is():
    found = predictions_of(planned(), batch=1, context=2048, prompt=2048)
    assert found.measured is None
    assert all(beside.measured is None for beside in interference(planned(), batch=1, context=1, chunks=[0]))


@pytest.mark.parametrize(
    "deployment",
    [
        planned("A", gpu="h200", count=2),
        planned("A", count=2),
        planned("A", count=4),
        planned("C", gpu="h200", count=2),
        planned("C", gpu="hgx-b200", tp=2),
    ],
    ids=lambda deployment: f"{deployment.gpu.name} {deployment.pattern} {deployment.count} {deployment.tp}",
)
def test_of_what_the_chapter_does_not_speak_nothing_is_claimed(deployment: Deployment):
    found = predictions_of(deployment, batch=1, context=2048, prompt=2048)
    assert found.chapter is None
    assert found.limit.tok_s_stream > 0
    assert all(one.chapter is None for one in interference(deployment, batch=1, context=1, chunks=[0, 64]))


def test_a_figure_beyond_the_limit_is_marked_with_how_far_beyond():
    claimed = one(planned("C"))
    assert claimed.beyond["tok_s_stream"] == pytest.approx(280 / 170.9, rel=0.001)
    assert claimed.beyond["tpot"] == pytest.approx(claimed.beyond["tok_s_stream"])
    assert claimed.beyond["ttft_p50"] == pytest.approx(33.2 / 22, rel=0.001)
    assert "tok_s_aggregate" not in one(planned(), batch=32).beyond
    assert "ttft_p50" not in one(planned(), batch=32).beyond


@given(DEPLOYMENTS, BATCH, TOKENS, TOKENS)
def test_whatever_is_not_marked_is_possible(deployment, batch, context, prompt):
    found = predictions_of(deployment, batch=batch, context=context, prompt=prompt)
    assert found.limit.beyond == {}
    if found.chapter is None:
        return
    for name in ("prefill", "ttft_p50", "ttft_p95", "tpot"):
        if name not in found.chapter.beyond:
            assert getattr(found.chapter, name) >= getattr(found.limit, name) * (1 - 1e-5)
    for name in ("tok_s_stream", "tok_s_aggregate"):
        if name not in found.chapter.beyond:
            assert getattr(found.chapter, name) <= getattr(found.limit, name) * (1 + 1e-5)
    assert all(ratio > 1 for ratio in found.chapter.beyond.values())


@given(DEPLOYMENTS, BATCH, TOKENS, TOKENS, BATCH, TOKENS)
def test_more_load_is_served_later_and_slower_and_more_together(
    deployment, batch, context, prompt, others, more
):
    """But for a stream alone in a Hopper box, which the chapter has slower than one of many."""
    if chapter_times(deployment) is not None and deployment.gpu.name == "h200":
        batch += 1
    now = predictions_of(deployment, batch=batch, context=context, prompt=prompt)
    fuller = predictions_of(deployment, batch=batch + others, context=context, prompt=prompt)
    longer = predictions_of(deployment, batch=batch, context=context + more, prompt=prompt)
    read = predictions_of(deployment, batch=batch, context=context, prompt=prompt + more)
    for column in ("chapter", "limit"):
        before = getattr(now, column)
        if before is None:
            continue
        for later in (getattr(fuller, column), getattr(longer, column), getattr(read, column)):
            for name in ("prefill", "ttft_p50", "ttft_p95", "tpot", "memory"):
                assert getattr(before, name) <= getattr(later, name) * (1 + 1e-9)
            assert before.tok_s_stream >= later.tok_s_stream * (1 - 1e-9)
        assert before.tok_s_aggregate <= getattr(fuller, column).tok_s_aggregate * (1 + 1e-9)
        assert before.compute <= getattr(read, column).compute * (1 + 1e-9)
        assert before.power <= getattr(read, column).power * (1 + 1e-9)


@given(DEPLOYMENTS, BATCH, TOKENS, TOKENS)
def test_shares_are_shares_and_power_lies_between_idle_and_the_chips_limit(
    deployment, batch, context, prompt
):
    found = predictions_of(deployment, batch=batch, context=context, prompt=prompt)
    gpu, count = deployment.gpu, deployment.count
    for column in (found.chapter, found.limit):
        if column is None:
            continue
        assert all(0 <= share <= 1 + 1e-9 for share in (column.memory, column.bandwidth, column.compute))
        assert 0.975 * count * gpu.idle_power <= column.power <= count * gpu.power * (1 + 1e-9)


def test_a_batch_is_shared_by_all_engines_and_a_stream_is_as_slow_as_in_the_fullest():
    both = planned("B")
    assert one(both, batch=32) == replace(
        one(both, batch=31),
        tok_s_aggregate=3000,
        memory=one(both, batch=32).memory,
        beyond=one(both, batch=32).beyond,
    )
    times = chapter_times(both)
    assert times is not None
    apart = 16 / times.decode_step(16, 2048) + 15 / times.decode_step(15, 2048)
    assert one(both, batch=31).tok_s_aggregate == pytest.approx(apart)
    assert one(both, batch=1).tok_s_aggregate == pytest.approx(105)


def test_engines_beside_each_other_do_not_slow_each_other():
    one_each = one(planned(count=8, tp=1), batch=8)
    assert one_each.tok_s_stream == pytest.approx(210)
    assert one_each.tok_s_aggregate == pytest.approx(8 * 210)
    assert one_each.power == pytest.approx(8 * 975)


def test_pattern_c_adds_no_bandwidth_and_b_halves_it():
    limits = {
        pattern: predictions_of(planned(pattern), batch=1, context=2048, prompt=2048).limit
        for pattern in ("A", "B", "C")
    }
    assert limits["C"] == limits["A"]
    assert limits["B"].tpot == pytest.approx(2 * limits["A"].tpot)
    assert limits["B"].prefill == pytest.approx(2 * limits["A"].prefill)


def test_speculation_is_the_way_past_the_bandwidth_of_one_stream_and_pays_less_in_a_full_engine():
    def gain(pattern: str, batch: int) -> float:
        rates = [
            predictions_of(planned(which), batch=batch, context=2048, prompt=2048).limit.tok_s_aggregate
            for which in (pattern, "A")
        ]
        return rates[0] / rates[1]

    for pattern in ("D", "A+EAGLE"):
        assert gain(pattern, 1) > 1.8
        assert gain(pattern, 512) < 0.7 * gain(pattern, 1)


def test_two_gpus_that_play_the_dies_have_both_their_bandwidths():
    pair, single = planned("C", gpu="h200", count=2), planned("A", gpu="h200", count=1)
    steps = [roofline_of(deployment).decode_step(1, 2048) for deployment in (single, pair)]
    assert steps[0] / steps[1] == pytest.approx(2)


def test_memory_in_use_is_all_but_the_reserve_and_the_free_pool():
    """§7 of the chapter has about 150 GB for 16 sequences of 32k tokens."""
    assert one(planned(), batch=16, context=32768).memory * 191.501854310 == pytest.approx(149.8, abs=0.1)


def test_a_prompt_slows_the_streams_beside_it_the_more_the_longer_its_chunk():
    steps = interference(planned(), batch=8, context=2048, chunks=[0, 256, 2048, 16384])
    assert [beside.chunk for beside in steps] == [0, 256, 2048, 16384]
    for column in ("chapter", "limit"):
        times = [getattr(beside, column) for beside in steps]
        assert all(earlier < later for earlier, later in pairwise(times))
    assert steps[0].chapter == pytest.approx(8 / 1400)
    # A step that waits for memory computes 256 more tokens for next to nothing; the chapter has each cost.
    assert steps[1].limit / steps[0].limit < 1.01
    assert steps[1].chapter == pytest.approx(8 / 1400 + 0.025 / 8)
