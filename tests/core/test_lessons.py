"""What a worker's first tokens and ends teach about what is predicted of it."""

import random
from statistics import median

import pytest

from diplex_core.events import EndedClaim, Served, WorkerFacts
from diplex_core.guests import Reading
from diplex_core.lessons import Lessons
from diplex_core.model.forecast import Outlook
from diplex_core.sim.arrivals import Arrival
from diplex_core.sim.faults import Slow
from diplex_core.sim.simulation import Simulation
from diplex_core.words import Claim, EndReason, Pattern, Rules, Tier

ONE, TWO = Claim(1, 1), Claim(2, 1)


def outlook(
    *, reads: float = 0.100, steps: float = 0.010, step: float = 0.005, tpot: float = 0.005
) -> Outlook:
    return Outlook(reads + steps, tpot, step, Reading(reads, step), reads, steps, step)


def read(lessons: Lessons, *claims: Claim, granted: float, now: float, **words: float) -> None:
    for claim in claims:
        lessons.granted(claim, outlook(**words), granted)
    for claim in claims:
        lessons.read(claim, now)


def test_a_prompt_that_took_twice_as_long_to_read_is_a_lesson_once_the_next_one_is_out():
    lessons = Lessons()
    for number in range(40):
        read(lessons, Claim(number, 1), granted=number, now=number + 0.210)
    assert lessons.learned.reading == pytest.approx(2.0, rel=0.02)
    assert lessons.learned.step == 1.0


def test_the_engine_reads_one_after_the_other_so_time_counts_from_the_one_before():
    lessons = Lessons()
    for number in range(40):  # all of them granted at once, and read in turn as predicted
        lessons.granted(Claim(number, 1), outlook(), 0.0)
    for number in range(40):
        lessons.read(Claim(number, 1), 0.110 * (number + 1))
    assert lessons.learned.reading == 1.0


def test_first_tokens_of_one_moment_were_read_in_one_step():
    lessons = Lessons()
    for at in range(40):
        read(lessons, Claim(at, 1), Claim(at, 2), granted=at, now=at + 0.210)
    assert lessons.learned.reading == 1.0


@pytest.mark.parametrize(("reads", "learned"), [(0.010, 1.0), (0.100, 1.2)])
def test_of_an_idle_engine_only_a_long_prompt_is_a_lesson(reads: float, learned: float):
    """A short one's time is mostly that of the messages."""
    lessons = Lessons()
    for number in range(40):
        read(lessons, Claim(number, 1), granted=number, now=number + 1.2 * reads, reads=reads, steps=0.0)
    assert lessons.learned.reading == pytest.approx(learned, rel=0.01)


def test_where_the_steps_between_are_most_of_it_nothing_is_learned_about_reading():
    lessons = Lessons()
    for number in range(40):
        read(lessons, Claim(number, 1), granted=number, now=number + 0.9, reads=0.1, steps=0.2)
    assert lessons.learned.reading == 1.0


def test_behind_a_prompt_that_nobody_knows_nothing_is_learned():
    lessons = Lessons()
    for number in range(40):
        lessons.granted(TWO, outlook(), float(number))
        lessons.read(ONE, number + 0.3)
        lessons.left(TWO)
    assert lessons.learned.reading == 1.0


@pytest.mark.parametrize(
    ("tokens", "reason", "tpot", "learned"),
    [
        (101, EndReason.LENGTH, 0.005, 2.0),
        (101, EndReason.STOP, 0.005, 2.0),
        (101, EndReason.CANCELLED, 0.005, 1.0),
        (4, EndReason.LENGTH, 0.005, 1.0),
        (
            101,
            EndReason.LENGTH,
            0.012,
            1.0,
        ),  # more of it was expected to be others' reading than its own steps
        (101, EndReason.LENGTH, 0.008, 1.25),  # what was expected to be others' reading is no lesson on steps
    ],
)
def test_an_answer_that_ended_whole_is_a_lesson_on_steps(
    tokens: int, reason: EndReason, tpot: float, learned: float
):
    lessons = Lessons()
    for number in range(40):
        claim = Claim(number, 1)
        lessons.granted(claim, outlook(tpot=tpot), 0.0)
        lessons.ended(EndedClaim(claim, reason, 1000, tokens, 0.1, 0.1 + 0.010 * (tokens - 1)))
    assert lessons.learned.step == pytest.approx(learned, rel=0.02)


def test_what_earlier_attempts_produced_took_none_of_this_ones_time():
    lessons = Lessons()
    for number in range(40):
        claim = Claim(number, 1)
        lessons.granted(claim, outlook(), 0.0, produced=900)
        lessons.ended(EndedClaim(claim, EndReason.LENGTH, 1900, 1001, 0.1, 0.1 + 0.010 * 100))
    assert lessons.learned.step == pytest.approx(2.0, rel=0.02)


@pytest.mark.parametrize("factor", [0.6, 1.6])
def test_a_worker_that_is_not_as_fast_as_its_model_is_predicted_as_it_is(factor: float):
    """Of the second half of its requests. Everything is simulated; each iteration takes so much longer."""
    served: list[Served] = []
    chance, at, load = random.Random(2), 0.0, []
    for _ in range(300):
        at += chance.expovariate(3.0)
        load.append(Arrival(at, chance.randint(500, 8000), chance.randint(20, 200), "t"))
    facts = WorkerFacts(
        "w", "p", Pattern.A, frozenset({"m"}), 1, "", 32, 22_250, 32, simulated=True, calibration="chapter",
        gpu="b200", profile="qwen2.5-72b", weights="mxfp4-mixed", kv_cache="mxfp8", context=65_536,
    )  # fmt: skip
    rules = Rules(frozenset({"m"}), "m", {"t": Tier("t", (Pattern.A,))}, "t")
    fleet = Simulation(rules, [facts], faults=[Slow(0.0, "w", factor, 1e9)])
    fleet.on_served = served.append
    fleet.run(load, lambda outcome: None)
    later = served[150:]
    known = [(one.predicted_ttft, one.ttft) for one in later if one.predicted_ttft and one.ttft]
    assert len(known) > 140
    assert median(ours / theirs for ours, theirs in known) == pytest.approx(1.0, abs=0.08)
    assert median(abs(ours / theirs - 1) for ours, theirs in known) < 0.2
