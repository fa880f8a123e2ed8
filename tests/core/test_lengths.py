"""How long answers come to be, as the core learns it."""

from random import Random

import pytest

from diplex_core.lengths import Histogram, Lengths


def lognormal(number: int, seed: int) -> list[int]:
    luck = Random(seed)
    return [max(1, round(luck.lognormvariate(6.0, 1.2))) for _ in range(number)]


@pytest.mark.parametrize("q", [0.01, 0.5, 0.9, 0.99, 1.0])
def test_a_quantile_is_right_within_two_percent(q: float) -> None:
    lengths, histogram = lognormal(4000, 7), Histogram()
    for tokens in lengths:
        histogram.add(tokens)
    true = sorted(lengths)[max(0, -(-round(q * 4000) // 1) - 1)]
    assert histogram.quantile(q) == pytest.approx(true, rel=0.021, abs=0.51)


def test_what_has_grown_long_is_compared_with_what_grew_longer() -> None:
    lengths, histogram = lognormal(4000, 8), Histogram()
    for tokens in lengths:
        histogram.add(tokens)
    longer = sorted(tokens for tokens in lengths if tokens > 1000)
    assert histogram.quantile(0.5, beyond=1000) == pytest.approx(longer[len(longer) // 2], rel=0.05)
    assert histogram.quantile(0.0, beyond=1000) > 1000


def test_too_few_answers_say_nothing() -> None:
    histogram = Histogram()
    for _ in range(29):
        histogram.add(100)
    assert histogram.quantile(0.9) is None
    histogram.add(100)
    assert histogram.quantile(0.9) == pytest.approx(100, rel=0.02)
    assert histogram.quantile(0.9, beyond=200) is None


def test_what_answers_came_to_once_is_forgotten() -> None:
    histogram = Histogram()
    for _ in range(4000):
        histogram.add(8000)
    for _ in range(20_000):
        histogram.add(100)
    assert histogram.quantile(0.99) == pytest.approx(100, rel=0.02)
    assert histogram.total <= 4096


def test_a_quantile_follows_what_is_added_after_it_was_asked() -> None:
    histogram = Histogram()
    for _ in range(30):
        histogram.add(100)
    assert histogram.quantile(0.5) == pytest.approx(100, rel=0.02)
    for _ in range(100):
        histogram.add(3000)
    assert histogram.quantile(0.5) == pytest.approx(3000, rel=0.02)


def test_a_tenant_with_few_answers_of_its_own_is_taken_for_others_of_its_tier() -> None:
    lengths = Lengths()
    for _ in range(30):
        lengths.saw("acme", "bulk", "m", 1000)
    lengths.saw("globex", "bulk", "m", 10)
    assert lengths.quantile("globex", "bulk", "m", 0.9) == pytest.approx(1000, rel=0.02)
    for _ in range(29):
        lengths.saw("globex", "bulk", "m", 10)
    assert lengths.quantile("globex", "bulk", "m", 0.9) == 10
    assert lengths.quantile("globex", "bulk", "other", 0.9) is None
    assert lengths.quantile("globex", "chat", "m", 0.9) is None


def test_an_answer_longer_than_any_of_its_tenant_is_taken_for_others_that_grew_longer() -> None:
    lengths = Lengths()
    for _ in range(30):
        lengths.saw("acme", "bulk", "m", 4000)
        lengths.saw("globex", "bulk", "m", 10)
    assert lengths.quantile("globex", "bulk", "m", 0.9, beyond=50) == pytest.approx(4000, rel=0.02)
    assert lengths.quantile("globex", "bulk", "m", 0.9, beyond=5000) is None
