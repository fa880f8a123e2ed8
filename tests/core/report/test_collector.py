"""A collector that hears outcomes one by one counts what a look at all of them finds."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diplex_core.report import Collector, Ending, LedgerFigures, Outcome, Spread, report_of
from diplex_core.words import Tier

Make = Callable[..., Outcome]

DURATION = st.none() | st.floats(0, 100)
SOME = st.fixed_dictionaries(
    {
        "tier": st.sampled_from(("interactive", "bulk", "another")),
        "ended": st.sampled_from(list(Ending)),
        "served_tier": st.sampled_from(("", "interactive", "bulk")),
        "tenant": st.sampled_from(("", "acme", "blue")),
        **dict.fromkeys(("queued", "ttft", "tpot", "longest_gap", "e2e"), DURATION),
        "prompt_tokens": st.integers(0, 10_000),
        "cached_tokens": st.integers(0, 100),
        "output_tokens": st.integers(0, 1000),
        "problem": st.sampled_from(("", "QUEUE_FULL", "TOO_LATE")),
        "detail": st.sampled_from(("", "one", "two")),
        "retry_given": st.integers(0, 2),
        "retry_obeyed": st.integers(0, 1),
    }
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(SOME))
def test_a_collector_says_what_all_outcomes_together_say(
    outcome: Make, tiers: dict[str, Tier], some: list[dict[str, Any]]
):
    outcomes = [outcome(**one) for one in some]
    heard = Collector(tiers)
    for one in outcomes:
        heard.add(one)
    made = report_of(heard, tiers, {}, LedgerFigures(), model="m", duration=10.0)
    assert made == report_of(outcomes, tiers, {}, LedgerFigures(), model="m", duration=10.0)
    done = [one for one in outcomes if one.ended is Ending.COMPLETED]
    assert made.output_tokens == sum(one.output_tokens for one in outcomes)
    assert made.prompt_tokens == sum(one.prompt_tokens for one in done)
    assert made.cached_tokens == sum(one.cached_tokens for one in done)
    assert sum(made.problems.values()) == len(outcomes) - len(done)
    for name, tier in tiers.items():
        asked = [one for one in outcomes if one.tier == name]
        kept = [one for one in asked if one.ended is Ending.COMPLETED]
        figures = made.tiers[name]
        assert (figures.requests, figures.completed) == (len(asked), len(kept))
        ended = Counter(one.ended for one in asked)
        assert (figures.rejected, figures.failed) == (ended[Ending.REJECTED], ended[Ending.FAILED])
        assert figures.degraded == sum(one.degraded for one in asked)
        assert figures.met == sum(one.met(tier) for one in asked)
        assert figures.output_tokens == sum(one.output_tokens for one in asked)
        assert figures.retry_given == sum(one.retry_given for one in asked)
        assert figures.retry_obeyed == sum(one.retry_obeyed for one in asked)
        assert figures.retry_succeeded == sum(one.retry_obeyed > 0 for one in kept)
        assert figures.ttft == Spread.of(one.ttft for one in kept)
        assert figures.tpot == Spread.of(one.tpot for one in kept)
        assert figures.longest_gap == Spread.of(one.longest_gap for one in kept)
        assert figures.e2e == Spread.of(one.e2e for one in kept)
        assert figures.queue == Spread.of(one.queued for one in kept)


def test_a_collector_keeps_eight_bytes_a_duration(outcome: Make, tiers: dict[str, Tier]):
    heard = Collector(tiers, (outcome(longest_gap=0.01) for _ in range(100)))
    tally = heard.tiers["interactive"]
    kept = (tally.ttft, tally.tpot, tally.longest_gap, tally.e2e, tally.queue)
    assert [one.itemsize * len(one) for one in kept] == [800] * 5
