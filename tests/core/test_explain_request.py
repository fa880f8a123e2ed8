"""What is said of one request by its id: why it waits now, what was decided on it, and how it ended."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from diplex_core.events import AskKey, EndedClaim, Granted, Ticked, Withdrawn
from diplex_core.past import Explanation, Outcome
from diplex_core.words import EndReason, Pattern


@dataclass
class Burst:
    """Six requests that need 14 blocks each on two pools of 40: four were granted, r5 and r6 wait."""

    desk: Any
    granted: list[Granted]

    def explained(self, request_id: str) -> Explanation:
        found = self.desk.admission.explain_request(request_id, self.desk.now)
        assert found is not None
        return found


@pytest.fixture
def burst(new_desk: Callable[..., Any], facts: Callable[..., Any]) -> Burst:
    desk = new_desk(facts("w1", blocks=40), facts("w2", blocks=40), facts("c", Pattern.C))
    decisions = [desk.ask(192, 256) for _ in range(6)]
    granted = [one for some in decisions for one in some if isinstance(one, Granted)]
    assert [len(granted), desk.free("w1"), desk.free("w2")] == [4, 12, 12]
    return Burst(desk, granted)


def test_a_request_that_waits_says_its_place_and_what_it_lacks_where_most_is_free(burst: Burst):
    burst.desk.now = 2.5
    last = burst.explained("r6")
    assert last.outcome is Outcome.QUEUED
    assert last.reason == (
        "1 of 2 in tier bulk comes before it; it needs 14 KV blocks; w1, which has most room, has 12 free, "
        "2 too few"
    )
    assert last.wait is not None
    assert (last.wait.waited, last.wait.ahead, last.wait.queued) == (2.5, 1, 2)
    assert (last.wait.needed, last.wait.free, last.wait.short, last.wait.worker) == (14, 12, 2, "w1")
    assert last.words["w2"].objections == {"kv_fits": "needs 14 KV blocks, 12 are free"}
    assert "pattern" in last.words["c"].objections
    assert burst.explained("r5").reason.startswith("it is the next of 2 in tier bulk; ")


def test_what_it_waits_for_is_what_is_so_now(burst: Burst):
    burst.desk.lose("w1")
    assert "w2, which has most room, has 12 free" in burst.explained("r6").reason
    burst.desk.lose("w2")
    assert burst.explained("r5").reason == (
        "it is the next of 2 in tier bulk; no worker that takes such requests is up: its link broke"
    )


def test_looking_changes_nothing(burst: Burst):
    before = burst.desk.admission.past.of("r5")
    burst.explained("r5")
    assert burst.desk.admission.past.of("r5") is before
    assert len(burst.desk.admission.waiting) == 2


def test_where_room_is_not_what_it_lacks_the_others_words_are_told(
    new_desk: Callable[..., Any], facts: Callable[..., Any]
):
    desk = new_desk(facts("w1", slots=1))
    desk.grant()
    desk.ask()
    assert Burst(desk, []).explained("r2").reason == (
        "needs 1 sequence slots, 0 are free; w1 is kept for it: nobody knows when it will have room there"
    )


def test_a_small_request_passes_on_a_worker_that_is_not_kept_for_the_large_one(burst: Burst):
    (granted,) = burst.desk.ask(32, 32)
    assert granted.worker.name == "w2"
    assert burst.explained("r5").reason.endswith(
        "w1 is kept for it: nobody knows when it will have room there"
    )


def test_a_request_that_may_not_pass_on_the_kept_worker_says_for_whom_that_is_kept(burst: Burst):
    burst.desk.ask(32, 32)
    burst.desk.ask(192, 192)
    assert burst.explained("r8").reason == (
        "2 of 3 in tier bulk come before it; kept for one that needs 14 KV blocks, and leaves 0 beside it"
    )


@pytest.mark.parametrize(
    ("reason", "tokens", "words"),
    [
        (EndReason.STOP, 40, "it ended STOP with 40 output tokens"),
        (EndReason.CANCELLED, 0, "it ended CANCELLED with 0 output tokens"),
        (EndReason.REFUSED, 0, "the worker refused it"),
        (EndReason.PREEMPTED, 40, "it gave way after 40 output tokens, to go on where there is room"),
    ],
)
def test_a_request_that_is_over_has_its_last_words(burst: Burst, reason: EndReason, tokens: int, words: str):
    first = burst.granted[0]
    burst.desk.start(first)
    assert burst.explained("r1").ending is None, "it runs"
    burst.desk.now = 3.0
    burst.desk.report(first.worker.name, ended=(EndedClaim(first.claim, reason, 192, tokens),))
    over = burst.explained("r1")
    assert (over.outcome, over.picked) == (Outcome.GRANTED, first.worker.name)
    assert over.ending is not None
    assert (over.ending.words, over.ending.at) == (words, 3.0)


@pytest.mark.parametrize(
    ("request_id", "why"), [("r5", "no worker has room"), ("r6", "others came before it")]
)
def test_a_request_that_was_withdrawn_says_so(burst: Burst, request_id: str, why: str):
    burst.desk.tell(Withdrawn(AskKey(1, int(request_id[1:]))))
    over = burst.explained(request_id)
    assert (over.outcome, over.reason, over.wait) == (Outcome.QUEUED, why, None)
    assert over.ending is not None
    assert over.ending.words == "the client withdrew it"


def test_a_refusal_has_its_own_last_words(new_desk: Callable[..., Any], facts: Callable[..., Any]):
    desk = new_desk(facts("c", Pattern.C, slots=1))
    desk.grant(tier="interactive")
    desk.ask(tier="interactive")
    desk.now = 1.0
    desk.tell(Ticked())
    refused = Burst(desk, []).explained("r2")
    assert refused.outcome is Outcome.REFUSED
    assert refused.reason.startswith("waited 1.0 s for room")
    assert refused.ending is None


def test_what_found_the_queue_full_is_remembered(burst: Burst):
    for _ in range(1022):
        burst.desk.ask(192, 256)
    burst.desk.ask(192, 256)
    refused = burst.explained("r1029")
    assert (refused.outcome, refused.wait) == (Outcome.REFUSED, None)
    assert refused.reason.startswith("1024 requests of tier bulk wait")


def test_of_a_request_that_nobody_remembers_nothing_is_said(burst: Burst):
    assert burst.desk.admission.explain_request("stranger", 0.0) is None
