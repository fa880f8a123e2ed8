"""A worker slower or faster than its model is found out within a few requests; one odd step does little."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diplex_core.model.chapter import Chapter
from diplex_core.model.correction import Correction
from diplex_core.words import Pattern

MODEL = Chapter(Pattern.A)
TIMES = st.floats(1e-9, 1e9)


def test_nothing_seen_corrects_nothing():
    assert (Correction().reading, Correction().step) == (1.0, 1.0)


@pytest.mark.parametrize("slower", [0.5, 0.8, 1.6, 2.0])
def test_an_engine_that_is_not_as_fast_as_its_model_is_predicted_within_a_tenth_after_20_requests(
    slower: float,
):
    """Its own times scatter by a tenth either way, and prompts and batches are of all sizes."""
    chance, learned = random.Random(1), Correction()
    for _ in range(20):
        reading, step = MODEL.prefill(chance.randint(16, 8192)), MODEL.decode_step(chance.randint(1, 32))
        learned.saw_reading(reading, reading * slower * chance.uniform(0.9, 1.1))
        learned.saw_step(step, step * slower * chance.uniform(0.9, 1.1))
    assert learned.reading == pytest.approx(slower, rel=0.1)
    assert learned.step == pytest.approx(slower, rel=0.1)


@pytest.mark.parametrize("odd", [1 / 50, 50])
@pytest.mark.parametrize("usual", [0.7, 1.0, 1.6])
def test_one_odd_step_moves_it_by_less_than_a_fifth(usual: float, odd: float):
    learned = Correction()
    for _ in range(100):
        learned.saw_step(1.0, usual)
    learned.saw_step(1.0, usual * odd)
    assert learned.step == pytest.approx(usual, rel=0.2)


def test_what_is_learned_about_reading_says_nothing_about_steps():
    learned = Correction()
    learned.saw_reading(1.0, 2.0)
    assert learned.reading > learned.step == 1.0


@given(st.lists(st.tuples(TIMES, TIMES)))
def test_a_factor_stays_between_an_eighth_and_eight_whatever_is_seen(seen: list[tuple[float, float]]):
    learned = Correction()
    for predicted, observed in seen:
        learned.saw_step(predicted, observed)
        assert 1 / 8 * (1 - 1e-9) <= learned.step <= 8 * (1 + 1e-9)


def test_a_worker_that_is_beyond_belief_is_believed_up_to_eight_times():
    learned = Correction()
    for _ in range(100):
        learned.saw_reading(1.0, 1000.0)
    assert learned.reading == pytest.approx(8)


@pytest.mark.parametrize(
    "times", [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (float("nan"), 1.0), (1.0, float("inf"))]
)
def test_times_that_are_none_teach_nothing(times: tuple[float, float]):
    learned = Correction()
    learned.saw_step(*times)
    assert learned.step == 1.0


def test_an_engine_that_changes_is_followed():
    learned = Correction()
    for slower in [2.0] * 30 + [1.0] * 30:
        learned.saw_step(1.0, slower)
    assert learned.step == pytest.approx(1.0, rel=0.05)
