"""The one place that step times come from: what it has figures of, and how it refuses the rest."""

from typing import Any

import pytest

from diplex_core.model.chapter import calibrated_for
from diplex_core.model.steps import StepTimes, step_times
from diplex_core.words import Pattern

OWN = dict(zip(("gpu", "profile", "weights", "kv_cache"), calibrated_for(), strict=True))


def times(pattern: Pattern = Pattern.A, **other: Any) -> StepTimes:
    return step_times(pattern, **{"calibration": "chapter", **OWN, **other})


@pytest.mark.parametrize("pattern", Pattern)
def test_every_pattern_has_step_times_which_are_made_once(pattern: Pattern):
    assert times(pattern) is times(pattern)
    assert times(pattern).decode_step(1, 2048) > 0


def test_what_speculates_drafts_as_the_chapter_does_where_nothing_is_said():
    assert [times(pattern).draft_tokens for pattern in Pattern] == [0, 0, 0, 5, 5]
    assert times(Pattern.D, draft_tokens=0).draft_tokens == 5
    assert times(Pattern.A_EAGLE, draft_tokens=3).draft_tokens == 3


@pytest.mark.parametrize("other", [{}, {"profile": "qwen2.5-32b", "weights": "fp8"}, {"kv_cache": "bf16"}])
def test_what_a_worker_calls_its_figures_finds_them_again(other: dict[str, str]):
    told = times(**other).calibration
    assert told == ("chapter, scaled from qwen2.5-72b" if other else "chapter")
    assert times(**other, calibration=told).decode_step(4, 100) == times(**other).decode_step(4, 100)


@pytest.mark.parametrize(
    ("bent", "message"),
    [
        ({"calibration": "measured"}, "'measured'.*: its efficiencies are not fitted yet. Mend: .*chapter"),
        ({"calibration": "limit"}, "'limit'.*: no engine is that fast. Mend: calibration: chapter"),
        ({"gpu": "h200"}, "about b200, not h200. Mend: gpu: b200"),
        ({"profile": "gpt-2"}, "unknown model 'gpt-2'; known: .*Mend: profile: qwen2.5-72b"),
        ({"weights": "fp3"}, "unknown number format 'fp3'; known: .*Mend: .*weights: mxfp4-mixed"),
        ({"kv_cache": ""}, "unknown number format ''; known: .*Mend: .*kv_cache: mxfp8"),
        ({"draft_tokens": 4}, "pattern A does not speculate. Mend: pattern: D, or no draft"),
    ],
)
def test_what_has_no_figures_is_refused_with_the_mend(bent: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        times(**bent)
