"""The chapter's rows come out of the model as they went in, and nothing between them bends the wrong way."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diplex_core.model import catalogue
from diplex_core.model.chapter import Chapter, calibrated_for
from diplex_core.model.scale import Scale, scale
from diplex_core.words import Pattern

A, B, C, D, EAGLE = map(Chapter, (Pattern.A, Pattern.B, Pattern.C, Pattern.D, Pattern.A_EAGLE))
EACH = (A, B, C, D, EAGLE)


@pytest.mark.parametrize(
    ("model", "batch", "context", "tok_s"),
    [
        (A, 1, 2048, 210),
        (A, 1, 32768, 140),
        (A, 8, 2048, 1400),
        (A, 32, 2048, 3800),
        (A, 32, 16384, 2900),
        (B, 1, 2048, 105),
        (B, 16, 2048, 1500),
        (C, 1, 2048, 280),
        (C, 16, 2048, 3200),
    ],
)
def test_every_decode_row_is_reproduced(model: Chapter, batch: int, context: int, tok_s: float):
    assert batch / model.decode_step(batch, context) == pytest.approx(tok_s, rel=0.05)


@pytest.mark.parametrize(
    ("model", "batch", "tok_s_stream"),
    [(A, 1, 210), (A, 8, 175), (A, 32, 120), (B, 1, 105), (B, 16, 95), (C, 1, 280), (C, 16, 200)],
)
def test_every_single_stream_rate_is_reproduced(model: Chapter, batch: int, tok_s_stream: float):
    assert 1 / model.decode_step(batch) == pytest.approx(tok_s_stream, rel=0.05)


@pytest.mark.parametrize(("tokens", "seconds"), [(2048, 0.025), (32768, 0.480), (131072, 3.4)])
def test_every_prefill_row_is_reproduced(tokens: int, seconds: float):
    assert A.prefill(tokens) == pytest.approx(seconds, rel=0.05)


@pytest.mark.parametrize(
    ("model", "batch", "seconds"),
    [(A, 1, 0.030), (A, 8, 0.050), (A, 32, 0.090), (B, 16, 0.110), (C, 1, 0.022), (C, 16, 0.035)],
)
def test_every_median_ttft_of_a_2k_prompt_is_reproduced(model: Chapter, batch: int, seconds: float):
    assert model.ttft_p50(2048, batch) == pytest.approx(seconds, rel=0.10)


@pytest.mark.parametrize(
    ("model", "batch", "seconds"),
    [(A, 1, 0.600), (A, 8, 0.850), (A, 32, 1.4), (B, 16, 1.5), (C, 1, 0.440), (C, 16, 0.700)],
)
def test_every_p95_ttft_of_a_32k_prompt_is_reproduced(model: Chapter, batch: int, seconds: float):
    assert model.ttft_p95(32768, batch) == pytest.approx(seconds, rel=0.10)


def rises(values: list[float]) -> bool:
    return all(earlier < later for earlier, later in pairwise(values))


@pytest.mark.parametrize("model", EACH)
@pytest.mark.parametrize("context", [0, 512, 2048, 16384, 131072])
def test_a_larger_batch_never_makes_a_step_faster(model: Chapter, context: int):
    assert rises([model.decode_step(batch, context) for batch in range(65)])


@pytest.mark.parametrize("model", EACH)
@pytest.mark.parametrize("batch", [1, 7, 16, 32, 64])
def test_a_longer_context_never_makes_a_step_faster(model: Chapter, batch: int):
    assert rises([model.decode_step(batch, context) for context in range(0, 140_000, 1000)])


@pytest.mark.parametrize("model", EACH)
def test_a_larger_batch_makes_more_tokens_together(model: Chapter):
    assert rises([batch / model.decode_step(batch) for batch in range(1, 65)])


@pytest.mark.parametrize("model", EACH)
@pytest.mark.parametrize("prompt", [1, 2048, 32768])
def test_a_fuller_engine_never_brings_the_first_token_sooner(model: Chapter, prompt: int):
    assert rises([model.ttft_p50(prompt, batch) for batch in range(1, 65)])
    p95s = [model.ttft_p95(prompt, batch) for batch in range(1, 65)]
    assert p95s == sorted(p95s)


def test_the_p95_is_never_below_the_median():
    assert all(m.ttft_p95(500, batch) >= m.ttft_p50(500, batch) for m in EACH for batch in range(1, 100))


def test_chunks_of_a_prompt_take_as_long_as_the_whole():
    chunks = sum(A.prefill(1000, behind=1000 * part) for part in range(50))
    assert chunks == pytest.approx(A.prefill(50_000))


def test_a_step_with_nobody_in_it_takes_no_time():
    assert A.decode_step(0) == 0.0


def test_a_prompt_that_comes_alone_is_read_in_the_engines_largest_chunks():
    assert A.prefill_per_step(1) == 16384


def test_a_fuller_engine_reads_fewer_prompt_tokens_a_step():
    for model in EACH:
        assert rises([-model.prefill_per_step(batch) for batch in (1, 2, 8, 16)])


def beside_a_prompt(model: Chapter, batch: int) -> float:
    return model.decode_step(batch) + model.prefill(model.prefill_per_step(batch))


def test_a_step_beside_a_prompt_takes_as_long_at_every_batch_up_to_the_fullest_row_and_longer_beyond():
    for model, fullest in zip(EACH, (32, 16, 16, 32, 32), strict=True):
        longest = beside_a_prompt(model, fullest)
        for batch in range(2, fullest):
            assert beside_a_prompt(model, batch) == pytest.approx(longest, abs=model.prefill(1))
        assert rises([beside_a_prompt(model, batch) for batch in range(fullest, 512)])


def test_the_slots_are_the_largest_rows():
    assert [model.largest_batch for model in EACH] == [32, 16, 16, 32, 32]


def test_drafting_gives_what_a_chain_gives_which_is_less_than_the_chapter_counts():
    assert D.tokens_per_step == pytest.approx((1 - 0.7**6) / (1 - 0.7)) == pytest.approx(2.94, abs=0.005)
    assert D.decode_step(1) == pytest.approx(0.035)
    assert D.tokens_per_step / D.decode_step(1) == pytest.approx(84, abs=0.5)  # the chapter: 3.5 a step, 100


def test_a_longer_draft_takes_the_draft_model_longer():
    more = Chapter(Pattern.D, draft_tokens=8)
    assert more.decode_step(8) - D.decode_step(8) == pytest.approx(3 / 700)
    assert more.tokens_per_step > D.tokens_per_step


@pytest.mark.parametrize("draft_tokens", [1, 5, 8])
@pytest.mark.parametrize("batch", [1, 8, 32])
def test_inline_speculation_gives_the_chapters_gain_at_every_batch(draft_tokens: int, batch: int):
    model = Chapter(Pattern.A_EAGLE, draft_tokens=draft_tokens)
    gain = model.tokens_per_step / model.decode_step(batch) * A.decode_step(batch)
    assert gain == pytest.approx(1.4)


def test_patterns_that_do_not_speculate_make_one_token_a_step():
    assert [(m.draft_tokens, m.tokens_per_step) for m in (A, B, C)] == [(0, 1.0)] * 3


def test_a_draft_model_reads_the_prompt_too():
    assert D.prefill(2048) / A.prefill(2048) == pytest.approx(1 + 7.6 / 72.7, rel=0.001)


_, OWN, *FORMATS = calibrated_for()
REFERENCE = (catalogue.model(OWN), FORMATS[0], FORMATS[1])
MODELS = st.builds(
    lambda profile, weights, kv_cache: scale((catalogue.model(profile), weights, kv_cache), REFERENCE),
    st.sampled_from(catalogue.names("profiles/models")),
    st.sampled_from(["mxfp4-mixed", "mxfp4", "nvfp4", "fp8", "bf16"]),
    st.sampled_from(["nvfp4", "mxfp8", "fp8", "bf16"]),
)
TIMES = st.builds(lambda pattern, model: Chapter(pattern, scale=model), st.sampled_from(Pattern), MODELS)
BATCH, TOKENS = st.integers(1, 512), st.integers(1, 2**20)


@given(TIMES, BATCH, TOKENS, BATCH, TOKENS)
def test_a_step_takes_longer_with_more_sequences_and_with_longer_ones(times, batch, context, others, more):
    step = times.decode_step(batch, context)
    assert 0 < step < times.decode_step(batch + others, context)
    assert step < times.decode_step(batch, context + more)


@given(TIMES, BATCH, TOKENS, BATCH)
def test_more_sequences_make_more_tokens_together(times, batch, context, others):
    alone, together = batch / times.decode_step(batch, context), batch + others
    assert alone < together / times.decode_step(together, context)


@given(TIMES, TOKENS, TOKENS, TOKENS)
def test_a_longer_prompt_takes_longer_to_read_and_so_does_one_further_on(times, tokens, behind, more):
    assert 0 < times.prefill(tokens) < times.prefill(tokens + more)
    assert times.prefill(tokens, behind=behind) <= times.prefill(tokens, behind=behind + more) * (1 + 1e-9)


@given(TIMES, BATCH, TOKENS, BATCH, TOKENS)
def test_the_first_token_comes_later_in_a_fuller_engine_and_after_a_longer_prompt(
    times, batch, prompt, others, more
):
    fuller = batch + others
    assert times.ttft_p50(prompt, batch) < times.ttft_p50(prompt, fuller)
    assert times.ttft_p50(prompt, batch) < times.ttft_p50(prompt + more, batch)
    assert times.ttft_p95(prompt, batch) <= times.ttft_p95(prompt, fuller)
    assert times.ttft_p95(prompt, batch) < times.ttft_p95(prompt + more, batch)
    assert times.ttft_p50(prompt, batch) <= times.ttft_p95(prompt, batch)


@given(TIMES, st.integers(2, 512), TOKENS, st.integers(0, 512))
def test_a_step_beside_a_prompt_takes_no_less_time_in_a_fuller_engine(times, batch, behind, others):
    """But for what rounding chunks to whole tokens makes of it."""
    fuller = batch + others
    assert times.prefill_per_step(fuller) <= times.prefill_per_step(batch)
    a_token = times.prefill(1, behind=times.prefill_per_step(batch))
    assert beside_a_prompt(times, batch) <= beside_a_prompt(times, fuller) + a_token


def test_a_model_that_is_not_the_chapters_is_scaled_and_says_so():
    model = Chapter(Pattern.B, scale=Scale(weights=0.7, kv=0.8, parameters=0.5))
    assert (B.calibration, model.calibration) == ("chapter", "chapter, scaled from qwen2.5-72b")
    assert model.decode_step(1, 0) / B.decode_step(1, 0) == pytest.approx(0.7)
    grown = [m.decode_step(8, 32768) - m.decode_step(8) for m in (B, model)]
    assert grown[1] / grown[0] == pytest.approx(0.8)
    assert model.prefill(2048) / B.prefill(2048) == pytest.approx(0.5)
    assert model.tail(16) == B.tail(16)
    assert model.prefill_per_step(16) == B.prefill_per_step(16)
