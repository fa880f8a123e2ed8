"""What an engine says, held against what its worker knows; and whether it still computes."""

import pytest

from diplex_core.words import Claim
from diplex_workers.engines.dialects.dialect import Gauges
from diplex_workers.engines.judge import LOOKS, MISSTATES, PREEMPTS, QUEUES, STRANGERS, Judge, Look, Remarks
from diplex_workers.engines.pulse import Pulse

A, B = Claim(1, 1), Claim(2, 1)


def looked(*looks: Look, capacity: int = 100) -> Judge:
    judge = Judge(capacity)
    for look in looks:
        judge.saw(look)
    return judge


def look(least: int = 0, most: int = 10, ours: int = 1, **gauges: object) -> Look:
    return Look(Gauges(**gauges), least, most, ours)


class TestItsWordOnItsCache:
    def test_before_the_first_look_nothing_is_known(self):
        judge = Judge(100)
        assert (judge.observed, judge.misstated, judge.remarks) == (None, "", Remarks())

    def test_a_share_is_told_in_blocks(self):
        assert looked(look(used=0.25)).observed == 25

    def test_less_than_its_streams_hold_is_wrong_after_a_row_of_looks(self):
        looks = [look(least=4, used=0.03)] * LOOKS
        assert looked(*looks[1:]).misstated == ""
        judge = looked(*looks)
        assert judge.misstated == "it says that 3 KV blocks are in use, and its streams hold 4 at least"
        assert judge.remarks.alarms[MISSTATES] == judge.misstated

    @pytest.mark.parametrize(
        "odd",
        [look(least=4, used=0.04), look(least=3, used=0.03), look(least=0, used=0.0), look(least=4)],
        ids=["a gauge that lags", "output that is older", "a pause in the streams", "a look without a gauge"],
    )
    def test_one_look_of_the_row_that_can_be_true_clears_it(self, odd):
        assert looked(*[look(least=4, used=0.03)] * (LOOKS - 1), odd).misstated == ""

    @pytest.mark.parametrize("used", [float("nan"), float("inf"), -0.5, 3.0])
    def test_what_is_no_share_is_unknown_at_once_and_wrong_if_it_lasts(self, used):
        assert looked(look(used=used)).observed is None
        assert "no share" in looked(*[look(used=used)] * LOOKS).misstated

    def test_a_full_cache_is_no_lie(self):
        assert looked(*[look(least=90, most=100, used=1.0)] * LOOKS).misstated == ""


class TestWhatItDoesByItself:
    def test_a_queue_that_lasts_is_told_with_its_least_length(self):
        judge = looked(*(look(waiting=n) for n in (3, 2, 5, 2, 4)))
        assert judge.remarks.alarms == {QUEUES: "it keeps 2 requests waiting by itself"}
        assert judge.remarks.waiting == 4
        assert looked(*(look(waiting=n) for n in (3, 2, 0, 2, 4))).remarks.alarms == {}

    def test_preemptions_are_counted_from_the_first_look_on_and_told_while_they_are_new(self):
        judge = looked(*(look(preempted=n) for n in (7, 7, 9)))
        assert judge.remarks.alarm == "it stopped 2 running requests by itself"
        assert judge.remarks.preempted == 2
        for _ in range(LOOKS):
            judge.saw(look(preempted=9))
        assert (judge.remarks.alarm, judge.remarks.preempted) == ("", 2)

    def test_a_counter_that_begins_anew_is_no_negative_count(self):
        assert looked(look(preempted=7), look(preempted=1), look(preempted=2)).remarks.preempted == 1

    def test_sequences_beyond_the_workers_own_are_strangers_and_so_are_their_blocks(self):
        remarks = looked(*[look(running=3, ours=1, most=10, used=0.5)] * LOOKS).remarks
        assert (remarks.foreign_slots, remarks.foreign) == (2, 40)
        assert remarks.alarms[STRANGERS] == "it serves 2 requests of others, in 40 KV blocks"

    def test_jobs_that_just_ended_are_not_taken_for_strangers(self):
        row = [look(running=3, ours=3)] + [look(running=3, ours=1)] * (LOOKS - 1)
        assert looked(*row).remarks.foreign_slots == 0

    def test_a_gauge_that_keeps_its_last_value_while_idle_makes_no_strangers(self):
        remarks = looked(*[look(running=0, ours=0, most=0, used=0.9)] * LOOKS).remarks
        assert (remarks.foreign, remarks.alarm) == (0, "")

    def test_several_alarms_are_one_line(self):
        judge = looked(*(look(waiting=1, preempted=n) for n in range(LOOKS)))
        assert set(judge.remarks.alarms) == {QUEUES, PREEMPTS}
        assert judge.remarks.alarm.count("; ") == 1


class TestItsPulse:
    def test_an_engine_without_work_is_never_silent(self):
        assert Pulse().silence(1e9) == 0

    def test_silence_runs_from_the_oldest_job_or_the_last_token_of_any(self):
        pulse = Pulse()
        pulse.began(A, 10)
        pulse.began(B, 40)
        assert pulse.silence(50) == 40
        pulse.heard(B, 45)
        assert pulse.silence(50) == 5

    def test_jobs_that_keep_coming_do_not_hide_that_none_is_served(self):
        pulse = Pulse()
        for second in range(100):
            pulse.began(Claim(second, 1), second)
        assert pulse.silence(100) == 100

    def test_a_stream_stalls_once_it_had_begun(self):
        pulse = Pulse()
        pulse.began(A, 0)
        pulse.began(B, 0)
        pulse.heard(A, 1)
        assert pulse.stalled(12, after=10) == [A]
        assert pulse.stalled(11, after=10) == []

    def test_what_ended_is_forgotten(self):
        pulse = Pulse()
        pulse.began(A, 0)
        pulse.heard(A, 1)
        pulse.ended(A)
        assert (pulse.silence(99), pulse.stalled(99, 1), pulse.talking(0)) == (0, [], [])
