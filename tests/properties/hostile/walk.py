"""Random walks over the steps of the world, weighted so that requests get somewhere before something breaks.

A walk that fails says its seed and step. The same walk again, up to there, with every step printed:

    .venv/bin/python -m tests.properties.hostile.walk --seed 17 --steps 1200

The core that it walks in is the one on the path: PYTHONPATH=/a/copy/of/core tries another.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Mapping
from typing import Final

from .scenes import CROWDED, USUAL
from .world import World

WEIGHTS: Final[Mapping[str, int]] = {
    "messages_arrive": 340,
    "reports_are_written": 90,
    "reports_arrive": 40,
    "an_engine_works": 60,
    "a_client_asks": 70,
    "prompts_are_counted": 70,
    "time_passes": 24,
    "routers_dial": 30,
    "a_client_connects": 24,
    "pauses_are_over": 16,
    "who_was_refused_comes_back": 16,
    "a_full_report_is_due": 12,
    "an_engine_lets_go": 12,
    "somebody_learns_late_that_a_caller_is_gone": 12,
    "workers_drain_no_more": 12,
    "engines_come_up": 12,
    "a_worker_starts_again": 8,
    "a_router_starts_again": 40,
    "a_link_breaks": 6,
    "a_client_cancels": 5,
    "an_engine_gives_a_sequence_up": 4,
    "a_grant_is_shown_once_more": 3,
    "a_session_breaks": 5,
    "a_router_is_cut_off_from_a_worker": 2,
    "who_was_cut_off_is_so_no_more": 3,
    "a_client_loses_a_worker": 7,
    "a_report_is_lost": 3,
    "a_report_comes_twice": 3,
    "much_time_passes": 3,
    "an_engine_goes_down": 1,
    "an_engines_word_on_its_blocks_is_lost": 2,
    "engines_say_which_blocks_they_have": 8,
    "an_engine_starts_anew": 1,
    "a_worker_drains": 1,
    "a_worker_crashes": 2,
    "a_router_dies": 2,
    "a_client_dies": 1,
    "a_clock_leaps": 1,
    "rules_change": 1,
}
"""How often each step is taken, of their sum."""
RARE: Final = 7
MOOD: Final = 1000


def walk(seed: int, steps: int, *, aloud: bool = False) -> Counter[str]:
    """Take so many steps, settle, and answer what has happened.

    Raises:
        AssertionError: something was not true; it names the seed and the step.
    """
    dice = random.Random(seed)
    world = World(dice, CROWDED if seed % 4 == 3 else USUAL)
    names, weights = list(WEIGHTS), list[float](WEIGHTS.values())
    step, name = 0, "the start"
    try:
        for step in range(1, steps + 1):
            if step % MOOD == 1:  # favourites among the rare steps, so that much of one kind meets sometimes
                weights = [
                    w * dice.choice((0.0, 0.5, 1.0, 2.5)) if w <= RARE else w for w in WEIGHTS.values()
                ]
            (name,) = dice.choices(names, weights)
            if aloud:
                print(f"{step:6} {world.now:9.2f} {name}")
            getattr(world, name)(dice)
            world.look()
        step, name = steps, "settling"
        world.settle(dice)
    except Exception as wrong:
        wrong.add_note(
            f"seed {seed}, step {step} ({name}). Again: "
            f"python -m tests.properties.hostile.walk --seed {seed} --steps {step}"
        )
        raise
    world.seen["steps"] = steps
    return world.seen


def main() -> None:
    parser = argparse.ArgumentParser(description="One walk again, aloud.")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--quiet", action="store_true", help="print only what has happened")
    options = parser.parse_args()
    for what, count in sorted(walk(options.seed, options.steps, aloud=not options.quiet).items()):
        print(f"{count:8} {what}")


if __name__ == "__main__":
    main()
