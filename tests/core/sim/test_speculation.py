"""Speculation in the simulated batch: more tokens a step, the same words, and room for what is drafted."""

from collections import Counter
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diplex_core.model.chapter import Chapter
from diplex_core.sim.batch import Batch, Work
from diplex_core.sim.speech import drawn, natural_length, prompt_digest, token
from diplex_core.words import Claim, EndReason, Pattern

D, EAGLE = Chapter(Pattern.D), Chapter(Pattern.A_EAGLE)

Said = list[tuple[float, str, EndReason | None]]  # when, the text, the end


def work(number: int, prompt: int = 100, max_tokens: int = 10, **more: object) -> Work:
    more = {"to_the_limit": True, **more}
    return Work(Claim(number, 1), digest(number), prompt, max_tokens, **more)  # type: ignore[arg-type]


def digest(number: int) -> int:
    return prompt_digest("text", b"%d" % number)


def words(number: int, count: int, choice: int = 0, start: int = 0) -> str:
    return "".join(token(digest(number), choice, index)[1] for index in range(start, count))


def run(*works: Work, times: Chapter = D, capacity: int = 2000, seed: int = 0) -> dict[tuple[int, int], Said]:
    """Everything that is said, by request and choice; the cache is checked in each step."""
    batch = Batch(times, capacity=capacity, slots=32, block_tokens=32, seed=seed)
    said: dict[tuple[int, int], Said] = {}
    now = 0.0

    def say(claim: Claim, choice: int, token_id: int | None, text: str, end: EndReason | None) -> None:
        said.setdefault((claim.lease_id, choice), []).append((now, text, end))

    for one in works:
        batch.submit(one)
    while not batch.idle:
        now += batch.plan(lambda claim: None)
        batch.finish(say)
        assert batch.cache.used <= batch.claimed <= capacity
    assert (batch.cache.used, batch.claimed, batch.used_slots) == (0, 0, 0)
    return said


def text(said: Said) -> str:
    return "".join(words for _, words, _ in said)


def tokens_by_step(said: Said) -> list[int]:
    return [len(list(group)) for _, group in groupby(said, key=lambda one: one[0])]


@pytest.mark.parametrize("draft_tokens", [1, 3, 5, 8])
@pytest.mark.parametrize("pattern", [Pattern.D, Pattern.A_EAGLE])
def test_a_step_gives_as_many_tokens_as_a_chain_of_drafts_does(pattern: Pattern, draft_tokens: int):
    times = Chapter(pattern, draft_tokens=draft_tokens)
    said = run(*(work(number, max_tokens=1500) for number in range(16)), times=times)
    steps = [count for one in said.values() for count in tokens_by_step(one)[:-1]]
    expected = (1 - times.acceptance ** (draft_tokens + 1)) / (1 - times.acceptance)
    assert sum(steps) / len(steps) == pytest.approx(expected, rel=0.03)
    assert set(steps) == set(range(1, draft_tokens + 2))


def test_each_further_draft_is_right_as_often_as_the_one_before():
    said = run(*(work(number, max_tokens=1500) for number in range(16)))
    reached = Counter(
        least for one in said.values() for count in tokens_by_step(one)[:-1] for least in range(count)
    )
    for ahead in range(5):
        assert reached[ahead + 1] / reached[ahead] == pytest.approx(D.acceptance, abs=0.03)


def test_a_stream_of_pattern_d_has_the_rate_of_a_chain_not_the_chapters():
    said = run(work(1, prompt=2000, max_tokens=1000))[1, 0]
    assert 999 / (said[-1][0] - said[0][0]) == pytest.approx(84, rel=0.1)


@given(
    st.lists(st.tuples(st.integers(1, 100), st.integers(1, 3), st.integers(0, 30)), min_size=1, max_size=8),
    st.sampled_from([D, EAGLE, Chapter(Pattern.D, draft_tokens=33)]),
    st.integers(0, 3),
)
def test_the_words_are_those_of_the_prompt_and_end_where_they_should(asked, times: Chapter, seed: int):
    works = [
        work(number, max_tokens=start + length, choices=choices, from_index=start)
        for number, (length, choices, start) in enumerate(asked)
    ]
    said = run(*works, times=times, seed=seed)
    for number, (length, choices, start) in enumerate(asked):
        for choice in range(choices):
            one = said[number, choice]
            assert text(one) == words(number, start + length, choice, start)
            assert [end for _, _, end in one] == [None] * (length - 1) + [EndReason.LENGTH]


def test_an_answer_that_ends_by_itself_ends_there():
    (said,) = run(work(2, max_tokens=500, to_the_limit=False)).values()
    natural = natural_length(digest(2), 0)
    assert (len(said), text(said), said[-1][2]) == (natural, words(2, natural), EndReason.STOP)


@pytest.mark.parametrize("place", range(1, 12))
def test_a_stop_string_inside_a_step_ends_it_and_is_not_said(place: int):
    stop = token(digest(1), 0, place)[1]
    (said,) = run(work(1, max_tokens=50, stop=(stop,))).values()
    assert (text(said), said[-1][2]) == (words(1, place), EndReason.STOP)
    assert len(said) == place + 1


def test_a_request_holds_room_for_its_drafts():
    asked = work(1, prompt=32, max_tokens=32)
    assert (asked.blocks(32), asked.blocks(32, draft=5)) == (2, 3)
    batch = Batch(D, capacity=2, slots=1, block_tokens=32)
    with pytest.raises(ValueError, match="needs 3 KV blocks"):
        batch.submit(asked)


def test_what_is_drafted_is_written_and_so_takes_its_room():
    batch = Batch(D, capacity=10, slots=1, block_tokens=32)
    batch.submit(work(1, prompt=32, max_tokens=32))
    while not batch.idle:
        batch.plan(lambda claim: None)
        batch.finish(lambda *said: None)
    assert batch.cache.peak == 3  # 32 + 32 tokens are two blocks; drafted ones ran into a third


def test_equal_seeds_draft_equally_and_others_do_not():
    def steps(seed: int) -> list[list[int]]:
        return [
            tokens_by_step(said)
            for said in run(work(1, max_tokens=200), work(2, max_tokens=200), seed=seed).values()
        ]

    assert steps(1) == steps(1) != steps(2)


def test_chance_at_a_place_does_not_depend_on_who_else_runs():
    alone = tokens_by_step(run(work(1, max_tokens=200))[1, 0])
    beside = tokens_by_step(run(work(1, max_tokens=200), work(2, max_tokens=300))[1, 0])
    assert alone == beside


def test_chance_is_even():
    draws = [drawn(7, digest(1), 0, index) for index in range(4000)]
    assert sum(draw < 0.7 for draw in draws) / len(draws) == pytest.approx(0.7, abs=0.03)
