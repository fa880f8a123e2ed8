"""The chapter's boxes: its rows as they stand, and no other place where more load makes a step faster."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diplex_core.model import catalogue
from diplex_core.model.boxes import Box, box, rows

QWEN = catalogue.model("qwen2.5-72b")


def of(gpu: str, tp: int, weights: str = "fp8", kv_cache: str = "fp8", model: str = "qwen2.5-72b") -> Box:
    found = box(catalogue.gpu(gpu), tp, catalogue.model(model), weights, kv_cache)
    assert found is not None
    return found


H100, H200, B200 = of("h100", 4), of("h200", 8), of("hgx-b200", 8, "mxfp4-mixed", "mxfp8")
BATCH, TOKENS = st.integers(2, 512), st.integers(1, 2**20)


def test_every_row_of_a_box_comes_out_as_it_stands():
    for row in rows():
        for gpu in row.gpus:
            step = of(gpu, row.tp, row.weights, row.kv_cache).decode_step(row.batch, row.context)
            assert row.batch / step == pytest.approx(row.tok_s)


def test_a_stream_alone_is_slower_than_one_of_many_on_hopper_as_its_rows_have_it_and_not_on_b200():
    assert H100.decode_step(1) / H100.decode_step(32) == pytest.approx(4.26, abs=0.01)
    assert H200.decode_step(1) / H200.decode_step(32) == pytest.approx(3.66, abs=0.01)
    assert B200.decode_step(1) < B200.decode_step(2)


@given(st.sampled_from([H100, H200, B200]), BATCH, TOKENS, BATCH, TOKENS)
def test_from_batch_2_on_more_of_anything_takes_longer(times, batch, context, others, more):
    fuller = batch + others
    assert times.decode_step(batch, context) < times.decode_step(fuller, context)
    assert times.decode_step(batch, context) < times.decode_step(batch, context + more)
    assert times.ttft_p50(context, batch) < times.ttft_p50(context, fuller)
    assert times.ttft_p95(context, batch) < times.ttft_p95(context + more, batch)


@given(st.sampled_from([H100, H200, B200]), st.integers(1, 512), TOKENS, BATCH)
def test_more_streams_make_more_tokens_together_the_first_one_included(times, batch, context, others):
    together = batch + others
    assert batch / times.decode_step(batch, context) < together / times.decode_step(together, context)


def test_prompts_are_read_as_much_faster_as_the_box_computes():
    assert B200.prefill(2048) == pytest.approx(0.025 / 8)
    assert H100.prefill(2048) == pytest.approx(0.025 * 9.0 / (4 * 1.979))


def test_another_model_is_scaled_from_the_rows_and_says_so():
    small = of("h100", 4, model="qwen2.5-32b")
    assert small.calibration == "chapter, scaled from qwen2.5-72b"
    assert small.decode_step(32, 0) < 0.5 * H100.decode_step(32, 0)


@pytest.mark.parametrize(("gpu", "tp"), [("h100", 8), ("h200", 4), ("b200", 2), ("hgx-b200", 4)])
def test_of_other_boxes_the_chapter_says_nothing(gpu: str, tp: int):
    assert box(catalogue.gpu(gpu), tp, QWEN, "fp8", "fp8") is None
