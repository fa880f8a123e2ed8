"""Continuous batching on invented time: who waits for whom, how long, and what the KV cache holds."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diplex_core.model.chapter import Chapter
from diplex_core.sim.batch import Batch, Work
from diplex_core.sim.paged import Overrun, PagedCache
from diplex_core.sim.speech import natural_length, prompt_digest, token
from diplex_core.words import Claim, EndReason, Pattern

CHAPTER = Chapter(Pattern.A)


def work(number: int, prompt: int = 100, max_tokens: int = 10, **more: object) -> Work:
    more = {"to_the_limit": True, **more}
    digest = prompt_digest("text", b"%d" % number)
    return Work(Claim(number, 1), digest, prompt, max_tokens, **more)  # type: ignore[arg-type]


@dataclass
class Engine:
    """A batch, the time that its iterations took, and all that it said."""

    batch: Batch
    now: float = 0.0
    said: dict[tuple[int, int], list[tuple[float, int | None, str]]] = field(default_factory=dict)
    ends: dict[tuple[int, int], tuple[float, EndReason]] = field(default_factory=dict)
    began: dict[int, float] = field(default_factory=dict)

    def step(self) -> float:
        start = self.now
        took = self.batch.plan(lambda claim: self.began.setdefault(claim.lease_id, start))
        self.now += took
        self.batch.finish(self.hear)
        return took

    def hear(self, claim: Claim, choice: int, token_id: int | None, text: str, end: EndReason | None) -> None:
        key = (claim.lease_id, choice)
        assert key not in self.ends, "nothing is said after the last word"
        if token_id is not None:
            self.said.setdefault(key, []).append((self.now, token_id, text))
        if end is not None:
            self.ends[key] = (self.now, end)

    def run(self, most: int = 100_000) -> None:
        for _ in range(most):
            if self.batch.idle:
                return
            self.step()
        raise AssertionError("the engine never came to rest")

    def text(self, number: int, choice: int = 0) -> str:
        return "".join(text for _, _, text in self.said.get((number, choice), []))

    def ttft(self, number: int) -> float:
        return self.said[number, 0][0][0]


@pytest.fixture
def engine() -> Callable[..., Engine]:
    def build(capacity: int = 2000, slots: int = 8, budget: int | None = None, seed: int = 0) -> Engine:
        batch = Batch(
            CHAPTER, capacity=capacity, slots=slots, block_tokens=32, prefill_budget=budget, seed=seed
        )
        return Engine(batch)

    return build


def expected(number: int, count: int, choice: int = 0) -> str:
    digest = prompt_digest("text", b"%d" % number)
    return "".join(token(digest, choice, index)[1] for index in range(count))


def test_each_request_says_exactly_the_words_of_its_prompt(engine):
    sim = engine()
    for number in range(20):
        sim.batch.submit(work(number, max_tokens=5 + number))
    sim.run()
    assert [sim.text(number) for number in range(20)] == [expected(n, 5 + n) for n in range(20)]


def test_a_stated_length_is_kept_and_an_open_one_ends_by_itself(engine):
    sim = engine()
    sim.batch.submit(work(1, max_tokens=500))
    sim.batch.submit(work(2, max_tokens=500, to_the_limit=False))
    sim.batch.submit(work(3, max_tokens=20, to_the_limit=False))
    sim.run()
    natural = natural_length(prompt_digest("text", b"2"), 0)
    assert [len(sim.said[n, 0]) for n in (1, 2, 3)] == [500, natural, 20]
    assert [sim.ends[n, 0][1] for n in (1, 2, 3)] == [EndReason.LENGTH, EndReason.STOP, EndReason.LENGTH]


def test_choices_share_the_prompt_and_each_says_its_own_words(engine):
    sim = engine()
    sim.batch.submit(work(1, prompt=100, max_tokens=40, choices=3))
    sim.run()
    assert [sim.text(1, choice) for choice in range(3)] == [expected(1, 40, choice) for choice in range(3)]
    assert sim.batch.cache.peak == 3 + 3 * 2  # 96 shared tokens; 4 + 40 of its own for each choice


def test_a_resumed_request_goes_on_with_the_word_that_was_due(engine):
    sim = engine()
    sim.batch.submit(work(1, prompt=50, max_tokens=30, from_index=12))
    sim.run()
    whole = expected(1, 30)
    assert sim.text(1) == whole[len(expected(1, 12)) :]
    assert len(sim.said[1, 0]) == 18


def test_a_stop_string_ends_a_choice_and_is_not_said(engine):
    sim = engine()
    second = token(prompt_digest("text", b"1"), 0, 2)[1]
    sim.batch.submit(work(1, max_tokens=50, stop=(second,)))
    sim.run()
    assert sim.text(1) == expected(1, 2)
    assert sim.ends[1, 0][1] is EndReason.STOP


def test_alone_the_first_token_comes_after_prefill_and_one_step(engine):
    sim = engine()
    sim.batch.submit(work(1, prompt=2048, max_tokens=2))
    sim.run()
    assert sim.ttft(1) == pytest.approx(0.030, rel=0.1)


@pytest.mark.parametrize(("neighbours", "row"), [(7, 0.050), (31, 0.090)])
def test_among_others_the_first_token_comes_when_the_chapter_says(engine, neighbours: int, row: float):
    sim = engine(capacity=20_000, slots=32)
    for number in range(neighbours):
        sim.batch.submit(work(number, prompt=2048, max_tokens=400))
    while len(sim.said) < neighbours or not all(sim.said.values()):
        sim.step()
    asked = sim.now  # the worst moment but one: a step has just begun
    sim.batch.plan(lambda claim: None)
    sim.batch.submit(work(99, prompt=2048, max_tokens=2))
    half = CHAPTER.decode_step(neighbours) / 2  # it came in the middle of that step
    sim.batch.finish(sim.hear)
    sim.now += half
    while (99, 0) not in sim.said:
        sim.step()
    assert sim.ttft(99) - asked == pytest.approx(row, rel=0.1)


def test_a_running_stream_has_the_rate_of_its_batch(engine):
    sim = engine(capacity=20_000, slots=32)
    for number in range(32):
        sim.batch.submit(work(number, prompt=1920, max_tokens=400))
    sim.run()
    first_end = min(when for when, _ in sim.ends.values())
    times = [when for when, _, _ in sim.said[31, 0] if when < first_end]  # all 32 run
    assert len(times) > 30
    assert (len(times) - 1) / (times[-1] - times[0]) == pytest.approx(3800 / 32, rel=0.05)


def test_a_prompt_that_is_read_delays_its_neighbours(engine):
    def longest_gap(budget: int | None) -> float:
        sim = engine(budget=budget)
        sim.batch.submit(work(1, prompt=100, max_tokens=100))
        for _ in range(10):
            sim.step()
        sim.batch.submit(work(2, prompt=8192, max_tokens=1))
        sim.run()
        times = [when for when, _, _ in sim.said[1, 0]]
        return max(later - earlier for earlier, later in pairwise(times))

    quiet = CHAPTER.decode_step(1, 100)
    assert longest_gap(256) < 2.5 * quiet
    assert longest_gap(16384) > quiet + 0.1  # the whole prompt in one step: 8k tokens, about 118 ms


def test_a_prefill_budget_bounds_what_one_step_reads(engine):
    sim = engine(budget=256)
    sim.batch.submit(work(1, prompt=2048, max_tokens=1))
    steps = 0
    while not sim.batch.idle:
        sim.step()
        steps += 1
    assert steps == 8


def test_requests_are_read_first_come_first_served(engine):
    sim = engine(slots=2)
    for number in (5, 3, 4, 1):
        sim.batch.submit(work(number, prompt=2048, max_tokens=20))
    sim.run()
    assert sorted(sim.began, key=lambda number: sim.began[number]) == [5, 3, 4, 1]


def test_a_request_without_a_slot_waits_for_one(engine):
    sim = engine(slots=1)
    sim.batch.submit(work(1))
    sim.batch.submit(work(2))
    sim.run()
    assert sim.began[2] >= sim.ends[1, 0][0]


def test_a_request_without_blocks_waits_for_them(engine):
    sim = engine(capacity=5)
    sim.batch.submit(work(1, prompt=100, max_tokens=28))  # 4 blocks
    sim.batch.submit(work(2, prompt=60, max_tokens=4))
    sim.run()
    assert sim.began[2] >= sim.ends[1, 0][0]
    assert sim.batch.cache.peak <= 5


def test_the_cache_fills_as_tokens_come(engine):
    sim = engine(budget=64)
    sim.batch.submit(work(1, prompt=128, max_tokens=70))
    seen = []
    while not sim.batch.idle:
        sim.step()
        seen.append(sim.batch.cache.used)
    # two chunks; 32 tokens a block behind them; and nothing once it is over
    assert seen[:2] == [2, 5]
    assert seen[1:-1] == [5] * 32 + [6] * 32 + [7] * 5
    assert seen[-1] == 0


def test_a_cancelled_request_says_so_when_its_blocks_are_free(engine):
    sim = engine()
    sim.batch.submit(work(1, max_tokens=1000))
    for _ in range(10):
        sim.step()
    sim.batch.cancel(Claim(1, 1))
    assert sim.batch.cache.used > 0
    sim.step()
    assert sim.ends[1, 0][1] is EndReason.CANCELLED
    assert (sim.batch.cache.used, sim.batch.used_slots, sim.batch.idle) == (0, 0, True)


@pytest.mark.parametrize("steps", [0, 1])
def test_a_request_that_is_cancelled_before_its_first_token_ends_too(engine, steps: int):
    sim = engine(budget=64)
    sim.batch.submit(work(1, prompt=1000, choices=2))
    for _ in range(steps):
        sim.step()
    sim.batch.cancel(Claim(1, 1))
    sim.run()
    assert {key: end for key, (_, end) in sim.ends.items()} == dict.fromkeys(
        [(1, 0), (1, 1)], EndReason.CANCELLED
    )
    assert sim.said == {}


def test_cancelling_what_is_unknown_or_over_does_nothing(engine):
    sim = engine()
    sim.batch.submit(work(1))
    sim.run()
    sim.batch.cancel(Claim(1, 1))
    sim.batch.cancel(Claim(9, 1))
    assert sim.batch.idle


@pytest.mark.parametrize(
    ("impossible", "why"),
    [
        (work(1, prompt=64_000, max_tokens=1), "needs 2001 KV blocks and 1 slots; the engine has 2000 and 8"),
        (work(1, choices=9), "9 slots"),
        (work(1, max_tokens=5, from_index=5), "all 5 tokens were produced"),
    ],
)
def test_what_can_never_run_is_refused_at_once(engine, impossible: Work, why: str):
    with pytest.raises(ValueError, match=why):
        engine().batch.submit(impossible)


def test_the_same_seed_takes_the_same_time_and_another_one_another(engine):
    def takes(seed: int) -> float:
        sim = engine(seed=seed)
        for number in range(8):
            sim.batch.submit(work(number, prompt=8000, max_tokens=3))
        sim.run()
        return sim.now

    assert takes(1) == takes(1) != takes(2)


def test_one_long_prompt_in_twenty_waits_as_long_as_the_chapters_p95(engine):
    def ttft(seed: int) -> float:
        sim = engine(seed=seed)
        sim.batch.submit(work(1, prompt=32768, max_tokens=1))
        sim.run()
        return sim.ttft(1)

    times = sorted(ttft(seed) for seed in range(400))
    assert times[380] == pytest.approx(0.600, rel=0.05)
    assert times[200] == pytest.approx(0.485, rel=0.05)


def test_a_cache_never_gives_out_more_than_it_has():
    cache = PagedCache(2)
    first, second = cache.take(), cache.take()
    with pytest.raises(Overrun, match="all 2 KV blocks"):
        cache.take()
    cache.give_back([first])
    assert cache.take() == first != second


@given(
    times=st.sampled_from([CHAPTER, *(Chapter(Pattern.D, draft_tokens=ahead) for ahead in (1, 5, 20))]),
    works=st.lists(
        st.tuples(st.integers(1, 300), st.integers(1, 60), st.integers(1, 3), st.integers(0, 40)), max_size=25
    ),
    budget=st.sampled_from([None, 16, 300]),
    cancels=st.dictionaries(st.integers(0, 24), st.integers(0, 60), max_size=10),
)
def test_whatever_comes_the_cache_stays_within_its_capacity_and_is_empty_at_the_end(
    times, works, budget, cancels
):
    batch = Batch(times, capacity=40, slots=5, block_tokens=16, prefill_budget=budget)
    sim = Engine(batch)
    taken = []
    for number, (prompt, max_tokens, choices, from_index) in enumerate(works):
        asked = work(number, prompt, max_tokens + from_index, choices=choices, from_index=from_index)
        if asked.blocks(16, times.draft_tokens) <= 40:
            batch.submit(asked)
            taken.append(asked)
    steps = 0
    while not batch.idle:
        for number, when in cancels.items():
            if when == steps:
                batch.cancel(Claim(number, 1))
        sim.step()
        steps += 1
        assert batch.cache.used <= batch.claimed <= 40
        assert batch.used_slots <= 5
    assert (batch.cache.used, batch.claimed, batch.used_slots) == (0, 0, 0)
    assert set(sim.ends) == {(w.claim.lease_id, choice) for w in taken for choice in range(w.choices)}
