"""The patterns beside each other."""

import pytest

from diplex_core.plan.compare import MEANT_FOR, Compared, compared
from diplex_core.plan.deployment import deployment_of
from diplex_core.plan.frontier import frontier
from diplex_core.words import Pattern

QWEN = "qwen2.5-72b"


def rows(batch: int = 16, context: int = 32768, **deployed: object) -> dict[Pattern, Compared]:
    planned = deployment_of(QWEN, **deployed)  # type: ignore[arg-type]
    return {row.pattern: row for row in compared(planned, QWEN, batch=batch, context=context, prompt=context)}


def test_every_pattern_has_a_row_and_a_purpose():
    assert list(rows()) == list(Pattern) == list(MEANT_FOR)


def test_a_pattern_that_holds_less_is_shown_with_the_most_that_fits():
    b = rows()[Pattern.B]
    assert (b.fits, b.most, b.at) == (False, 12, 12)


def test_a_pattern_that_cannot_be_says_why_and_the_others_stand():
    on_one_die = rows(gpu="h200")
    assert "needs two dies" in on_one_die[Pattern.C].impossible
    assert on_one_die[Pattern.C].predictions is None
    assert on_one_die[Pattern.A].predictions is not None


def test_on_a_b200_pattern_c_has_the_limit_of_a():
    found = rows()
    a, c = found[Pattern.A].predictions, found[Pattern.C].predictions
    assert a is not None and c is not None
    assert c.limit.tok_s_stream == pytest.approx(a.limit.tok_s_stream)


def test_only_patterns_that_speculate_go_past_the_bandwidth_bound():
    found = rows(batch=1, context=2048)
    bound = 7.7e12 / 44.7e9
    fast = {
        pattern for pattern, row in found.items()
        if row.predictions is not None and row.predictions.limit.tok_s_stream > bound
    }  # fmt: skip
    assert fast == {Pattern.D, Pattern.A_EAGLE}


def test_a_frontier_gives_all_more_and_each_stream_less_as_the_batch_grows():
    able = [(row.deployment, row.most) for row in rows().values() if row.deployment is not None]
    for curve in frontier(able, context=32768, prompt=32768):
        limits = [point.predictions.limit for point in curve.points]
        assert len(limits) >= 3
        assert [one.tok_s_aggregate for one in limits] == sorted(one.tok_s_aggregate for one in limits)
        assert [one.tok_s_stream for one in limits] == sorted(
            (one.tok_s_stream for one in limits), reverse=True
        )


def test_a_frontier_ends_at_the_most_that_fits_and_has_no_engine_idle():
    b = next(row for row in rows().values() if row.pattern is Pattern.B)
    assert b.deployment is not None
    (curve,) = frontier([(b.deployment, b.most)], context=32768, prompt=32768)
    assert [point.batch for point in curve.points] == [2, 4, 8, 12]


def test_where_not_one_sequence_fits_there_is_no_curve():
    planned = deployment_of(QWEN)
    assert list(frontier([(planned, 0)], context=32768, prompt=32768)) == []
