"""The chapter's rows come out of the model as they went in, and nothing between them bends the wrong way."""

from itertools import pairwise

import pytest

from diplex_core.model.chapter import Chapter
from diplex_core.words import Pattern

A, C = Chapter(Pattern.A), Chapter(Pattern.C)


@pytest.mark.parametrize(
    ("model", "batch", "context", "tok_s"),
    [
        (A, 1, 2048, 210),
        (A, 1, 32768, 140),
        (A, 8, 2048, 1400),
        (A, 32, 2048, 3800),
        (A, 32, 16384, 2900),
        (C, 1, 2048, 280),
        (C, 16, 2048, 3200),
    ],
)
def test_every_decode_row_is_reproduced(model: Chapter, batch: int, context: int, tok_s: float):
    assert batch / model.decode_step(batch, context) == pytest.approx(tok_s, rel=0.05)


@pytest.mark.parametrize(
    ("model", "batch", "tok_s_stream"), [(A, 1, 210), (A, 8, 175), (A, 32, 120), (C, 1, 280), (C, 16, 200)]
)
def test_every_single_stream_rate_is_reproduced(model: Chapter, batch: int, tok_s_stream: float):
    assert 1 / model.decode_step(batch) == pytest.approx(tok_s_stream, rel=0.05)


@pytest.mark.parametrize(("tokens", "seconds"), [(2048, 0.025), (32768, 0.480), (131072, 3.4)])
def test_every_prefill_row_is_reproduced(tokens: int, seconds: float):
    assert A.prefill(tokens) == pytest.approx(seconds, rel=0.05)


@pytest.mark.parametrize(
    ("model", "batch", "seconds"),
    [(A, 1, 0.030), (A, 8, 0.050), (A, 32, 0.090), (C, 1, 0.022), (C, 16, 0.035)],
)
def test_every_median_ttft_of_a_2k_prompt_is_reproduced(model: Chapter, batch: int, seconds: float):
    assert model.ttft_p50(2048, batch) == pytest.approx(seconds, rel=0.10)


@pytest.mark.parametrize(
    ("model", "batch", "seconds"),
    [(A, 1, 0.600), (A, 8, 0.850), (A, 32, 1.4), (C, 1, 0.440), (C, 16, 0.700)],
)
def test_every_p95_ttft_of_a_32k_prompt_is_reproduced(model: Chapter, batch: int, seconds: float):
    assert model.ttft_p95(32768, batch) == pytest.approx(seconds, rel=0.10)


def rises(values: list[float]) -> bool:
    return all(earlier < later for earlier, later in pairwise(values))


@pytest.mark.parametrize("model", [A, C])
@pytest.mark.parametrize("context", [0, 512, 2048, 16384, 131072])
def test_a_larger_batch_never_makes_a_step_faster(model: Chapter, context: int):
    assert rises([model.decode_step(batch, context) for batch in range(65)])


@pytest.mark.parametrize("model", [A, C])
@pytest.mark.parametrize("batch", [1, 7, 16, 32, 64])
def test_a_longer_context_never_makes_a_step_faster(model: Chapter, batch: int):
    assert rises([model.decode_step(batch, context) for context in range(0, 140_000, 1000)])


@pytest.mark.parametrize("model", [A, C])
def test_a_larger_batch_makes_more_tokens_together(model: Chapter):
    assert rises([batch / model.decode_step(batch) for batch in range(1, 65)])


@pytest.mark.parametrize("model", [A, C])
@pytest.mark.parametrize("prompt", [1, 2048, 32768])
def test_a_fuller_engine_never_brings_the_first_token_sooner(model: Chapter, prompt: int):
    assert rises([model.ttft_p50(prompt, batch) for batch in range(1, 65)])
    p95s = [model.ttft_p95(prompt, batch) for batch in range(1, 65)]
    assert p95s == sorted(p95s)


def test_the_p95_is_never_below_the_median():
    assert all(m.ttft_p95(500, batch) >= m.ttft_p50(500, batch) for m in (A, C) for batch in range(1, 100))


def test_chunks_of_a_prompt_take_as_long_as_the_whole():
    chunks = sum(A.prefill(1000, behind=1000 * part) for part in range(50))
    assert chunks == pytest.approx(A.prefill(50_000))


def test_a_step_with_nobody_in_it_takes_no_time():
    assert A.decode_step(0) == 0.0


def test_a_prompt_that_comes_alone_is_read_in_the_engines_largest_chunks():
    assert A.prefill_per_step(1) == 16384


def test_a_fuller_engine_reads_fewer_prompt_tokens_a_step():
    assert rises([-A.prefill_per_step(batch) for batch in (1, 2, 8, 16, 32, 64)])


def test_the_slots_are_the_largest_rows():
    assert (A.largest_batch, C.largest_batch) == (32, 16)


@pytest.mark.parametrize("pattern", [Pattern.B, Pattern.D, Pattern.A_EAGLE])
def test_a_pattern_without_rows_is_refused_with_those_that_have_some(pattern: Pattern):
    with pytest.raises(ValueError, match=r"no rows for pattern .*; it has A, C"):
        Chapter(pattern)
