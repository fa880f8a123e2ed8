"""Every row of the chapter comes out of the planner's chapter column, and what contradicts one is named."""

import pytest

from diplex_core.model import catalogue
from diplex_core.plan.rows import Row, contradicted, rows

ROWS = rows()
TTFTS = ("ttft_p50", "ttft_p95")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.row}, {row.figure}")
def test_every_row_is_reproduced(row: Row):
    assert abs(row.off) <= (0.10 if row.figure in TTFTS else 0.05)


def test_no_row_of_the_tables_is_missing():
    """§3: 13 rows, one contradicted, and 2 boxes of 2; §5: 6 rows of 4 figures, some of them §3's; §6: 1."""
    by_figure = {figure: sum(row.figure == figure for row in ROWS) for figure in {row.figure for row in ROWS}}
    assert by_figure == {
        "tok_s_stream": 8 + 3,  # of one package and of a box; so are those of all together
        "tok_s_aggregate": 5 + 2,
        "prefill": 3,
        "ttft_p50": 6,
        "ttft_p95": 6,
        "memory": 1,
        "compute": 1,
        "power": 1,
    }


def test_a_row_is_where_the_chapter_says_and_a_range_is_a_range():
    peaks = [row for row in ROWS if row.low != row.high]
    assert [(row.low, row.high) for row in peaks] == [(0.75, 0.80), (0.60, 0.75), (950, 1000)]
    assert all(row.row.startswith("§") for row in (*ROWS, *contradicted()))


def test_what_contradicts_a_row_does_not_come_out_and_says_what_was_taken():
    for row in contradicted():
        assert abs(row.off) > 0.10
        assert row.instead


def test_what_lies_beyond_the_limit_is_told_from_what_may_be():
    beyond = {(row.row.partition(":")[0], row.figure) for row in ROWS if row.beyond > 1.0}
    assert ("§3 Decode, batch=32, ctx=16k", "tok_s_aggregate") in beyond
    assert ("§3 Prefill, 2k tokens", "prefill") in beyond
    assert not any(row.beyond > 1.0 for row in ROWS if "H100" in row.row or "H200" in row.row)


def test_the_speculation_said_to_take_35_ms_does():
    said = catalogue.read("calibrations", "chapter")["speculation"]
    (row,) = (row for row in contradicted() if "§4.4 D" in row.row)
    assert 2.94 / row.ours == pytest.approx(said["step_seconds"], rel=0.01)
