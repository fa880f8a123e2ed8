"""Bytes over bandwidth and operations over rates, against sums made by hand."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diplex_core.model import catalogue
from diplex_core.model.catalogue import Gpu, Link
from diplex_core.model.chapter import Chapter
from diplex_core.model.collectives import all_reduces
from diplex_core.model.forecast import Forecast, Load
from diplex_core.model.roofline import LIMIT, Chips, Efficiency, Roofline, eagle_head
from diplex_core.model.speculation import Speculation
from diplex_core.model.steps import StepTimes
from diplex_core.words import Pattern

QWEN = catalogue.model("qwen2.5-72b")
B200, H100, H200 = map(catalogue.gpu, ("b200", "h100", "h200"))
# 2,048 tokens of batch 1 and so on; 163,840 bytes of FP8 cache a token; 44.7 GB of weights.
AT_8_TB = replace(B200, bandwidth=8e12)
AT_7_67_TB = replace(B200, bandwidth=7.67e12)
FIVE_AHEAD = Speculation(5, 0.7)
# What an engine may be like, for what must hold of any: no figures of a real one.
SOME = Efficiency(
    "some", memory=0.8, linear=0.6, attention=0.4, link=0.7, overhead=2e-4, latency=1.0, tail=1.2
)


def times(
    gpu: Gpu = AT_8_TB,
    packages: float = 1,
    shards: int = 1,
    weights: str = "mxfp4-mixed",
    efficiency: Efficiency = LIMIT,
    link: Link | None = None,
) -> Roofline:
    chips = Chips(gpu, packages, shards, link or gpu.gpu_link)
    return Roofline(QWEN, weights=weights, kv_cache="fp8", chips=chips, efficiency=efficiency)


@pytest.mark.parametrize(
    ("gpu", "batch", "context", "tok_s"),
    [
        (AT_8_TB, 1, 2048, 177.6),
        (AT_8_TB, 1, 32768, 159.8),
        (AT_8_TB, 8, 2048, 1351),
        (AT_8_TB, 32, 2048, 4618),
        (AT_8_TB, 32, 16384, 1960),
        (AT_7_67_TB, 1, 2048, 170.4),
        (AT_7_67_TB, 1, 32768, 153.2),
        (AT_7_67_TB, 8, 2048, 1295),
        (AT_7_67_TB, 32, 2048, 4428),
        (AT_7_67_TB, 32, 16384, 1880),
    ],
)
def test_a_step_takes_as_long_as_its_bytes(gpu: Gpu, batch: int, context: int, tok_s: float):
    assert batch / times(gpu).decode_step(batch, context) == pytest.approx(tok_s, rel=0.02)


@pytest.mark.parametrize(
    ("limits", "batch", "tok_s"),
    [
        (times(AT_8_TB, 0.5), 16, 2556 / 2),  # pattern B: 4 TB/s for each of two engines
        (times(AT_7_67_TB, 0.5), 16, 2452 / 2),
        (times(AT_8_TB, 1, 2), 1, 177.6),  # pattern C: the same bandwidth as A
        (times(AT_8_TB, 1, 2), 16, 2556),
        (times(AT_8_TB, 8, 8), 1, 1421),
        (times(AT_7_67_TB, 8, 8), 1, 1363),
        (times(H100, 4, 4, "fp8"), 1, 183.5),
        (times(H100, 4, 4, "fp8"), 32, 5139),
        (times(H200, 8, 8, "fp8"), 1, 526),
        (times(H200, 8, 8, "fp8"), 32, 14727),
    ],
)
def test_a_die_has_half_of_the_bandwidth_and_a_box_the_sum(limits: Roofline, batch: int, tok_s: float):
    assert batch / limits.decode_step(batch, 2048) == pytest.approx(tok_s, rel=0.02)


@pytest.mark.parametrize(
    ("tokens", "linear_and_attention"),
    [(2048, 0.0320 + 0.0012), (32768, 0.511 + 0.313), (65536, 1.02 + 1.25), (131072, 2.05 + 5.0)],
)
def test_a_prompt_takes_as_long_as_its_operations(tokens: int, linear_and_attention: float):
    alone = times().step(0, 0, tokens)
    assert alone.seconds == pytest.approx(linear_and_attention, rel=0.02)
    assert alone.compute == 1.0


def test_a_short_prompt_takes_as_long_as_the_weights():
    alone = times().step(0, 0, 64)
    assert alone.seconds == pytest.approx(44.7e9 / 8e12, rel=0.01)
    assert alone.bandwidth == 1.0


def test_a_chunk_further_on_has_more_before_it():
    first, second = (times().prefill(4096, behind=behind) for behind in (0, 4096))
    assert first + second == pytest.approx(times().prefill(8192))
    assert second > first


def test_layers_compute_at_their_own_formats_rates():
    def linear(weights: str) -> float:
        return times(weights=weights).prefill(1)

    assert linear("fp8") / linear("mxfp4") == pytest.approx(2, rel=0.01)
    assert linear("bf16") / linear("mxfp4") == pytest.approx(4, rel=0.01)
    assert linear("mxfp4") < linear("fp8-mxfp4") < linear("fp8")
    assert times(H200, weights="mxfp4").prefill(1) == times(H200, weights="fp8").prefill(1)  # no FP4 there


def test_a_cache_of_16_bits_is_attended_at_its_own_rate_and_a_smaller_one_at_fp8s():
    def attention(kv_cache: str) -> float:
        chips = Chips(B200, 1, 1, B200.gpu_link)
        limits = Roofline(QWEN, weights="fp8", kv_cache=kv_cache, chips=chips)
        return limits.prefill(1000, behind=10**6) - limits.prefill(1000, behind=0)

    assert attention("bf16") / attention("fp8") == pytest.approx(2)
    assert attention("nvfp4") == pytest.approx(attention("fp8"))


def drafting(gpu: Gpu, weights: str, draft: str, packages: float = 1) -> Roofline:
    chips = Chips(gpu, packages, 1, gpu.gpu_link)
    small = (catalogue.model("qwen2.5-7b"), draft)
    return Roofline(QWEN, weights=weights, kv_cache="fp8", chips=chips, draft=small, speculates=FIVE_AHEAD)


def test_draft_and_target_on_the_whole_package_take_their_turns():
    """5.5 ms of target and five times 0.62 ms of draft, both NVFP4 at 7.67 TB/s."""
    limits = drafting(AT_7_67_TB, "nvfp4", "nvfp4")
    assert limits.decode_step(1, 1) == pytest.approx(8.6e-3, rel=0.02)
    assert limits.tokens_per_step == pytest.approx(2.94, rel=0.02)
    assert limits.tokens_per_step / limits.decode_step(1, 1) == pytest.approx(340, rel=0.02)


def test_a_target_on_one_die_behind_the_chapters_draft_takes_18_ms():
    """§4.4's 5 drafts at 700 tok/s, and 44.7 GB at 4 TB/s: 2.94 tokens in that time are 160 a second."""
    step = 5 / 700 + times(AT_8_TB, 0.5).decode_step(1, 1)
    assert step == pytest.approx(18.3e-3, rel=0.02)
    assert FIVE_AHEAD.tokens_per_step / step == pytest.approx(160, rel=0.02)


def test_speculation_gains_less_the_fuller_the_engine_is():
    limits = drafting(B200, "nvfp4", "nvfp4")
    chips = Chips(B200, 1, 1, B200.gpu_link)
    plain = Roofline(QWEN, weights="nvfp4", kv_cache="fp8", chips=chips)
    gains = [
        limits.tokens_per_step / limits.decode_step(batch, 2048) * plain.decode_step(batch, 2048)
        for batch in (1, 8, 32, 128, 512)
    ]
    assert gains == sorted(gains, reverse=True)
    assert gains[0] > 1.8
    assert gains[-1] < 1.1


def test_an_eagle_head_is_a_layer_and_the_targets_head():
    head = eagle_head(QWEN)
    read = catalogue.recipe("nvfp4").weights(head).read
    whole = catalogue.recipe("nvfp4").weights(QWEN)
    assert read == pytest.approx((whole.attention + whole.ffn) / 80 + whole.head, rel=0.001)


def test_pattern_c_gains_nothing_and_pays_for_its_all_reduces_in_all_but_the_limit():
    assert B200.die_link is not None
    for batch in (1, 16, 64):
        one, two = times(B200), times(B200, shards=2, link=B200.die_link)
        assert two.decode_step(batch, 2048) == one.decode_step(batch, 2048)
        one, two = (times(B200, shards=shards, efficiency=SOME, link=B200.die_link) for shards in (1, 2))
        assert two.decode_step(batch, 2048) - one.decode_step(batch, 2048) > 160 * B200.die_link.latency


def test_two_all_reduces_a_layer_send_a_token_once():
    between_dies = Link(10e12, 3e-6)  # 2.62 MB a token at 10 TB/s: 0.26 µs; 160 of at least 3 µs: 0.48 ms
    both = all_reduces(QWEN, 2, between_dies)
    assert both.moving(1) == pytest.approx(0.26e-6, rel=0.02)
    assert both.waiting == pytest.approx(0.48e-3)
    alone = all_reduces(QWEN, 1, between_dies)
    assert (alone.moving(1000), alone.waiting) == (0.0, 0.0)


def test_a_limit_counts_bytes_on_the_link_too():
    """A prompt over 8 GPUs: 2.62 MB a token at 0.9 TB/s take longer than an eighth of its operations."""
    boxed = times(B200, 8, 8).step(0, 0, 2048)
    assert boxed.seconds == pytest.approx(2048 * 2621440 / 0.9e12)
    assert boxed.compute == pytest.approx(0.70, abs=0.01)


def test_more_ranks_than_kv_heads_keep_heads_twice():
    def cache(shards: int) -> float:
        limits = times(B200, 8, shards)
        return limits.decode_step(32, 32768) - limits.decode_step(32, 16384)

    assert cache(8) == pytest.approx(cache(1))
    assert cache(16) == pytest.approx(2 * cache(8))


def test_an_engine_is_never_faster_than_its_limit():
    for batch in (1, 8, 64):
        for chunk in (0, 512, 8192):
            limit, some = (times(B200, efficiency=which).step(batch, 4096, chunk) for which in (LIMIT, SOME))
            assert some.seconds > limit.seconds
            assert some.bandwidth < 1.0
            assert some.compute < 1.0


MODELS = st.sampled_from(catalogue.names("profiles/models")).map(catalogue.model)
LIMITS = st.builds(
    lambda model, weights, kv_cache, packages, shards, efficiency, drafts: Roofline(
        model,
        weights=weights,
        kv_cache=kv_cache,
        chips=Chips(B200, packages, shards, B200.gpu_link),
        draft=(eagle_head(model), weights) if drafts else None,
        speculates=FIVE_AHEAD,
        efficiency=efficiency,
    ),
    MODELS,
    st.sampled_from(["mxfp4-mixed", "nvfp4", "fp8", "bf16"]),
    st.sampled_from(["nvfp4", "fp8", "bf16"]),
    st.sampled_from([0.5, 1, 8]),
    st.sampled_from([1, 2, 8]),
    st.sampled_from([LIMIT, SOME]),
    st.booleans(),
)
BATCH, TOKENS = st.integers(1, 512), st.integers(1, 2**20)


@given(LIMITS, BATCH, TOKENS, TOKENS, BATCH, TOKENS)
def test_more_of_anything_never_takes_less_time(limits, batch, context, chunk, others, more):
    step = limits.step(batch, context, chunk).seconds
    assert 0 < limits.step(batch, context).seconds <= step
    assert step <= limits.step(batch + others, context, chunk).seconds
    assert step <= limits.step(batch, context + more, chunk).seconds
    assert step <= limits.step(batch, context, chunk + more).seconds
    assert step <= limits.step(batch, context, chunk, more).seconds
    assert limits.prefill(chunk) < limits.prefill(chunk + more)
    assert limits.prefill(chunk) <= limits.prefill(chunk, behind=more)


@given(LIMITS, BATCH, TOKENS, TOKENS)
def test_what_overlaps_is_no_slower_than_a_step_and_a_chunk_one_after_the_other(
    limits, batch, context, chunk
):
    together = limits.step(batch, context, chunk).seconds
    assert together <= (limits.decode_step(batch, context) + limits.step(0, 0, chunk).seconds) * (1 + 1e-9)


@given(LIMITS, BATCH, TOKENS, TOKENS)
def test_nothing_is_in_use_for_more_than_all_of_the_time(limits, batch, context, chunk):
    step = limits.step(batch, context, chunk)
    assert 0 < step.bandwidth <= 1 + 1e-9
    assert 0 < step.compute <= 1 + 1e-9


def test_a_roofline_is_step_times_for_whoever_predicts():
    some: StepTimes = times(B200, efficiency=SOME)
    assert some.calibration == "some"
    assert (some.draft_tokens, some.tokens_per_step, some.tail(8)) == (0, 1.0, 1.2)
    assert some.decode_step(0, 0) == 0.0
    forecast = Forecast(some)
    busy, idle = Load(8, 0, 2048, 0.0, 0.0), Load(0, 0, 0, 0.0, 0.0)
    assert forecast.ttft(2048, busy) > forecast.ttft(2048, idle) > some.prefill(2048)
    assert forecast.tpot(2048, busy) == some.decode_step(9, 2048)


FORECASTS = st.sampled_from(
    [*(Chapter(pattern) for pattern in Pattern), times(B200), times(B200, efficiency=SOME)]
)


@given(
    FORECASTS.map(Forecast), st.integers(1, 511), st.integers(1, 10**6), st.floats(0, 60), st.floats(0, 1e5)
)
def test_a_prediction_grows_with_the_load(forecast, sequences, context, backlog, intake):
    """Prompt tokens that are being read, arrivals in flight, those of late, and tokens that others hold."""
    load = Load(sequences, 0, context, backlog, intake)
    ttft, tpot = forecast.ttft(2048, load), forecast.tpot(2048, load)
    assert ttft < forecast.ttft(2048, replace(load, backlog=backlog + 1))
    arrived = replace(load, sequences=sequences + 1, unread=1, backlog=backlog + forecast.reading(2048, load))
    assert ttft < forecast.ttft(2048, arrived)
    assert ttft <= forecast.ttft(2048, replace(load, context=context + 64))
    assert tpot <= forecast.tpot(2048, replace(load, intake=intake + 1000))
    assert tpot <= forecast.tpot(2048, replace(load, context=context + 64))
    assert forecast.undisturbed_tpot(2048, load) <= tpot
