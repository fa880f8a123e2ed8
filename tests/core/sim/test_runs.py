"""The batch by events and the batch iteration by iteration: the same happens, at the same moments."""

from bisect import bisect_left
from contextlib import suppress
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diplex_core.growth import LEAD
from diplex_core.model.chapter import Chapter
from diplex_core.model.steps import StepTimes
from diplex_core.sim.batch import Batch, Work
from diplex_core.sim.paged import Overrun
from diplex_core.sim.runs import First, Near, Over, Runs
from diplex_core.sim.speech import odds_of, steps_taken
from diplex_core.words import Claim, EndReason, Pattern

SIZE = 16  # tokens a block


@dataclass
class Seen:
    """What became of one request on an engine; `blocks` that were used whenever somebody heard something."""

    first: float | None = None
    over: tuple[float, EndReason, int] | None = None
    last: float | None = None
    gap: float = 0.0


@dataclass(frozen=True)
class Deed:
    """A request that comes at a moment, is cancelled then, or may hold so many tokens from then on."""

    at: float
    work: Work
    cancel: bool = False
    limit: int | None = None


class Bent:
    """Step times that are no line in the context, and whose prompts take longer in chunks."""

    calibration, largest_batch, most_prefill_per_step = "bent", 8, 4096
    draft_tokens, acceptance, tokens_per_step = 0, 0.0, 1.0

    def decode_step(self, batch: int, context: float) -> float:
        return 0.004 + max(1e-8 * batch * context, 3e-8 * batch * (context - 150.0)) + 1e-12 * context**2

    def prefill(self, tokens: int, *, behind: int = 0) -> float:
        return 0.001 + 1e-5 * tokens + 1e-9 * tokens * (2 * behind + tokens)

    def prefill_per_step(self, batch: int) -> int:
        return 512 // batch

    def tail(self, batch: int) -> float:
        return 1.2


@dataclass
class Stepwise:
    """The batch, iteration by iteration, on a clock: what `Runs` has to equal."""

    batch: Batch
    now: float = 0.0
    due: float | None = None
    seen: dict[int, Seen] = field(default_factory=dict)
    tokens: dict[int, int] = field(default_factory=dict)
    open: dict[int, int] = field(default_factory=dict)
    blocks: list[tuple[float, int]] = field(default_factory=list)
    iterations: int = 0

    def submit(self, work: Work, now: float) -> None:
        number = work.claim.lease_id
        self.batch.submit(work)
        self.seen[number], self.tokens[number], self.open[number] = Seen(), 0, work.choices
        if self.due is None:
            self.plan(now)

    def cancel(self, claim: Claim, now: float) -> None:
        self.batch.cancel(claim)
        if self.due is None:
            self.plan(now)

    def set_limit(self, claim: Claim, tokens: int, now: float) -> None:
        with suppress(Overrun):  # there is no room: it stays as it is
            self.batch.set_limit(claim, tokens)
        if self.due is None:
            self.plan(now)

    def plan(self, at: float) -> None:
        self.due = at + self.batch.plan(lambda claim: None) if not self.batch.idle else None

    def advance(self, now: float) -> None:
        while self.due is not None and self.due <= now:
            self.now = self.due
            self.iterations += 1
            events = len([1 for one in self.seen.values() if one.first]), sum(self.open.values())
            self.batch.finish(self.hear)
            if events != (len([1 for one in self.seen.values() if one.first]), sum(self.open.values())):
                self.blocks.append((self.now, self.batch.cache.used))
            self.plan(self.now)

    def hear(self, claim: Claim, choice: int, token_id: int | None, text: str, end: EndReason | None) -> None:
        one = self.seen[claim.lease_id]
        if token_id is not None:
            self.tokens[claim.lease_id] += 1
            if one.last is not None:
                one.gap = max(one.gap, self.now - one.last)
            one.first = self.now if one.first is None else one.first
            one.last = self.now
        if end is not None:
            self.open[claim.lease_id] -= 1
            if not self.open[claim.lease_id]:
                one.over = (self.now, end, self.tokens[claim.lease_id])


@dataclass
class ByEvents:
    runs: Runs
    seen: dict[int, Seen] = field(default_factory=dict)
    near: list[tuple[Claim, float, int]] = field(default_factory=list)  # with what it had said by then
    blocks: list[tuple[float, int]] = field(default_factory=list)

    def submit(self, work: Work, now: float) -> None:
        self.runs.submit(work, now)
        self.seen[work.claim.lease_id] = Seen()

    def cancel(self, claim: Claim, now: float) -> None:
        self.runs.cancel(claim, now)

    def set_limit(self, claim: Claim, tokens: int, now: float) -> None:
        with suppress(Overrun):
            self.runs.set_limit(claim, tokens, now)

    @property
    def due(self) -> float | None:
        return self.runs.due

    def advance(self, now: float) -> None:
        while self.runs.due is not None and self.runs.due <= now:
            at = self.runs.due
            for word in self.runs.advance(at):
                one = self.seen[word.claim.lease_id]
                match word:
                    case First():
                        one.first = one.last = word.at
                    case Near():
                        self.near.append((word.claim, word.at, self.runs.so_far(word.claim, word.at)[0]))
                    case Over():
                        one.over = (word.at, word.reason, word.tokens)
                        one.last, one.gap = word.last, word.longest_gap
            self.blocks.append((at, self.runs.used_blocks(at)))


def play(engine: Stepwise | ByEvents, deeds: list[Deed]) -> None:
    """Everything that happens to an engine, and then on until it is at rest."""
    for deed in deeds:
        act(engine, deed)
    engine.advance(float("inf"))


def act(engine: Stepwise | ByEvents, deed: Deed) -> None:
    engine.advance(deed.at)
    if deed.cancel:
        engine.cancel(deed.work.claim, deed.at)
    elif deed.limit is not None:
        engine.set_limit(deed.work.claim, deed.limit, deed.at)
    else:
        engine.submit(deed.work, deed.at)


def both(
    times: StepTimes, deeds: list[Deed], *, capacity: int = 60, slots: int = 5, budget: int | None = None
) -> tuple[Stepwise, ByEvents]:
    about = {"capacity": capacity, "slots": slots, "block_tokens": SIZE, "prefill_budget": budget, "seed": 7}
    stepwise, by_events = Stepwise(Batch(times, **about)), ByEvents(Runs(times, **about))  # type: ignore[arg-type]
    play(stepwise, deeds)
    play(by_events, deeds)
    return stepwise, by_events


def near(one: float | None, other: float | None) -> bool:
    return one == other if one is None or other is None else one == pytest.approx(other, rel=1e-6)


requests = st.lists(
    st.tuples(
        st.floats(0.0, 0.4),  # seconds after the one before
        st.integers(1, 500),  # prompt
        st.integers(1, 120),  # output
        st.integers(1, 3),  # choices
        st.integers(0, 40),  # of earlier attempts
        st.integers(0, 3),  # cached blocks
        st.one_of(st.none(), st.floats(0.0, 1.0)),  # cancelled after
    ),
    min_size=1,
    max_size=25,
)


def deeds_of(asked: list[tuple], draft: int, capacity: int, slots: int) -> list[Deed]:
    deeds, now = [], 0.0
    for number, (after, prompt, output, choices, before, cached, cancelled) in enumerate(asked):
        now += after
        work = Work(
            Claim(number, 1),
            number * 77,
            prompt,
            before + output,
            choices=min(choices, slots),
            from_index=before,
            to_the_limit=True,
            cached=SIZE * min(cached, prompt // SIZE),
        )
        if work.blocks(SIZE, draft) <= capacity:
            deeds.append(Deed(now, work))
            if cancelled is not None:
                deeds.append(Deed(now + cancelled, work, cancel=True))
    return sorted(deeds, key=lambda deed: deed.at)


@given(
    times=st.sampled_from([*(Chapter(p) for p in (Pattern.A, Pattern.B, Pattern.C)), Bent()]),
    asked=requests,
    budget=st.sampled_from([None, 16, 50, 300]),
    room=st.sampled_from([(60, 5), (400, 16), (90, 1)]),
)
@settings(max_examples=300, deadline=None)
def test_first_tokens_ends_gaps_and_blocks_are_those_of_the_batch_step_by_step(times, asked, budget, room):
    capacity, slots = room
    deeds = deeds_of(asked, 0, capacity, slots)
    assert_equal(*both(times, deeds, capacity=capacity, slots=slots, budget=budget))


growing = st.lists(
    st.tuples(
        st.integers(1, 60),  # tokens that it may say at first
        st.lists(st.tuples(st.floats(0.0, 0.5), st.integers(1, 80)), max_size=4),  # raised after, by so many
    ),
    min_size=25,
    max_size=25,
)


def growing_deeds(
    asked: list[tuple], grown: list[tuple], draft: int, capacity: int, slots: int
) -> list[Deed]:
    """Requests with limits that are raised now and then, in the end to none; who then still waits for room is
    cancelled."""
    deeds, limited = deeds_of(asked, draft, capacity, slots), dict[Claim, Work]()
    more = []
    for deed in deeds:
        work = deed.work
        if deed.cancel:
            continue  # it came before
        first, raises = grown[work.claim.lease_id]
        limit, at = work.to_read + first, deed.at
        limited[work.claim] = replace(work, limit=limit)
        for after, tokens in raises:
            at, limit = at + after, limit + tokens
            more.append(Deed(at, limited[work.claim], limit=limit))
    deeds = sorted(
        [*(replace(deed, work=limited[deed.work.claim]) for deed in deeds), *more], key=lambda deed: deed.at
    )
    for at, work in enumerate(limited.values(), 1):
        deeds += [Deed(40.0 * at, work, limit=0), Deed(40.0 * at + 20.0, work, cancel=True)]
    return deeds


@given(
    times=st.sampled_from([*(Chapter(p) for p in (Pattern.A, Pattern.B, Pattern.C)), Bent()]),
    asked=requests,
    grown=growing,
    budget=st.sampled_from([None, 16, 300]),
    room=st.sampled_from([(60, 5), (400, 16), (90, 2)]),
)
@settings(max_examples=300, deadline=None)
def test_with_limits_that_are_raised_now_and_then_it_is_still_the_batch(times, asked, grown, budget, room):
    capacity, slots = room
    deeds = growing_deeds(asked, grown, 0, capacity, slots)
    assert_equal(*both(times, deeds, capacity=capacity, slots=slots, budget=budget))


@given(asked=requests, grown=growing, pattern=st.sampled_from([Pattern.D, Pattern.A_EAGLE]))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_speculating_a_limit_cuts_a_step_short_and_what_is_said_is_the_same(asked, grown, pattern: Pattern):
    """Cancelled ones aside: how far these have come is known to some tokens only."""
    times = Chapter(pattern)
    uncut = [(*one[:-1], None) for one in asked]
    deeds = growing_deeds(uncut, grown, times.draft_tokens, 4_000, 80)
    stepwise, by_events = both(times, deeds, capacity=4_000, slots=80)
    for number, one in stepwise.seen.items():
        other = by_events.seen[number]
        for seen, other_seen in ((one.first, other.first), (one.last, other.last), (one.gap, other.gap)):
            assert other_seen == pytest.approx(seen, rel=0.05, abs=0.05)
        assert one.over is not None and other.over is not None
        assert other.over[1:] == one.over[1:]
    assert (by_events.runs.claimed, by_events.runs.used_slots, by_events.runs.used_blocks(0)) == (0, 0, 0)


def assert_equal(stepwise: Stepwise, by_events: ByEvents) -> None:
    assert by_events.seen.keys() == stepwise.seen.keys()
    for number, one in stepwise.seen.items():
        other = by_events.seen[number]
        assert near(other.first, one.first)
        assert near(other.last, one.last)
        assert other.gap == pytest.approx(one.gap, rel=1e-6, abs=1e-9)
        assert other.over is not None and one.over is not None
        assert other.over[0] == pytest.approx(one.over[0], rel=1e-6)
        assert other.over[1:] == one.over[1:]
    moments = [at for at, _ in by_events.blocks]
    for at, blocks in stepwise.blocks:
        found = bisect_left(moments, at - 1e-7)
        assert near(moments[found], at)
        # An engine that rests lets go of two that are cancelled at one moment one after the other.
        assert blocks in [used for moment, used in by_events.blocks[found : found + 3] if near(moment, at)]
    assert (by_events.runs.claimed, by_events.runs.used_slots, by_events.runs.used_blocks(0)) == (0, 0, 0)


@given(
    times=st.sampled_from([Chapter(Pattern.D), Chapter(Pattern.D, draft_tokens=2), Chapter(Pattern.A_EAGLE)]),
    asked=requests,
    budget=st.sampled_from([None, 50, 300]),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_speculating_each_answer_takes_the_steps_of_its_drafts_and_times_are_near(times, asked, budget):
    """In between answers are taken to grow evenly: contexts differ by some tokens, blocks by what these fill.
    Without cancellations: how far an answer has come in mid-run is known to some tokens only.

    In 99 of 100 loads nothing is off by more than a ten-thousandth. Now and then a request comes so shortly
    before an iteration's end that it catches it on one side and misses it on the other: then those behind it
    are some hundredths off, for a while.
    """
    deeds = deeds_of([(*one[:-1], None) for one in asked], times.draft_tokens, 400, 16)
    stepwise, by_events = both(times, deeds, capacity=400, slots=16, budget=budget)
    for number, one in stepwise.seen.items():
        other = by_events.seen[number]
        for seen, other_seen in ((one.first, other.first), (one.last, other.last), (one.gap, other.gap)):
            assert other_seen == pytest.approx(seen, rel=0.05, abs=0.02)
        assert one.over is not None and other.over is not None
        assert other.over[1:] == one.over[1:]
    assert (by_events.runs.claimed, by_events.runs.used_slots, by_events.runs.used_blocks(0)) == (0, 0, 0)


def test_speculating_the_mean_over_many_answers_is_the_batchs_to_a_thousandth():
    spaced = [(0.05, 40 * (at % 9) + 60, 11 * (at % 13) + 30, 1, 0, 0, None) for at in range(200)]
    for times in (Chapter(Pattern.D), Chapter(Pattern.A_EAGLE)):
        deeds = deeds_of(spaced, times.draft_tokens, 2_000, 32)
        engines = both(times, deeds, capacity=2_000, slots=32)
        took = [
            sum(one.over[0] - one.first for one in engine.seen.values() if one.over and one.first)
            for engine in engines
        ]
        assert took[1] == pytest.approx(took[0], rel=1e-3)


@pytest.mark.parametrize("draft", [1, 5, 20])
@pytest.mark.parametrize("length", [1, 2, 37, 400])
def test_the_steps_of_an_answer_are_counted_as_the_batch_takes_them(draft: int, length: int):
    times = Chapter(Pattern.D, draft_tokens=draft)
    for number in range(20):
        work = Work(Claim(number, 1), number * 1234567, 50, 3 + length, from_index=3, to_the_limit=True)
        stepwise = Stepwise(Batch(times, capacity=400, slots=1, block_tokens=SIZE, seed=7))
        play(stepwise, [Deed(0.0, work)])
        odds = odds_of(times.draft_tokens, times.acceptance)
        assert stepwise.iterations == steps_taken(7, work.digest, 0, 3, 3 + length, odds)


def test_beyond_some_hundred_steps_an_answer_goes_on_at_the_mean():
    odds = odds_of(5, 0.7)
    taken = [steps_taken(7, number, 0, 0, 4_000, odds) for number in range(50)]
    assert sum(taken) / len(taken) == pytest.approx(4_000 / Chapter(Pattern.D).tokens_per_step, rel=0.01)


@given(asked=requests, at=st.floats(0.0, 3.0), pattern=st.sampled_from([Pattern.A, Pattern.C]))
@settings(max_examples=100, deadline=None)
def test_in_mid_run_it_knows_how_far_each_answer_and_prompt_has_come(asked, at: float, pattern: Pattern):
    deeds = [deed for deed in deeds_of(asked, 0, 400, 16) if deed.at <= at]
    about = {"capacity": 400, "slots": 16, "block_tokens": SIZE, "seed": 7}
    stepwise, by_events = (
        Stepwise(Batch(Chapter(pattern), **about)),
        ByEvents(Runs(Chapter(pattern), **about)),
    )
    for engine in (stepwise, by_events):
        for deed in deeds:
            act(engine, deed)
        engine.advance(at)
    assert by_events.runs.used_blocks(at) == stepwise.batch.cache.used
    for number, one in stepwise.seen.items():
        if one.over is None:
            tokens, last, gap = by_events.runs.so_far(Claim(number, 1), at)
            assert tokens == stepwise.tokens[number]
            assert near(last, one.last)
            assert gap == pytest.approx(one.gap, rel=1e-6, abs=1e-9)


def limited(number: int, limit: int, output: int = 200) -> Work:
    return Work(Claim(number, 1), number, 100, output, to_the_limit=True, limit=limit)


def test_at_its_limit_a_sequence_pauses_with_its_blocks_and_slot_and_goes_on_when_it_may_hold_more():
    runs = Runs(Chapter(Pattern.A), capacity=400, slots=4, block_tokens=SIZE)
    engine = ByEvents(runs)
    engine.submit(limited(1, limit=160), 0.0)
    engine.advance(50.0)
    assert (runs.due, runs.so_far(Claim(1, 1), 50.0)[0]) == (None, 60)
    assert (runs.claimed, runs.used_blocks(50.0), runs.used_slots) == (10, 10, 1)
    engine.set_limit(Claim(1, 1), 240, 50.0)
    engine.advance(100.0)
    assert (runs.so_far(Claim(1, 1), 100.0)[0], runs.claimed) == (140, 15)
    engine.set_limit(Claim(1, 1), 0, 100.0)
    engine.advance(200.0)
    assert engine.seen[1].over is not None
    assert engine.seen[1].over[1:] == (EndReason.LENGTH, 200)
    assert engine.seen[1].gap == pytest.approx(50.0, abs=2.0)
    assert (runs.claimed, runs.used_slots) == (0, 0)


def test_who_pauses_takes_no_step_from_its_neighbours():
    def ends(*works: Work) -> float:
        engine = ByEvents(Runs(Chapter(Pattern.A), capacity=400, slots=4, block_tokens=SIZE))
        for work in works:
            engine.submit(work, 0.0)
        engine.advance(100.0)
        return engine.seen[1].over[0]  # type: ignore[index]

    alone, beside_one_that_pauses = ends(limited(1, 0)), ends(limited(1, 0), limited(2, 101))
    beside_one_that_speaks = ends(limited(1, 0), limited(2, 0))
    assert alone < beside_one_that_pauses < beside_one_that_speaks
    assert beside_one_that_pauses - alone < 0.2 * (beside_one_that_speaks - alone) + 0.1


@pytest.mark.parametrize("pattern", [Pattern.A, Pattern.D])
def test_it_says_that_it_is_near_its_limit_once_for_each_limit_and_in_time(pattern: Pattern):
    engine = ByEvents(Runs(Chapter(pattern), capacity=400, slots=4, block_tokens=SIZE))
    engine.submit(limited(1, 250), 0.0)
    engine.advance(20.0)
    (near_at,) = engine.near
    assert 250 - LEAD <= 100 + near_at[2] <= 250 - LEAD + 5
    engine.set_limit(Claim(1, 1), 270, 20.0)  # it is near that one already
    engine.advance(40.0)
    assert [100 + said for _, _, said in engine.near[1:]] == pytest.approx([251], abs=3)
    engine.set_limit(Claim(1, 1), 400, 40.0)  # and with this it has all that it may come to need
    engine.advance(100.0)
    assert (len(engine.near), engine.seen[1].over is None) == (2, False)


def test_it_is_not_near_its_limit_where_its_answer_ends_before():
    engine = ByEvents(Runs(Chapter(Pattern.A), capacity=400, slots=4, block_tokens=SIZE))
    engine.submit(replace(limited(1, 250), length=80), 0.0)
    engine.advance(100.0)
    assert (engine.near, engine.seen[1].over[1:]) == ([], (EndReason.STOP, 80))  # type: ignore[index]


def test_an_engine_with_no_block_left_says_so_rather_than_let_a_sequence_grow():
    runs = Runs(Chapter(Pattern.A), capacity=10, slots=4, block_tokens=SIZE)
    runs.submit(limited(1, 160), 0.0)
    with pytest.raises(Overrun, match="there are 10"):
        runs.set_limit(Claim(1, 1), 161, 0.0)
    assert runs.claimed == 10


def test_a_limit_below_the_first_token_is_turned_away():
    runs = Runs(Chapter(Pattern.A), capacity=10, slots=4, block_tokens=SIZE)
    with pytest.raises(ValueError, match="may hold 100 tokens, and reads 100"):
        runs.submit(limited(1, 100), 0.0)


def test_a_slower_pace_holds_from_the_next_iteration_on():
    def ends(pace: float | None) -> float:
        engine = ByEvents(Runs(Chapter(Pattern.A), capacity=400, slots=4, block_tokens=SIZE))
        engine.submit(Work(Claim(1, 1), 1, 100, 200, to_the_limit=True), 0.0)
        engine.advance(0.5)
        if pace is not None:
            engine.runs.set_pace(pace, 0.5)
        engine.advance(100.0)
        return engine.seen[1].over[0]  # type: ignore[index]

    assert ends(1.0) == pytest.approx(ends(None))
    assert ends(3.0) - 0.5 == pytest.approx(3 * (ends(None) - 0.5), rel=0.02)


def test_a_long_answer_is_one_event_and_a_run_lasts_as_long_as_nothing_changes():
    engine = ByEvents(Runs(Chapter(Pattern.A), capacity=40_000, slots=4, block_tokens=SIZE))
    engine.submit(Work(Claim(1, 1), 1, 100, 50_000, to_the_limit=True), 0.0)
    engine.advance(float("inf"))
    assert len(engine.blocks) == 2  # the prompt, and all that is said of it
