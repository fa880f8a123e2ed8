"""Hypothesis walks the hostile world: what fails, it makes small. The steps are those of `hostile.world`."""

import random
from collections import Counter
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from .hostile.scenes import CROWDED, USUAL, Scene
from .hostile.world import World

dice = st.randoms(use_true_random=False)
moves = st.sampled_from(
    (
        "messages_arrive",
        "reports_are_written",
        "reports_arrive",
        "prompts_are_counted",
        "an_engine_works",
        "an_engine_lets_go",
        "pauses_are_over",
        "who_was_refused_comes_back",
        "somebody_learns_late_that_a_caller_is_gone",
        "a_full_report_is_due",
    )
)
repairs = st.sampled_from(
    (
        "routers_dial",
        "who_was_cut_off_is_so_no_more",
        "a_client_connects",
        "engines_come_up",
        "engines_say_which_blocks_they_have",
        "workers_drain_no_more",
        "a_worker_starts_again",
        "a_router_starts_again",
    )
)
troubles = st.sampled_from(
    (
        "a_client_cancels",
        "a_session_breaks",
        "a_client_loses_a_worker",
        "a_client_dies",
        "a_grant_is_shown_once_more",
        "a_link_breaks",
        "a_router_is_cut_off_from_a_worker",
        "a_report_is_lost",
        "a_report_comes_twice",
        "an_engine_gives_a_sequence_up",
        "an_engine_goes_down",
        "an_engines_word_on_its_blocks_is_lost",
        "an_engine_starts_anew",
        "a_worker_drains",
        "a_worker_crashes",
        "a_router_dies",
        "a_clock_leaps",
        "much_time_passes",
        "rules_change",
    )
)


class HostileMachine(RuleBasedStateMachine):
    """The world and its steps; one in six is trouble.

    Attributes:
        scenes: the worlds that a test takes.
        seen: what happened in all of them.
    """

    scenes: ClassVar[tuple[Scene, ...]] = (USUAL, CROWDED)
    seen: ClassVar[Counter[str]] = Counter()

    @initialize(dice=dice, which=st.integers(0, 1))
    def everything_starts(self, dice: random.Random, which: int) -> None:
        self.world = World(dice, self.scenes[which % len(self.scenes)])
        for _ in range(12):
            self.world.routers_dial(dice)
            self.world.a_client_connects(dice)
            self.world.messages_arrive(dice)
            self.world.reports_are_written(dice)
            self.world.reports_arrive(dice)

    @rule(dice=dice, how_many=st.integers(1, 4))
    def clients_ask(self, dice: random.Random, how_many: int) -> None:
        for _ in range(how_many):
            self.world.a_client_asks(dice)

    @rule(dice=dice, step=moves, how_often=st.integers(1, 10))
    def something_moves(self, dice: random.Random, step: str, how_often: int) -> None:
        for _ in range(how_often):
            getattr(self.world, step)(dice)

    @rule(dice=dice, step=moves, how_often=st.integers(1, 10))
    def something_else_moves(self, dice: random.Random, step: str, how_often: int) -> None:
        for _ in range(how_often):
            getattr(self.world, step)(dice)

    @rule(dice=dice)
    def time_passes(self, dice: random.Random) -> None:
        self.world.time_passes(dice)

    @rule(dice=dice, step=repairs)
    def something_is_mended(self, dice: random.Random, step: str) -> None:
        getattr(self.world, step)(dice)

    @rule(dice=dice, step=troubles)
    def something_breaks(self, dice: random.Random, step: str) -> None:
        getattr(self.world, step)(dice)

    @invariant()
    def what_must_be_true_is(self) -> None:
        if hasattr(self, "world"):
            self.seen["steps"] += 1
            self.world.look()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.settle(random.Random(0))
            self.seen.update(self.world.seen)


class UsualMachine(HostileMachine):
    scenes = (USUAL,)


class CrowdedMachine(HostileMachine):
    scenes = (CROWDED,)


def chosen_by_hypothesis(machine: type[HostileMachine], examples: int, *, steps: int) -> None:
    """Walk as many worlds, eighty steps each. Always the same ones: a run that fails fails again, and
    `hostile.walk` is for new ones.

    Args:
        steps: that must have been taken in all.
    """
    machine.seen.clear()
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=80,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    seen = machine.seen
    for what, count in sorted(seen.items()):
        print(f"{count:8} {what}")
    assert seen["steps"] >= steps
    assert all(seen[what] for what in ("granted to grow", "claims grew", "stopped in favour of others"))


def test_thousands_of_steps_that_hypothesis_chooses_over_commit_nothing_and_leave_nothing() -> None:
    chosen_by_hypothesis(HostileMachine, 90, steps=4_000)


@pytest.mark.long
@pytest.mark.parametrize("machine", [UsualMachine, CrowdedMachine])
def test_a_hundred_thousand_steps_that_hypothesis_chooses_over_commit_nothing_and_leave_nothing(
    machine: type[HostileMachine],
) -> None:
    chosen_by_hypothesis(machine, 900, steps=50_000)
