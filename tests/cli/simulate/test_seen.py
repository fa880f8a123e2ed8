"""However long a run is, its picture is made of a bounded number of points."""

import pytest

from diplex_cli.simulate.seen import Seen, Thinned
from diplex_core.report import Ending, Outcome
from diplex_core.words import Pattern, Tier


@pytest.mark.parametrize(("count", "kept"), [(0, []), (4, [0, 1, 2, 3]), (5, [0, 2, 4]), (20, [0, 8, 16])])
def test_of_too_many_points_every_so_manieth_is_kept(count: int, kept: list[int]):
    thinned: Thinned[int] = Thinned(most=4)
    for point in range(count):
        thinned.add(point)
    assert (thinned.points, thinned.count) == (kept, count)


def test_outcomes_are_told_apart_and_the_longest_queue_is_kept():
    seen = Seen({"bulk": Tier("bulk", (Pattern.A,))})
    seen.hear(Outcome("r", "m", "bulk", 1.0, Ending.COMPLETED, ttft=0.5, prompt_tokens=10))
    seen.hear(Outcome("r", "m", "bulk", 2.0, Ending.REJECTED))
    seen.hear(Outcome("r", "m", "bulk", 3.0, Ending.FAILED))
    for at, waiting in enumerate((3, 7, 2)):
        seen.look(float(at), running=1, waiting=waiting)
    assert seen.waits["bulk"].points == [(10, 0.5)]
    assert (seen.fine.points, seen.not_fine.points) == ([1.0], [2.0, 3.0])
    assert (seen.looks.points[1], seen.most_waiting) == ((1.0, 1, 7), 7)
