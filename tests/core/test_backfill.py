"""Who may pass a request that waits for room, and when that one starts."""

from collections.abc import Callable
from dataclasses import replace
from math import inf
from random import Random
from typing import Any

import pytest

from diplex_core.backfill import Ending, Reservation, Start, start_of
from diplex_core.events import Granted, Queued, Ticked
from diplex_core.words import Pattern, Rules, Tier

NewDesk = Callable[..., Any]
MODEL = "qwen2.5-72b-instruct"
HIGH = Tier("high", (Pattern.A,), max_output_tokens=4_096, priority=9, filters=(), min_share=0.0)
LOW = Tier("low", (Pattern.A,), max_output_tokens=4_096, filters=(), min_share=0.0)
RULES = Rules(frozenset({MODEL}), MODEL, {"high": HIGH, "low": LOW}, "low")


@pytest.mark.parametrize(
    ("endings", "start"),
    [
        ([Ending(5.0, 40, 1)], Start(5.0, 40, 10, 1)),
        ([Ending(5.0, 20, 1), Ending(7.0, 30, 1), Ending(9.0, 90, 1)], Start(7.0, 40, 20, 2)),
        ([Ending(5.0, 20, 1), Ending(inf, 80, 1)], Start(inf, 40)),
        ([Ending(0.5, 40, 1)], Start(1.0, 40, 10, 1)),  # it should be over by now
    ],
)
def test_a_request_starts_when_enough_guests_have_ended(endings: list[Ending], start: Start) -> None:
    found = start_of(50, 1, free_blocks=10, free_slots=1, endings=endings, now=1.0)
    assert (found.at, found.short) == (start.at, start.short)
    if found.at < inf:
        assert found.spare_blocks == sum(e.blocks for e in endings if e.at <= found.at) + 10 - 50


@pytest.mark.parametrize(
    ("blocks", "ends", "may"),
    [
        (80, 8.9, True),  # over before
        (80, 9.1, False),
        (40, 9.1, True),  # fits beside
        (41, None, False),  # nobody knows how long it takes
        (40, None, True),
    ],
)
def test_who_ends_before_or_fits_beside_puts_nobody_off(blocks: int, ends: float | None, may: bool) -> None:
    kept = Reservation(7, "a", 0, False, 90, 1, Start(9.0, 30, 40, 1))
    assert kept.leaves(blocks, 1, ends) is may


def test_where_run_times_are_unknown_the_kept_worker_takes_nobody() -> None:
    kept = Reservation(7, "a", 0, False, 90, 1, Start(inf, 30))
    assert not kept.leaves(1, 1, 0.5)


def test_a_large_request_is_not_passed_for_ever_by_small_ones_of_another_tier(
    new_desk: NewDesk, facts: Any
) -> None:
    """Small requests come for ever, and each that ends makes room for another; nobody knows run times."""
    desk = new_desk(facts("a", blocks=40, slots=40), facts("b", blocks=40, slots=40), rules=RULES)
    running = [desk.grant(128, 128, tier="low") for _ in range(10)]
    for granted in running:
        desk.start(granted)
    (queued,) = desk.ask(512, 512, tier="high")  # 32 blocks: a whole worker, nearly
    assert isinstance(queued, Queued)
    luck = Random(1)
    for _ in range(40):
        desk.ask(128, 128, tier="low")
        over = running.pop(luck.randrange(len(running)))
        for one in desk.end(over):
            if isinstance(one, Granted):
                if one.tier == "high":
                    return
                desk.start(one)
                running.append(one)
    pytest.fail("it still waits")


def test_small_requests_of_its_own_queue_pass_on_the_other_worker(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a", blocks=40, slots=40), facts("b", blocks=40, slots=40), rules=RULES)
    for _ in range(2):
        desk.start(desk.grant(480, 480, tier="low"))  # 30 blocks on each
    (queued,) = desk.ask(512, 512, tier="low")
    assert isinstance(queued, Queued)
    assert desk.grant(64, 64, tier="low").worker.name == "b"
    assert desk.grant(64, 64, tier="low").worker.name == "b"
    assert isinstance(desk.ask(64, 128, tier="low")[0], Queued)  # a has room for it, and is kept


@pytest.fixture
def predicted(facts: Any) -> Any:
    """A worker whose step times are known."""
    return replace(
        facts("a", blocks=1_000, slots=32),
        calibration="chapter",
        gpu="b200",
        profile="qwen2.5-72b",
        weights="mxfp4-mixed",
        kv_cache="mxfp8",
        context=65_536,
    )


def test_a_request_that_will_be_over_in_time_passes_and_a_longer_one_waits(
    new_desk: NewDesk, predicted: Any
) -> None:
    longest = replace(LOW, max_output_tokens=16_384)
    desk = new_desk(predicted, rules=replace(RULES, tiers={"low": longest}))
    desk.start(desk.grant(16_000, 4_000))  # 625 of 1000 blocks, for some twenty seconds
    (queued,) = desk.ask(16_000, 12_800)  # 900 blocks: it waits
    assert isinstance(queued, Queued)
    kept = desk.admission.workers["a"].reserved
    assert kept is not None
    assert (kept.start.spare_blocks, 15.0 < kept.start.at < 40.0) == (100, True)
    desk.grant(3_000, 1_000)  # 125 blocks, for some five seconds
    (queued,) = desk.ask(100, 7_000)  # 222 of the 250 that are free, and longer than the first
    assert isinstance(queued, Queued)
    desk.grant(1_000, 2_100)  # 97 fit beside what the large one needs then


def test_what_is_kept_is_given_up_with_the_request(new_desk: NewDesk, facts: Any) -> None:
    desk = new_desk(facts("a", blocks=40, slots=40), rules=RULES)
    desk.start(desk.grant(480, 480, tier="low"))
    desk.ask(512, 512, tier="low", timeout=5.0)
    assert desk.admission.workers["a"].reserved is not None
    (queued,) = desk.ask(64, 64, tier="low")
    assert isinstance(queued, Queued)
    desk.now = 5.1
    decisions = desk.tell(Ticked())
    assert desk.admission.workers["a"].reserved is None
    assert [one.request_id for one in decisions if isinstance(one, Granted)] == ["r3"]
