"""What `--json` prints: the contract's keys, in bytes, milliseconds and shares."""

import json
from collections.abc import Callable

import pytest

from diplex_cli.plan.fields import fields
from diplex_core.plan.page import Page

Pages = Callable[..., Page]

KEYS = {
    *("model", "gpu", "count", "tp", "pattern", "batch", "context", "prompt", "fits"),
    *("memory", "kv", "max_batch_by_context", "predictions"),
}
PREDICTED = {
    *("prefill_ms", "ttft_p50_ms", "ttft_p95_ms", "tpot_ms"),
    *("tok_s_stream", "tok_s_aggregate", "power_w", "utilization"),
}


def test_every_key_of_the_contract_is_there(any_page: Page):
    said = fields(any_page)
    assert said.keys() >= KEYS
    assert said["kv"].keys() >= {"bytes_per_token", "pool_bytes", "pool_tokens"}
    assert all(part.keys() >= {"group", "die", "bytes"} for part in said["memory"])
    assert said["predictions"].keys() == {"chapter", "measured", "limit"}


def test_a_page_is_plain_json_without_a_figure_that_json_lacks(any_page: Page):
    said = fields(any_page)
    assert json.loads(json.dumps(said, allow_nan=False)) == said


def test_the_memory_adds_up_to_the_last_byte(any_page: Page):
    said = fields(any_page)
    assert sum(part["bytes"] for part in said["memory"]) == said["memory_bytes"]


def test_a_prediction_has_every_figure(page: Pages):
    for one in (said := fields(page())["predictions"])["chapter"], said["limit"]:
        assert one.keys() == PREDICTED
        assert one["utilization"].keys() == {"memory", "bandwidth", "compute"}
        assert all(0 <= share <= 1 for share in one["utilization"].values())
    assert said["measured"] is None


def test_times_are_in_milliseconds(page: Pages):
    # §3: a 32k prompt is read in 480 ms.
    assert fields(page())["predictions"]["chapter"]["prefill_ms"] == pytest.approx(480)


def test_what_is_beyond_the_limit_has_the_name_of_its_prediction(page: Pages):
    said = fields(page())
    beyond, three = said["beyond_limit"], said["predictions"]
    assert beyond.keys() == {"prefill_ms", "tpot_ms", "tok_s_stream", "tok_s_aggregate"}
    assert beyond["tpot_ms"] == pytest.approx(three["limit"]["tpot_ms"] / three["chapter"]["tpot_ms"])


def test_a_load_that_does_not_fit_names_the_nearest_that_does(page: Pages):
    said = fields(page(batch=64))
    assert not said["fits"]
    assert (said["nearest"]["batch"], said["predicted_batch"]) == (21, 21)
    assert said["max_batch_by_context"]["32768"] == 21


def test_where_not_one_sequence_fits_the_columns_are_null(page: Pages):
    said = fields(page(model="qwen2.5-32b", gpu="h100", kv_cache="bf16", context=131072, batch=1))
    assert said["predictions"] == {"chapter": None, "measured": None, "limit": None}
    assert said["interference"] == []


def test_all_patterns_are_compared_and_have_a_frontier(page: Pages):
    said = fields(page())
    names = ["A", "B", "C", "D", "A+EAGLE"]
    assert list(said["patterns"]) == list(said["frontier"]) == names
    assert [point["batch"] for point in said["frontier"]["A"]] == [1, 2, 4, 8, 16, 21]


def test_the_chapters_discrepancies_are_told_in_bytes(page: Pages):
    told = fields(page())["discrepancies"]
    attention = next(row for row in told["memory"] if row["what"].startswith("attention"))
    assert (attention["chapter_bytes"], round(attention["counted_bytes"] / 1e9, 2)) == (14_000_000_000, 9.44)
    assert len(told["corner_cases"]) == 3
